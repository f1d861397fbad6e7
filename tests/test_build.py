"""What is trained, executed, rendered, what is taken from the cache, what fails and how; on a tiny book of its own."""

import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from book_project import CLAIMS, CURVE, ROOT, RUN, notebook, project
from catapults import data
from catapults.book import build as building
from catapults.book import execute as execution
from catapults.book import runs as runs_file
from catapults.book import sheets
from catapults.book.build import BuildError, build
from catapults.compute import estimate, fingerprint, record, sweep
from catapults.compute.sweep import Outcome


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """No results of the machine's own, and none of the project's record."""
    monkeypatch.setenv("CATAPULTS_RECORD", str(tmp_path / "no-record"))
    monkeypatch.delenv("CATAPULTS_RESULTS", raising=False)


@pytest.fixture
def stand_in(monkeypatch):
    """In the place of Sphinx: each staged page becomes an HTML page with its text."""

    def rendered(stage: Path, fresh: Path) -> str:
        for path in [*stage.rglob("*.md"), *stage.rglob("*.ipynb")]:
            page = fresh / "_build" / "html" / path.relative_to(stage).with_suffix(".html")
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
        (fresh / "_build" / "html" / "index.html").touch()
        return ""

    monkeypatch.setattr(building, "rendered", rendered)


def said(root: Path, **options) -> list[str]:
    lines: list[str] = []
    build(root, root / "_build", options.pop("preset", "smoke"), lines.append, **{"jobs": 1} | options)
    return lines


def said_with(root: Path, **options) -> tuple[list[str], str]:
    """The same where the build fails, and how."""
    lines: list[str] = []
    with pytest.raises(BuildError) as error:
        build(root, root / "_build", "smoke", lines.append, **{"jobs": 1} | options)
    return lines, str(error.value)


def executed(lines: list[str]) -> set[str]:
    """Names of the runs whose notebooks a build executed, not took from the cache."""
    return {match[1] for line in lines if (match := re.match(r"(\S+): [\d.]+ s;", line))}


def trained(lines: list[str]) -> int:
    """How many trainings a build had to run."""
    found = [int(match[1]) for line in lines if (match := re.match(r"(\d+) trainings? to run", line))]
    return sum(found)


def page(root: Path, name: str) -> str:
    return (root / "_build" / "html" / f"{name}.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rendered_book(tmp_path_factory):
    chapters = {"one": notebook(RUN, CURVE, CLAIMS), "two": notebook("width")}
    folder = project(tmp_path_factory.mktemp("book"), chapters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATAPULTS_RECORD", str(folder / "no-record"))
        lines = said(folder)
    assert executed(lines) == {"one", "two"} and trained(lines) == 1  # both describe the same training
    return folder


class TestABook:
    """What one change after the other does to a book that was built, rendered by Sphinx."""

    def test_its_pages(self, rendered_book):
        text = page(rendered_book, "chapters/one")
        assert 'alt="Line plot, logarithmic loss axis. The loss starts at' in text
        assert "Fig. 1.1" in text and "departs from the preset <strong>paper</strong>" in text
        assert re.search(r"<td[^>]*><p><code[^>]*><span class=\"pre\">steps</span></code></p></td>", text)
        assert "reproduced" in page(rendered_book, "book/welcome")

    def test_without_a_change_nothing_is_trained_executed_or_rendered(self, rendered_book, monkeypatch):
        monkeypatch.setattr(building, "rendered", lambda *_: pytest.fail("rendered"))
        lines = said(rendered_book)
        assert executed(lines) == set() and trained(lines) == 0 and "pages: nothing changed" in lines

    def test_a_warning_of_sphinx_fails_the_build_each_time(self, rendered_book, monkeypatch):
        welcome = rendered_book / "book" / "welcome.md"
        welcome.write_text(welcome.read_text(encoding="utf-8") + "\n[](no-such-page)\n", encoding="utf-8")
        assert "no-such-page" in said_with(rendered_book)[1]
        monkeypatch.setattr(building, "rendered", lambda *_: "again")
        assert "again" in said_with(rendered_book)[1]


@pytest.mark.usefixtures("stand_in")
class TestWhatIsDoneAgain:
    @pytest.fixture
    def root(self, tmp_path):
        folder = project(tmp_path, {"one": notebook(RUN, CURVE, CLAIMS), "two": notebook("width")})
        said(folder)
        return folder

    def test_changes_one_after_the_other(self, root):
        path = root / "chapters" / "two.ipynb"
        changed = nbformat.read(path, as_version=4)
        changed.cells[-1].source = "width + 1"
        nbformat.write(changed, path)
        lines = said(root)
        assert executed(lines) == {"two"} and trained(lines) == 0
        # a parameter
        path = root / "chapters" / "runs.yml"
        path.write_text(path.read_text().replace("steps: 2", "steps: 1", 1))
        lines = said(root)
        assert executed(lines) == {"one"} and trained(lines) == 1
        # a page
        welcome = root / "book" / "welcome.md"
        welcome.write_text(welcome.read_text() + "\nA new sentence.\n")
        lines = said(root)
        assert (
            executed(lines) == set() and "pages: rendering" in lines and "A new sentence." in page(root, "book/welcome")
        )
        assert executed(said(root, force=True)) == {"one", "two"}

        self.damage_pages(root)
        self.damage_a_notebook(root)
        self.remove_a_result(root)

    def damage_pages(self, root):
        """Deleted or cut off, they are made again."""
        path = root / "_build" / "html" / "chapters" / "one.html"
        text = path.read_text(encoding="utf-8")
        for damage in (path.unlink, lambda: path.write_text(text[:100], encoding="utf-8")):
            damage()
            assert "pages: rendering" in said(root)
            assert path.read_text(encoding="utf-8") == text
        assert "pages: nothing changed" in said(root)

    def damage_a_notebook(self, root):
        kept = max((root / "_build" / "runs").glob("one-*.ipynb"), key=lambda path: path.stat().st_mtime)
        kept.write_text(kept.read_text(encoding="utf-8")[:100], encoding="utf-8")
        assert executed(said(root)) == {"one"}

    def remove_a_result(self, root):
        for kept in (root / "_build" / "results").glob("*.result"):
            kept.unlink()
        lines = said(root)
        assert trained(lines) == 2  # and what they gave is shown again where it was not made in the very same time


@pytest.mark.usefixtures("stand_in")
class TestChangesOfTheLibrary:
    """A copy of the library's files is changed: what runs is the same."""

    @pytest.fixture
    def root(self, tmp_path, monkeypatch):
        package = tmp_path / "copy" / "catapults"
        shutil.copytree(execution._PACKAGE, package)
        monkeypatch.setattr(execution, "_PACKAGE", package)
        monkeypatch.setattr(fingerprint, "_PACKAGE", package)
        self.package = package
        (tmp_path / "book").mkdir()
        imports = "from catapults.experiments.gd_catapult import GDCatapult\nfrom catapults.compute import obtain"
        chapters = {"drawing": notebook(RUN, CURVE), "plain": notebook(RUN, imports=imports)}
        folder = project(tmp_path / "book", chapters)
        said(folder)
        return folder

    def change(self, module: str, code: str = "\nCHANGED = 1\n") -> None:
        path = self.package / f"{module}.py"
        path.write_text(path.read_text(encoding="utf-8") + code, encoding="utf-8")

    def test_what_is_done_again(self, root):
        self.change("figures/base")
        lines = said(root)  # a changed plot trains nothing and is drawn again
        assert executed(lines) == {"drawing"} and trained(lines) == 0
        self.change("book/cli")
        self.change("figures/agop")
        self.change("figures/base", "\n# a comment\n")
        lines = said(root)  # what no page runs through, and what changes nothing
        assert executed(lines) == set() and trained(lines) == 0 and "pages: nothing changed" in lines
        self.change("experiments/base")
        lines = said(root)
        assert executed(lines) == {"drawing", "plain"} and trained(lines) == 0
        self.change("training/loop" if (self.package / "training").exists() else "training")
        lines = said(root)  # what a training runs through
        assert executed(lines) == {"drawing", "plain"} and trained(lines) == 1


@pytest.mark.usefixtures("stand_in")
class TestWhatIsMissing:
    def test_a_change_of_the_data_trains_the_runs_that_use_them(self, tmp_path, monkeypatch):
        folder = tmp_path / "data"
        folder.mkdir()
        monkeypatch.setenv("CATAPULTS_DATA", str(folder))

        def write(seed: int) -> None:
            images = np.random.default_rng(seed).integers(0, 256, (40, 4, 4), dtype=np.uint8)
            np.savez(folder / "dots.npz", train_images=images, train_labels=np.arange(40) % 2)

        write(0)
        runs = {"one": {"parameters": {"dataset": "dots"}}, "other": {"chapter": "one"}}
        root = project(tmp_path, {"one": notebook(RUN)}, runs)
        assert executed(said(root)) == {"one", "other"}
        assert executed(said(root)) == set()
        write(1)
        lines = said(root)
        assert executed(lines) == {"one"} and trained(lines) == 1

    def test_missing_data_are_no_failure_and_its_page_says_how_to_get_them(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
        runs = {"one": {}, "dots": {"chapter": "one", "parameters": {"dataset": "dots"}}}
        root = project(tmp_path, {"one": notebook(RUN, CURVE, CLAIMS)}, runs)
        with pytest.raises(runs_file.RunsError, match="dataset = 'dots'"):  # no data set of this name is known
            said(root)
        np.savez(tmp_path / "dots.npz")

        def nowhere(name, *_, **__):
            raise data.DataUnavailable("dots cannot be had. Set CATAPULTS_DATA")

        monkeypatch.setattr(data, "identity", lambda name: nowhere(name) if name == "dots" else f"synthetic:{name}")
        lines = said(root)  # which raises nothing
        assert executed(lines) == {"one"} and "dots: not shown, data set missing" in lines
        text = page(root, "chapters/dots")
        assert "data set missing" in text and "Set CATAPULTS_DATA" in text
        assert "not run" in page(root, "book/welcome") and "set by us" in page(root, "book/welcome")

    def test_what_takes_long_is_left_to_a_command(self, tmp_path, monkeypatch):
        root = project(tmp_path, {"one": notebook(RUN, CURVE)}, {"one": {"book": {"steps": 5}, "note": "A note."}})
        with monkeypatch.context() as patch:
            patch.setattr(estimate, "seconds", lambda _: 3600.0)
            lines = said(root, preset="book")
        assert trained(lines) == 0 and "one: not shown, not computed yet" in lines
        text = page(root, "chapters/one")
        assert "catapults compute one" in text and "1 training is missing" in text and "about 60 minutes" in text
        assert "A note." in text and "departs from the preset **paper**: `steps = 5`" in text
        assert trained(said(root, preset="book")) == 1  # which takes a moment
        assert "departs" in page(root, "chapters/one") and "catapults compute" not in page(root, "chapters/one")

    def test_other_presets_train_all(self, tmp_path, monkeypatch):
        root = project(tmp_path, {"one": notebook(RUN)})
        monkeypatch.setattr(estimate, "seconds", lambda _: 3600.0)
        assert trained(said(root)) == 1

    def test_the_record_is_enough(self, tmp_path, monkeypatch):
        """Neither data nor training: what a stranger's clone has."""
        root = project(tmp_path, {"one": notebook(RUN, CURVE, CLAIMS)})
        monkeypatch.setenv("CATAPULTS_RECORD", str(tmp_path / "record"))
        experiments = runs_file.load(root / "chapters")["one"].page("smoke").experiments()
        with monkeypatch.context() as patch:
            patch.setenv("CATAPULTS_RESULTS", str(tmp_path / "elsewhere"))
            done = sweep(experiments, processes=1)
            record.take((e, done[e], done.outcomes[e.key].made) for e in experiments)

        def nowhere(*_):
            raise data.DataUnavailable("no data here")

        monkeypatch.setattr(data, "identity", nowhere)
        lines = said(root)
        assert trained(lines) == 0 and executed(lines) == {"one"}
        assert not (root / "_build" / "results").exists()


@pytest.mark.usefixtures("stand_in")
class TestFailures:
    def test_every_run_is_attempted_and_every_traceback_is_shown(self, tmp_path):
        chapters = {
            "broken": notebook("raise RuntimeError('first trouble')"),
            "good": notebook("print('fine')"),
            "dying": notebook("import os; os._exit(1)"),
        }
        root = project(tmp_path, chapters)
        lines, message = said_with(root, jobs=2)
        assert "first trouble" in message and "'dying' failed" in message and "\x1b" not in message
        assert executed(lines) == {"good"}
        assert [p.name.split("-")[0] for p in (root / "_build" / "runs").iterdir()] == ["good"]
        assert "first trouble" in page(root, "chapters/broken")
        again, _ = said_with(root, jobs=2)
        assert executed(again) == set() and any(line.startswith("good: cached") for line in again)

    def test_a_training_that_fails_fails_its_run(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path))
        np.savez(tmp_path / "dots.npz", train_images=np.zeros((9, 6, 6), np.uint8), train_labels=np.arange(9) % 2)
        runs = {"one": {"parameters": {"dataset": "dots", "image_size": 4}}, "two": {"chapter": "one"}}
        root = project(tmp_path, {"one": notebook(RUN)}, runs)
        lines, message = said_with(root)
        assert "image_size = 4" in message and executed(lines) == {"two"}

    def test_claims_that_cannot_be_judged_fail_their_run(self, tmp_path, monkeypatch):
        def judge(*_):
            raise ZeroDivisionError("trouble")

        monkeypatch.setattr(sheets, "judge", judge)
        lines, message = said_with(project(tmp_path, {"one": notebook(RUN)}))
        assert "its claims: ZeroDivisionError: trouble" in message and "one: not shown, the run failed" in lines

    def test_a_claim_that_does_not_hold_is_a_result(self, tmp_path):
        calm = {"one": {"parameters": {"learning_rate": 0.01}}}  # below the critical rate
        root = project(tmp_path, {"one": notebook(RUN, CLAIMS)}, calm)
        assert any("not reproduced" in line for line in said(root))
        assert "not reproduced" in page(root, "chapters/one")

    def test_pictures_have_an_alternative_text_and_do_not_hide_other_failures(self, tmp_path):
        plot = "from IPython.display import SVG\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')"
        root = project(tmp_path, {"broken": notebook("1 / 0"), "plot": notebook(plot)})
        message = said_with(root)[1]
        assert "ZeroDivisionError" in message
        assert "run 'plot': a cell shows a picture without caption and alternative text" in message
        empty = "from catapults.display import Figure\nFigure('<svg/>', 'x', 'a caption', ' ')"
        nbformat.write(notebook(empty), root / "chapters" / "plot.ipynb")
        assert "figure 'x' has no alt" in said_with(root)[1]

    def test_a_run_without_a_page(self, tmp_path):
        root = project(tmp_path, {"one": notebook()})
        (root / "_toc.yml").write_text("format: jb-book\nroot: book/welcome\n")
        assert "no entry `file: chapters/one`, and no `file: book/run_sheets`" in said_with(root)[1]

    def test_a_full_disk_loses_no_other_run(self, tmp_path, monkeypatch):
        root = project(tmp_path, {"one": notebook(), "two": notebook()})
        write = execution.written

        def full(path, content):
            if path.name.startswith("one-"):
                raise OSError(28, "No space left on device")
            return write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(execution, "written", full)
            assert "No space left on device" in said_with(root)[1]
        assert executed(said(root)) == {"one"}


@pytest.mark.usefixtures("stand_in")
class TestSeveralAtATime:
    def test_results_are_those_of_one_after_the_other(self, tmp_path):
        chapters = {name: notebook(RUN, CURVE, CLAIMS) for name in ("a", "b")}
        found = []
        for jobs in (1, 2):
            (tmp_path / str(jobs)).mkdir()
            root = project(tmp_path / str(jobs), chapters)
            assert executed(said(root, jobs=jobs)) == {"a", "b"}
            found.append(re.findall(r"The loss starts at [^<\"]*", page(root, "chapters/b")))
        assert found[0] == found[1] != []

    def test_notebooks_import_no_torch(self, tmp_path):
        """With all results there, a kernel that loads, judges and draws stays without it."""
        look = "import sys\nprint('torch' in sys.modules)"
        root = project(tmp_path, {"one": notebook(RUN, CURVE, CLAIMS, look)})
        said(root)
        (kept,) = (root / "_build" / "runs").glob("one-*.ipynb")
        assert nbformat.read(kept, as_version=4).cells[-1].outputs[0].text == "False\n"

    def test_a_killed_build_leaves_nothing_running_and_loses_nothing_finished(self, tmp_path):
        wait = "import os, time; open('../pid', 'w').write(str(os.getpid())); time.sleep(600)"
        root = project(tmp_path, {"quick": notebook(RUN, CLAIMS), "slow": notebook(RUN, wait)})
        command = [sys.executable, "-m", "catapults.book.cli", "build", "--preset", "smoke", "--jobs", "2"]
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        runs = root / "_build" / "runs"
        while not ((root / "pid").exists() and (root / "pid").read_text() and list(runs.glob("quick-*.ipynb"))):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.1)
        kernel = int((root / "pid").read_text())
        process.send_signal(signal.SIGKILL)
        process.wait()
        while psutil.pid_exists(kernel):
            assert time.monotonic() < until
            time.sleep(0.1)
        nbformat.write(notebook(RUN), root / "chapters" / "slow.ipynb")
        lines = said(root)
        assert executed(lines) == {"slow"} and trained(lines) == 0

    def test_a_second_build_waits_for_the_first(self, tmp_path):
        root = project(tmp_path, {"one": notebook("import time; time.sleep(4)")})
        command = [sys.executable, "-m", "catapults.book.cli", "build", "--preset", "smoke", "--jobs", "1"]
        first = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert first.stdout.readline() == "1 training to run\n"
        lines = said(root)
        assert lines[0].startswith("waiting for another build") and executed(lines) == set()
        first.communicate(timeout=120)
        assert first.returncode == 0


class TestTheKey:
    def test_it_changes_with_whatever_the_notebook_shows(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
        root = project(tmp_path, {"one": notebook(RUN, CURVE)}, {"one": {}, "wide": {"chapter": "one"}})
        run = runs_file.load(root / "chapters")["one"]
        experiments = run.page("smoke").experiments()
        outcomes = sweep(experiments, processes=1).outcomes

        def key(preset: str = "smoke", **changed) -> str:
            (outcome,) = outcomes.values()
            found = {outcome.experiment.key: replace(outcome, **changed)}
            return execution.key(sheets.sheet_of(run, preset, run.page(preset), found))

        (outcome,) = outcomes.values()
        keys = [
            key(),
            key("laptop"),
            key(made=outcome.made | {"commit": "abc1234"}),
            key(changed=("training/loop.py",)),
        ]
        monkeypatch.setattr(execution, "_version", lambda name: "0.1" if name == "matplotlib" else "1")
        keys.append(key())
        assert len(set(keys)) == 5
        monkeypatch.undo()
        monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
        assert key() == keys[0]


def test_what_a_page_has_to_train_includes_what_that_needs():
    page = runs_file.load(ROOT / "chapters")["agop_sgd-usps"].page("smoke")
    fits = [experiment for experiment in page.experiments() if experiment.needs]
    (strong,) = fits[0].needs
    absent = sheets.absent(page, {})
    assert absent == [strong, *fits]
    assert sheets.absent(page, {fits[0].key: Outcome(fits[0], object())}) == [strong, *fits[1:]]
    assert sheets.absent(page, {fits[0].key: Outcome(fits[0], failure="no")}) == absent


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.512, "0.51 s"), (9.96, "10 s"), (75.0, "75 s"), (119.0, "119 s"), (600.0, "10 minutes"), (9000.0, "2 hours"),
     (5e5, "6 days")],
)  # fmt: skip
def test_durations(seconds, words):
    assert sheets.duration(seconds) == words
