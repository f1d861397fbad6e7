"""What is executed, what is taken from the cache, what fails and how; on a tiny book of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pooch
import psutil
import pytest
import torch
from book_project import EXPERIMENT, RUN, notebook, project
from catapults import data, fingerprint, processes
from catapults.book import execute as execution
from catapults.book.build import BuildError, build
from catapults.book.chapter import Chapter
from catapults.book.execute import execute, key
from catapults.book.executed import contents

SHOW = "figures.loss_curve(run)"


def said(root: Path, **options) -> list[str]:
    lines: list[str] = []
    build(root, root / "_build", "smoke", lines.append, **{"jobs": 1} | options)
    return lines


def executed(lines: list[str]) -> set[str]:
    """Names of the runs that a build executed, not took from the cache."""
    return {match[1] for line in lines if (match := re.match(r"(\S+): [\d.]+ s;", line))}


@pytest.fixture(scope="class")
def root(tmp_path_factory):
    chapters = {"one": notebook(RUN, SHOW, "claims(run, quoted)"), "two": notebook("width")}
    folder = project(tmp_path_factory.mktemp("book"), chapters)
    assert executed(said(folder)) == {"one", "two"}
    return folder


class TestABook:
    """What one change after the other does to a book that was built."""

    def test_its_pages(self, root):
        page = (root / "_build" / "html" / "chapters" / "one.html").read_text()
        assert 'alt="Line plot, logarithmic loss axis. The loss starts at' in page
        assert "Fig. 1" in page and "departs from the preset <strong>paper</strong>" in page and "<code" in page
        assert "reproduced" in (root / "_build" / "html" / "book" / "welcome.html").read_text()

    def test_without_a_change_nothing_is_executed(self, root):
        lines = said(root)
        assert executed(lines) == set() and "pages: nothing changed" in lines

    def test_a_change_of_a_chapter_executes_its_runs(self, root):
        path = root / "chapters" / "two.ipynb"
        changed = nbformat.read(path, as_version=4)
        changed.cells[-1].source = "width + 1"
        nbformat.write(changed, path)
        assert executed(said(root)) == {"two"}

    def test_a_change_of_a_parameter_executes_that_run(self, root):
        path = root / "chapters" / "runs.yml"
        path.write_text(path.read_text().replace("steps: 2", "steps: 1", 1))
        assert executed(said(root)) == {"one"}

    def test_a_change_of_a_page_executes_nothing_but_renders(self, root):
        page = root / "book" / "welcome.md"
        page.write_text(page.read_text() + "\nA new sentence.\n")
        lines = said(root)
        assert executed(lines) == set() and "pages: rendering" in lines
        assert "A new sentence." in (root / "_build" / "html" / "book" / "welcome.html").read_text()

    def test_a_warning_of_sphinx_fails_the_build_each_time(self, root):
        page = root / "book" / "welcome.md"
        page.write_text(page.read_text() + "\n[](no-such-page)\n")
        for _ in range(2):
            with pytest.raises(BuildError, match="no-such-page"):
                said(root)

    def test_force_executes_everything(self, root):
        page = root / "book" / "welcome.md"
        page.write_text(page.read_text().replace("[](no-such-page)", ""))
        assert executed(said(root, force=True)) == {"one", "two"}


class TestTheKey:
    @pytest.fixture
    def chapter(self, tmp_path):
        return Chapter.load(project(tmp_path, {"one": notebook(RUN)}) / "chapters" / "one.ipynb")

    def test_it_is_stable_and_sees_parameters_preset_data(self, chapter):
        values = chapter.resolve({})
        keys = [
            key(chapter, values, "smoke", "data"),
            key(chapter, values | {"width": 17}, "smoke", "data"),
            key(chapter, values, "laptop", "data"),
            key(chapter, values, "smoke", "other data"),
        ]
        assert len(set(keys)) == 4
        assert key(chapter, values, "smoke", "data") == keys[0]

    def test_it_sees_versions_and_device(self, chapter, monkeypatch):
        values = chapter.resolve({})
        before = key(chapter, values, "smoke", "data")
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, "dependencies", lambda *_: {"torch": "0.1"})
            assert key(chapter, values, "smoke", "data") != before
        with monkeypatch.context() as patch:
            patch.setattr(execution.provenance, "device_name", lambda device: "another machine")
            assert key(chapter, values, "smoke", "data") != before

    def test_it_sees_the_modules_that_the_chapter_imports_and_no_others(self, chapter, tmp_path, monkeypatch):
        package = tmp_path / "catapults"
        shutil.copytree(Path(fingerprint.__file__).parent, package)
        monkeypatch.setattr(fingerprint, "_PACKAGE", package)
        values = chapter.resolve({})
        (package / "experiments" / "other.py").write_text("from .. import data\n")
        needed = ["tangent", "claims/__init__", "claims/base", "claims/gd_catapult", "experiments/base", "figures/base"]
        for module in [*needed, "experiments/other", "book/stage", "provenance"]:
            depends = module in needed
            before = key(chapter, values, "smoke", "data")
            path = package / f"{module}.py"
            path.write_text(path.read_text() + "\n# changed\n")
            assert (key(chapter, values, "smoke", "data") != before) is depends, module


def test_a_change_of_the_library_executes_the_runs_that_import_it(tmp_path, monkeypatch):
    package = tmp_path / "catapults"
    shutil.copytree(Path(fingerprint.__file__).parent, package)
    monkeypatch.setattr(fingerprint, "_PACKAGE", package)
    chapters = {"drawing": notebook(RUN, SHOW), "plain": notebook(RUN, imports=EXPERIMENT)}
    (tmp_path / "book").mkdir()
    root = project(tmp_path / "book", chapters)
    said(root)
    for module, dependent in (("figures/base", {"drawing"}), ("training", {"drawing", "plain"}), ("book/cli", set())):
        path = package / f"{module}.py"
        path.write_text(path.read_text() + "\n# changed\n")
        assert executed(said(root)) == dependent, module


class TestData:
    @pytest.fixture
    def own(self, tmp_path, monkeypatch):
        """A data set of one's own, in CATAPULTS_DATA."""
        folder = tmp_path / "data"
        folder.mkdir()
        monkeypatch.setenv("CATAPULTS_DATA", str(folder))

        def write(seed: int) -> None:
            rng = np.random.default_rng(seed)
            images = rng.integers(0, 256, (40, 4, 4), dtype=np.uint8)
            np.savez(folder / "dots.npz", train_images=images, train_labels=np.arange(40) % 2)

        write(0)
        return write

    def test_a_change_of_the_data_executes_the_runs_that_use_them(self, tmp_path, own):
        runs = {"one": {"parameters": {"dataset": "dots"}}, "other": {"chapter": "one"}}
        root = project(tmp_path, {"one": notebook(RUN)}, runs)
        assert executed(said(root)) == {"one", "other"}
        assert executed(said(root)) == set()
        own(1)
        assert executed(said(root)) == {"one"}

    def test_missing_data_are_no_failure(self, tmp_path, monkeypatch):
        def nowhere(name, *arguments, **options):
            raise data.DataUnavailable(f"{name} cannot be had. Run `catapults data fetch {name}`")

        root = project(
            tmp_path, {"one": notebook(RUN), "two": notebook()}, {"one": {}, "two": {"parameters": {"seed": 1}}}
        )
        monkeypatch.setattr(data, "load", nowhere)
        lines = said(root)
        assert any("one: not run, data set missing" in line for line in lines)
        page = (root / "_build" / "html" / "chapters" / "one.html").read_text()
        assert "data set missing" in page and "catapults data fetch rank-2" in page

    def test_the_page_of_a_data_set_that_cannot_be_had_says_how_to_get_it(self, tmp_path, monkeypatch):
        monkeypatch.delenv("CATAPULTS_DATA", raising=False)
        monkeypatch.setenv("CATAPULTS_CACHE", str(tmp_path / "cache"))

        def no_network(*_, **__):
            raise OSError("Network is unreachable")

        monkeypatch.setattr(pooch, "retrieve", no_network)
        runs = {"one": {}, "digits": {"chapter": "one", "parameters": {"dataset": "svhn-2"}}}
        root = project(tmp_path, {"one": notebook(RUN, SHOW, "claims(run, quoted)")}, runs)
        lines = said(root)  # which raises nothing
        assert executed(lines) == {"one"}
        assert any(line.startswith("digits: not run, data set missing") for line in lines)
        page = (root / "_build" / "html" / "chapters" / "digits.html").read_text()
        assert "data set missing" in page and "catapults data fetch svhn" in page and "Network is unreachable" in page
        welcome = (root / "_build" / "html" / "book" / "welcome.html").read_text()
        assert "not run" in welcome and "set by us" in welcome


class TestFailures:
    def test_every_run_has_its_turn_and_every_traceback_is_shown(self, tmp_path):
        chapters = {
            "broken": notebook("raise RuntimeError('first trouble')"),
            "good": notebook("print('fine')"),
            "dying": notebook("import os; os._exit(1)"),
        }
        root = project(tmp_path, chapters)
        lines: list[str] = []
        with pytest.raises(BuildError) as error:
            build(root, root / "_build", "smoke", lines.append)
        assert "first trouble" in str(error.value) and "'dying' failed" in str(error.value)
        assert executed(lines) == {"good"}
        assert [p.name.split("-")[0] for p in (root / "_build" / "runs").iterdir()] == ["good"]
        assert "first trouble" in (root / "_build" / "html" / "chapters" / "broken.html").read_text()

    def test_a_claim_that_does_not_hold_is_a_result(self, tmp_path):
        calm = {"one": {"parameters": {"learning_rate": 0.01}}}  # below the critical rate
        root = project(tmp_path, {"one": notebook(RUN, "claims(run, quoted)")}, calm)
        assert any("not reproduced" in line for line in said(root))
        assert "not reproduced" in (root / "_build" / "html" / "chapters" / "one.html").read_text()

    def test_a_picture_without_alternative_text(self, tmp_path):
        plot = "from IPython.display import SVG\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')"
        with pytest.raises(BuildError, match="run 'one': a cell shows a picture without caption and alternative text"):
            said(project(tmp_path, {"one": notebook(plot)}))

    def test_a_figure_with_an_empty_alternative_text(self, tmp_path):
        empty = "from catapults.display import Figure\nFigure('<svg/>', 'x', 'a caption', ' ')"
        with pytest.raises(BuildError, match="figure 'x' has no alt"):
            said(project(tmp_path, {"one": notebook(empty)}))

    def test_a_run_without_a_page(self, tmp_path):
        root = project(tmp_path, {"one": notebook()})
        (root / "_toc.yml").write_text("format: jb-book\nroot: book/welcome\n")
        with pytest.raises(BuildError, match="has no entry `file: chapters/one`"):
            said(root)

    def test_impossible_data_are_refused_before_a_kernel_starts(self, tmp_path, monkeypatch):
        root = project(tmp_path, {"one": notebook()})
        chapter = Chapter.load(root / "chapters" / "one.ipynb")
        monkeypatch.setattr(execution.papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel started"))
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
        images = np.zeros((9, 6, 6), np.uint8)
        np.savez(tmp_path / "dots.npz", train_images=images, train_labels=np.arange(9) % 2)
        for parameters, message in (({"n_train": 10}, "n_train"), ({"image_size": 4}, "image_size = 4")):
            values = chapter.resolve({"dataset": "dots"} | parameters)
            assert message in execute("one", chapter, values, "smoke", tmp_path / "runs").failure

    def test_a_kept_notebook_that_cannot_be_read_is_made_again(self, tmp_path):
        root = project(tmp_path, {"one": notebook()})
        said(root)
        (kept,) = (root / "_build" / "runs").glob("*.ipynb")
        kept.write_text(kept.read_text()[:100])
        assert executed(said(root)) == {"one"}

    def test_a_bad_picture_does_not_hide_a_failed_run(self, tmp_path):
        plot = "from IPython.display import SVG\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')"
        root = project(tmp_path, {"broken": notebook("1 / 0"), "plot": notebook(plot)})
        with pytest.raises(BuildError, match="ZeroDivisionError") as error:
            said(root)
        assert "without caption" in str(error.value)

    def test_a_full_disk_loses_no_other_run(self, tmp_path, monkeypatch):
        root = project(tmp_path, {"one": notebook(), "two": notebook()})
        write = nbformat.write

        def full(content, path, *rest):
            if "one-" in str(path):
                raise OSError(28, "No space left on device")
            return write(content, path, *rest)

        monkeypatch.setattr(execution.nbformat, "write", full)
        with pytest.raises(BuildError, match="No space left on device"):
            said(root)
        monkeypatch.undo()
        assert executed(said(root)) == {"one"}


class TestSeveralAtATime:
    THREADS = "import torch\nprint(torch.get_num_threads())"

    def test_results_are_those_of_one_after_the_other(self, tmp_path):
        chapters = {
            "broken": notebook("1 / 0"),
            **{name: notebook(RUN, SHOW, self.THREADS) for name in ("a", "b")},
        }
        lines: list[str] = []
        found = []
        for jobs in (1, 2):
            (tmp_path / str(jobs)).mkdir()
            root = project(tmp_path / str(jobs), chapters)
            with pytest.raises(BuildError, match="ZeroDivisionError"):
                build(root, root / "_build", "smoke", lines.append, jobs=jobs)
            page = root / "_build" / "html" / "chapters" / "b.html"
            found.append(re.findall(r"The loss starts at [^<]*", page.read_text()))
        assert found[0] == found[1] != []
        assert executed(lines) == {"a", "b"} and lines.count("broken: FAILED") == 2
        lines = said_with(BuildError, root, jobs=2)
        assert executed(lines) == set() and sum("cached" in line for line in lines) == 2

    def test_they_share_the_cores(self, tmp_path):
        runs = {"one": {}, "two": {"chapter": "one"}, "last": {"chapter": "one", "alone": True}}
        root = project(tmp_path, {"one": notebook(self.THREADS)}, runs)
        lines = said(root, jobs=2)
        cores = torch.get_num_threads()
        for name, expected in (("one", max(1, cores // 2)), ("two", max(1, cores // 2)), ("last", cores)):
            (kept,) = (root / "_build" / "runs").glob(f"{name}-*.ipynb")
            (output,) = nbformat.read(kept, as_version=4).cells[-1].outputs
            assert output.text.strip() == str(expected)
        assert lines.index("last: executing") > max(lines.index(f"{name}: executing") for name in ("one", "two"))

    def test_the_rest_has_its_turn_when_a_process_of_the_build_dies(self, tmp_path):
        """The one that started the kernel, once; then the mark is there and the cell does nothing."""
        mark = tmp_path / "mark"
        kill = f"""
import multiprocessing, os, pathlib, signal
mark = pathlib.Path({str(mark)!r})
if not mark.exists():
    mark.touch()
    os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)
"""
        root = project(tmp_path, {"deadly": notebook(kill), "other": notebook("width")})
        lines = said(root, jobs=2)
        assert mark.exists() and any("a process of the build has died" in line for line in lines)
        assert executed(lines) == {"deadly", "other"}


def said_with(error: type[Exception], root: Path, **options) -> list[str]:
    """What a build says that fails."""
    lines: list[str] = []
    with pytest.raises(error):
        build(root, root / "_build", "smoke", lines.append, **options)
    return lines


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_loses_no_finished_run(tmp_path, how, jobs):
    waiting = notebook(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    waiting.cells[1].source = "import os, time\nfrom typing import Optional, Union"
    root = project(tmp_path, {"first": notebook("width"), "slow": waiting})
    command = [sys.executable, "-m", "catapults.book.cli", "build", "--preset", "smoke", "--jobs", jobs]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        signal.signal(signal.SIGINT, before)
        try:
            for line in process.stdout:
                if line.startswith("first: ") and "executing" not in line:
                    break
            for _ in range(300):
                if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
                    break
                time.sleep(0.1)
            process.send_signal(how)
            process.wait(timeout=60)
        finally:
            process.kill()
    assert process.returncode != 0
    psutil.wait_procs(kernels := [p for p in psutil.process_iter() if p.pid == int((tmp_path / "pid").read_text())], 30)
    assert not [kernel for kernel in kernels if kernel.is_running()]
    (kept,) = (root / "_build" / "runs").glob("*.ipynb")
    assert kept.name.startswith("first-")
    chapter = Chapter.load(root / "chapters" / "first.ipynb")
    with processes.threads(max(1, torch.get_num_threads() // int(jobs))):
        assert execute("first", chapter, chapter.resolve({"steps": 2}), "smoke", root / "_build" / "runs").cached


def test_results_carry_what_the_book_needs(tmp_path):
    root = project(tmp_path, {"one": notebook(RUN, SHOW, "claims(run, quoted)")})
    chapter = Chapter.load(root / "chapters" / "one.ipynb")
    result = execute("one", chapter, chapter.resolve({}), "smoke", tmp_path / "runs")
    assert not result.cached and result.path.exists()
    assert {content["name"] for content in contents(result.notebook, "figure")} == {"catapult"}
    assert "spike" in contents(result.notebook, "claims")[0]["claims"]
    assert "CATAPULTS_PRESET" not in os.environ
