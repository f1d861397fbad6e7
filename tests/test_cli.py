"""The command ``catapults`` and plain papermill, as a person types them."""

import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from book_project import RUN, notebook, project

COMMAND = [sys.executable, "-m", "catapults.book.cli"]


def catapults(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return project(
        tmp_path_factory.mktemp("cli"),
        {
            "small": notebook(RUN, "figures.loss_split(run)", "claims(run, quoted)"),
            "folder": notebook("from catapults import store\nprint(store.folder())"),
        },
    )


def test_a_run_with_own_parameters_and_again_from_the_cache(root):
    command = ["run", "small", "-p", "width=32", "-p", "learning_rate=1.2 eta_crit", "--output", "out.ipynb"]
    first = catapults(*command, cwd=root)
    assert first.returncode == 0, first.stderr
    assert "the loss rises steeply" in first.stdout and "(cached)" not in first.stdout
    assert "width = 32" in "".join(cell.source for cell in nbformat.read(root / "out.ipynb", as_version=4).cells)
    assert "(cached)" in catapults(*command, cwd=root / "chapters").stdout  # from any folder of the project


def test_figures_as_files(root):
    result = catapults("run", "small", "-p", "steps=4", "-p", "top=[1,3]", "--figures", "pictures", cwd=root)
    assert result.returncode == 0, result.stderr
    split = (root / "pictures" / "split.svg").read_text()
    assert 'fill="white"' in split and split.count('id="axes_') == 2  # a panel for each dimension of the list


@pytest.mark.parametrize("named", [None, "elsewhere"])
def test_results_of_trainings_lie_in_the_project_unless_the_person_says_where(root, named, tmp_path, monkeypatch):
    monkeypatch.delenv("CATAPULTS_RESULTS", raising=False)
    if named:
        monkeypatch.setenv("CATAPULTS_RESULTS", named)  # relative to where the command is typed
    result = catapults(
        "run", "folder", "-p", f"seed={bool(named):d}", "--output", str(tmp_path / "out.ipynb"), cwd=root
    )
    assert result.returncode == 0, result.stderr
    printed = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[0].text
    assert printed == f"{root / (named or '_build/results')}\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "small", "-p", "widht=3"], "widht: unknown parameter of chapter 'small'; did you mean 'width'"),
        (["run", "small", "-p", "width=wide"], "width = 'wide': allowed is int"),
        (["run", "small", "-p", "top=[1,3"], "top = '[1,3': allowed is Union[int, list]"),
        (["run", "small", "-p", "width=-3", "-p", "steps=0"], "steps = 0"),
        (["run", "smal"], "run = 'smal': allowed are folder, small"),
        (["data", "fetch", "cifr-10"], "did you mean 'cifar-10'"),
    ],
)
def test_refusals_come_before_a_kernel_starts(root, arguments, message):
    result = catapults(*arguments, cwd=root)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr and "Executing" not in result.stderr


def test_outside_of_a_project(tmp_path):
    result = catapults("build", cwd=tmp_path)
    assert result.returncode == 1 and "has chapters/runs.yml" in result.stderr


def test_an_unknown_preset(root):
    result = catapults("build", "--preset", "huge", cwd=root)
    assert result.returncode != 0 and "laptop" in result.stderr


def test_data_status(root, tmp_path):
    result = catapults("data", "status", cwd=root)
    assert result.returncode == 0 and result.stdout.startswith("cifar-10")


def test_plain_papermill_knows_the_parameters(root, tmp_path, caplog):
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        root / "chapters" / "small.ipynb", out, {"learning_rate": 8, "image_size": None}, progress_bar=False
    )
    assert out.exists() and "unknown parameter" not in caplog.text.lower()


def test_plain_papermill_stops_at_an_impossible_value(root, tmp_path):
    with pytest.raises(
        papermill.PapermillExecutionError, match="width = -1: input should be greater than or equal to 1"
    ):
        papermill.execute_notebook(
            root / "chapters" / "small.ipynb", tmp_path / "out.ipynb", {"width": -1}, progress_bar=False
        )
