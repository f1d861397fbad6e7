"""The book's own chapters, executed by nbclient at the preset smoke."""

import copy

import nbformat
import pytest
from book_project import ROOT
from catapults.book import runs
from catapults.book.stage import contents, page_of
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

RUNS = runs.load(ROOT / "chapters")
SMOKE = {"width": 64, "n_train": 24, "image_size": 8, "steps": 6}


def executed(**parameters) -> nbformat.NotebookNode:
    """Chapter 1 with the values put after its parameters cell, as papermill does."""
    notebook = copy.deepcopy(RUNS["gd_catapults"].chapter.notebook)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]}))
    resources = {"metadata": {"path": str(ROOT / "chapters")}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


CHANGES = {
    "defaults": {},
    "cnn": {"architecture": "cnn", "width": 16},
    "rates and labels": {"learning_rate": 3, "labels": "plus-minus", "top": 1, "seed": 4},
    "PyTorch": {"parameterization": "pytorch", "gain": 1.0, "bias": True},
    "ten classes": {"dataset": "cifar-10", "top": 10, "quoted": {"critical_learning_rate": 34.0}},
    "synthetic": {"dataset": "full-rank", "image_size": None},
    "divergence": {"learning_rate": "100 eta_crit", "steps": 40},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
@pytest.mark.usefixtures("cifar10")
def test_chapter_1(changes):
    notebook = executed(**SMOKE | changes)
    figures = {figure["name"]: figure for figure in contents(notebook, "figure")}
    assert list(figures) == ["catapult", "norm", "split"]
    assert all(len(figure["alt"]) > 60 and figure["caption"].endswith(".") for figure in figures.values())
    (claims,) = contents(notebook, "claims")
    assert {"rate", "spike", "norm", "top", "rest", "few", "hessian", "value"} == set(claims["claims"])
    (facts,) = contents(notebook, "provenance")
    assert {"preset", "device", "torch", "seed", "commit", "run time", "peak memory"} <= facts.keys()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "stream"]  # no litter of progress bars
    said = " ".join(output.data["text/plain"] for output in outputs if "text/plain" in output.get("data", {}))
    if "learning_rate" in changes and changes["learning_rate"] == "100 eta_crit":
        assert "diverges" in said and claims["claims"]["spike"]["verdict"] == "not reproduced"
    if changes.get("quoted"):
        assert claims["claims"]["value"]["paper"] == "34"


@pytest.mark.usefixtures("cifar10")
def test_chapter_1_at_the_papers_size_shows_the_catapult():
    """The claims of the paper for its fully connected network, Fig. 3a, at its own size: 5 x 1024, n = 128."""
    claims = contents(executed(steps=12), "claims")[0]["claims"]
    for name in ("spike", "norm", "top", "rest", "few", "hessian"):
        assert claims[name]["verdict"] == "reproduced", claims[name]


def test_chapter_1_stops_at_an_impossible_value():
    with pytest.raises(CellExecutionError, match="top = 24: allowed are whole numbers from 1 to 23"):
        executed(**SMOKE | {"top": 24})


@pytest.mark.usefixtures("cifar10")
def test_the_page_of_another_run_says_what_differs_and_leaves_the_teaching_out():
    run = RUNS["gd_catapults-cnn"]
    values = {name: run.settings["smoke"][name] for name in run.settings["smoke"] if name != "quoted"}
    notebook = executed(**values)
    page = page_of(run, notebook, RUNS, "smoke")
    assert page == page_of(run, notebook, RUNS, "smoke")  # else every build would render all pages
    text = "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    assert text.startswith(f"# {run.title}")
    assert "`architecture = 'cnn'` (instead of `'fcn'`)" in text and "`width = 32` (instead of `128`)" in text
    assert "`width = 32` (the paper: `512`)" in text and "quoted" not in text
    assert "## When it starts" in text and "Were the network linear" not in text
    parameters = next(cell for cell in page.cells if "parameters" in cell.metadata.get("tags", []))
    assert "architecture: str = 'cnn'" in parameters.source
    main = page_of(RUNS["gd_catapults"], notebook, RUNS, "smoke")
    assert "Were the network linear" in "\n".join(cell.source for cell in main.cells)
    names = {cell.metadata["mystnb"]["figure"]["name"] for cell in page.cells if "mystnb" in cell.metadata}
    assert names == {f"fig-gd_catapults-cnn-{name}" for name in ("catapult", "norm", "split")}
