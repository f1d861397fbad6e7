"""The command ``catapults`` and plain papermill, as a person types them."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
from book_project import CLAIMS, ROOT, RUN, notebook, project
from catapults import data
from catapults.book import build as building
from catapults.book import cli, computing
from catapults.book import runs as runs_file
from catapults.book.build import for_notebooks
from catapults.compute import record, verify, workers
from catapults.compute.cluster import WorkersDiffer
from catapults.experiments import ParameterError
from catapults.experiments.descent import Measured
from catapults.experiments.fits import Fitted
from catapults.paper.claims import Claims, at_least, claim, given, over_seeds
from typer.testing import CliRunner

COMMAND = [sys.executable, "-m", "catapults.book.cli"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return project(
        tmp_path_factory.mktemp("cli"),
        {"small": notebook(RUN, "figures.loss_split(run)", CLAIMS), "broken": notebook("1 / 0")},
    )


@pytest.fixture(autouse=True)
def _own_folders(root, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RECORD", str(root / "no-record"))
    monkeypatch.setenv("CATAPULTS_RESULTS", str(root / "results"))
    monkeypatch.chdir(root)


def catapults(*arguments: str) -> tuple[int, str]:
    """Exit status and output of the command, in this process."""
    result = CliRunner().invoke(cli.app, arguments)
    error = result.exception if isinstance(result.exception, Exception) else ""
    return result.exit_code, f"{result.stdout}{result.stderr}{error}"


def test_a_run_with_own_parameters_and_again_from_the_cache(monkeypatch):
    command = ["run", "small", "-p", "width=32", "-p", "top=[1,3]", "--output", "out.ipynb", "--figures", "pictures"]
    status, first = catapults(*command)
    assert status == 0 and "(cached)" not in first
    claims = [line for line in first.splitlines() if "roduced  " in line or "set by us" in line or "compared  " in line]
    assert (
        claims[0].startswith("        set by us  the learning rate exceeds") and "the loss rises steeply" in claims[1]
    )
    assert "width = 32" in "".join(cell.source for cell in nbformat.read("out.ipynb", as_version=4).cells)
    split = Path("pictures/split.svg").read_text(encoding="utf-8")
    assert 'fill="white"' in split and split.count('id="axes_') == 2  # a panel for each dimension of the list
    monkeypatch.chdir("chapters")  # any folder of the project
    again = catapults(*command)[1]
    assert "(cached)" in again and [line for line in again.splitlines() if line in claims] == claims


def test_a_run_of_ones_own_stands_beside_the_book(root):
    run = runs_file.load(root / "chapters")["small"]
    assert cli.in_the_book(run) == {}  # whose results are not here
    seeds = [Claims({"a": claim("a", "b", "c", at_least(0.5), v, "d", unit="{:.1f} m")}) for v in (0.4, 0.6, 0.9)]
    book = over_seeds(seeds)["a"]
    said = cli.beside_the_book(seeds[1]["a"], book)
    assert said.startswith("partly reproduced, median 0.6 m (0.4 to 0.9) (holds in 2 of 3 seeds (21–94 %))")
    assert said.endswith("; yours is in the interval for one more seed, -0.6 to 1.9")
    far = claim("a", "b", "c", at_least(0.5), 2.0, "d", unit="{:.1f} m")
    assert cli.beside_the_book(far, book).endswith("yours is outside of the interval for one more seed, -0.6 to 1.9")
    set_by_us = given("a", "b", "3", "d")
    assert cli.beside_the_book(set_by_us, set_by_us) == "set by us, 3"


def test_a_run_that_fails_shows_its_traceback():
    status, said = catapults("run", "broken")
    assert status == 1 and "ZeroDivisionError" in said and "\x1b" not in said


def test_seeds(root):
    run = runs_file.load(root / "chapters")["small"]
    seeds = lambda *own, number=None, preset="book": cli.with_own(run, preset, [*own], number)  # noqa: E731
    assert seeds() is run
    assert seeds("width=3").settings[cli.OWN]["seeds"] == 1
    assert seeds("seeds=2").settings[cli.OWN]["seeds"] == 2
    assert seeds("width=3", number=4).settings[cli.OWN]["seeds"] == 4
    with pytest.raises(ParameterError, match="--seeds 4: given with -p, too"):
        seeds("seeds=2", number=4)
    book = runs_file.load(Path(__file__).parents[1] / "chapters")
    assert cli.with_own(book["match_rates"], "smoke", [], 3).settings[cli.OWN]["seeds"] == [0, 1, 2]
    assert cli.with_own(book["match_rates"], "smoke", ["steps=20"], None).settings[cli.OWN]["seeds"] == [0, 1]
    assert cli.with_own(book["gd_catapults"], "book", ["seed=3"], None).settings[cli.OWN]["seeds"] == 1
    with pytest.raises(ParameterError, match="--seeds 2: chapter 'performance' has no seeds"):
        cli.with_own(book["performance"], "smoke", [], 2)


@pytest.mark.parametrize("named", [None, "elsewhere"])
def test_results_lie_in_the_project_unless_the_person_says_where(root, named, monkeypatch):
    monkeypatch.delenv("CATAPULTS_RESULTS")
    if named:
        monkeypatch.setenv("CATAPULTS_RESULTS", named)  # relative to where the command is typed
    assert for_notebooks(root / "_build")["CATAPULTS_RESULTS"] == str(root / (named or "_build/results"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "small", "-p", "widht=3"], "widht: unknown parameter of chapter 'small'; did you mean 'width'"),
        (["run", "small", "-p", "width=wide"], "width = 'wide': allowed is int"),
        (["run", "small", "-p", "top=[1,3"], "top = '[1,3': allowed is Union[int, list]"),
        (["run", "small", "-p", "width=-3", "-p", "steps=0"], "steps = 0"),
        (["run", "small", "-p", "device=tpu"], "device = 'tpu': allowed"),
        (["run", "small", "-p", "scheduler=here"], "scheduler = 'here': allowed"),
        (["run", "smal"], "run = 'smal': did you mean 'small'? allowed are broken, small"),
        (["data", "fetch", "cifr-10"], "did you mean 'cifar-10'"),
        (["run", "small", "-p", f"width={10**20}"], f"width = {10**20}, depth = 2: "),
        (["run", "small", "-p", f"steps={10**15}"], f"steps = {10**15}: its history would need "),
        (["compute", "smal"], "run = 'smal': did you mean 'small'? allowed are broken, small"),
        (["compute", "small", "--preset", "huge"], "preset = 'huge': allowed are smoke, laptop, book, paper"),
        (["compute", "small", "--hours", "0"], "hours = 0.0: allowed are positive numbers"),
        (["compute", "small", "--device", "tpu"], "device = 'tpu': allowed"),
        (["compute", "small", "--scheduler", "here"], "scheduler = 'here': allowed"),
        (["record", "status", "smal"], "run = 'smal': did you mean 'small'? allowed are broken, small"),
        (["record", "show", "smal"], "run = 'smal': did you mean 'small'? allowed are broken, small"),
        (["record", "add", "nowhere"], "nowhere: no job and no results; allowed"),
        (["record", "verify", "--minutes", "0"], "minutes = 0.0: allowed are positive numbers"),
        (["record", "verify", "--device", "tpu"], "device = 'tpu': allowed"),
    ],
)
def test_refusals_come_before_a_kernel_starts(arguments, message, monkeypatch):
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel started"))
    monkeypatch.setattr(workers, "attempt", lambda *_: pytest.fail("something was computed"))
    result = CliRunner().invoke(cli.app, arguments)
    assert isinstance(result.exception, (*cli.ERRORS, data.DataError)) and message in str(result.exception)


def test_an_impossible_size_stops_a_build_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "attempt", lambda *_: pytest.fail("something was computed"))
    run = {"small": {"laptop": {"width": 10**20}}}
    monkeypatch.chdir(project(tmp_path, {"small": notebook(RUN, CLAIMS)}, run))
    status, said = catapults("build", "--preset", "laptop")
    assert status == 1 and f"width = {10**20}, depth = 2: " in said


def test_an_empty_record_is_verified_without_complaint():
    status, said = catapults("record", "verify")
    assert status == 0 and "none is computed again" in said


@pytest.mark.parametrize("name", ["gd_catapults-ten", "agop_sgd-svhn"])  # which have lists and dictionaries
def test_verdicts_of_what_is_computed_again_are_compared(name, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RECORD", str(ROOT / "record"))
    page = runs_file.load(ROOT / "chapters")[name].page("book")
    recorded = {e: record.load(e)[0] for e in page.experiments()}
    again = [verify.Comparison(e, 0.0, True, result) for e, result in recorded.items()]
    assert computing._changed_verdicts(name, page, again) == []
    spoilt = [replace(comparison, result=spoil(comparison.result)) for comparison in again]
    assert any(line.startswith(f"verdict  {name}") for line in computing._changed_verdicts(name, page, spoilt))


def spoil(result):
    """Another outcome: the loss never rises, or the test goes otherwise."""
    if isinstance(result, Measured):
        history = result.history
        return replace(result, history=replace(history, loss=np.linspace(1, 0.9, len(history.loss))))
    return (
        replace(result, catapults=result.steps, test_error=result.alignment) if isinstance(result, Fitted) else result
    )


def test_every_error_of_a_command_is_a_message():
    """What a cluster, a sweep, a file say: none of it comes with a traceback."""
    assert issubclass(WorkersDiffer, cli.ERRORS) and issubclass(ConnectionError, OSError)


def test_outside_of_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, said = catapults("build")
    assert status == 1 and "has chapters/runs.yml" in said


def test_an_unknown_preset():
    status, said = catapults("build", "--preset", "huge")
    assert status != 0 and "laptop" in said and "book" in said


def test_the_book_is_the_default(monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "build", lambda root, output, preset, *_: asked.append(preset) or output)
    assert catapults("build")[0] == 0 and asked == ["book"]


def test_data_status():
    status, said = catapults("data", "status")
    assert status == 0 and said.startswith("cifar-10")


def test_the_command_is_there_without_torch_and_says_errors_without_a_traceback(root):
    look = "import sys; from catapults.book import cli; print('torch' in sys.modules, 'papermill' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
    refused = subprocess.run([*COMMAND, "run", "smal"], cwd=root, capture_output=True, text=True)
    assert (
        refused.returncode == 1
        and refused.stderr == "catapults: run = 'smal': did you mean 'small'? allowed are broken, small\n"
    )


def test_a_long_name_of_the_folder_for_temporary_files(root, tmp_path, monkeypatch):
    """As batch systems have it: sockets of local processes could not have such a name."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    done = subprocess.run([*COMMAND, "run", "small", "-p", "seed=5"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the loss rises steeply" in done.stdout


def test_plain_papermill_knows_the_parameters_and_stops_at_an_impossible_value(root, tmp_path, caplog):
    def execute(**values) -> None:
        chapter, out = root / "chapters" / "small.ipynb", tmp_path / "out.ipynb"
        papermill.execute_notebook(chapter, out, values, progress_bar=False)

    execute(learning_rate=8, image_size=None)
    assert (tmp_path / "out.ipynb").exists() and "unknown parameter" not in caplog.text.lower()
    with pytest.raises(papermill.PapermillExecutionError, match="width = -1: input should be greater than or equal to"):
        execute(width=-1)


def test_what_sphinx_says_is_what_it_wrote(monkeypatch, tmp_path):
    class Failed:
        returncode, stderr, stdout = 2, "  a warning\n", ""

    monkeypatch.setattr(building.subprocess, "run", lambda *_, **__: Failed)
    assert building.rendered(tmp_path, tmp_path) == "a warning"
