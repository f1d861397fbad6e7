"""The book's own chapters, executed by nbclient at sizes of the preset smoke and at the paper's."""

import ast
import copy

import nbformat
import pytest
from book_project import ROOT
from catapults.book import runs
from catapults.book.executed import contents
from catapults.book.stage import page_of
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

RUNS = runs.load(ROOT / "chapters")
SMOKE = {"width": 64, "n_train": 24, "image_size": 8, "steps": 6, "hessian_every": 1}
WRN = {"architecture": "wrn", "depth": 10, "width": 1, "n_train": 8}


def executed(chapter: str = "gd_catapults", **parameters) -> nbformat.NotebookNode:
    """A chapter with the values put after its parameters cell, as papermill does."""
    notebook = copy.deepcopy(RUNS[chapter].chapter.notebook)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]}))
    resources = {"metadata": {"path": str(ROOT / "chapters")}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def shown(notebook: nbformat.NotebookNode) -> tuple[dict, dict, str]:
    """Figures by name, claims by name, and all text of an executed chapter, which has what each chapter has to have."""
    figures = {figure["name"]: figure for figure in contents(notebook, "figure")}
    assert all(len(figure["alt"]) > 60 and figure["caption"].endswith(".") for figure in figures.values())
    (facts,) = contents(notebook, "provenance")
    assert {"preset", "device", "torch", "seed", "commit", "run time", "peak memory"} <= facts.keys()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "stream"]  # no litter of progress bars
    said = " ".join(output.data["text/plain"] for output in outputs if "text/plain" in output.get("data", {}))
    assert "nan" not in said
    (claims,) = contents(notebook, "claims")
    return figures, claims["claims"], said


CHANGES = {
    "defaults": {},
    "cnn": {"architecture": "cnn", "width": 16},
    "wrn": WRN,
    "wrn with a norm": WRN | {"norm": "layer", "hessian_every": None},
    "rates and labels": {"learning_rate": 3, "labels": "plus-minus", "top": 1, "seed": 4},
    "PyTorch": {"parameterization": "pytorch", "gain": 1.0, "bias": True},
    "ten classes": {"dataset": "cifar-10", "top": [10, 30], "quoted": {"critical_learning_rate": 34.0}},
    "synthetic": {"dataset": "rank-2", "image_size": None},
    "divergence": {"learning_rate": "100 eta_crit", "steps": 40},
    "divergence of ten classes": {"dataset": "cifar-10", "top": [10, 30], "learning_rate": "100 eta_crit", "steps": 40},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
@pytest.mark.usefixtures("cifar10")
def test_chapter_1(changes):
    figures, claims, said = shown(executed(**SMOKE | changes))
    diverged = changes.get("learning_rate") == "100 eta_crit"
    along = not diverged and "hessian_every" not in changes
    assert list(figures) == ["catapult", "norm", "split", *(["hessian"] if along else [])]
    assert (claims["hessian_along"]["verdict"] != "not compared") is along
    several = {"average"} if changes.get("dataset") == "cifar-10" else set()
    names = {"rate", "spike", "norm", "top", "rest", "few", "hessian", "hessian_along", "value"}
    assert names | several == set(claims)
    if diverged:
        assert "diverges" in said and claims["spike"]["verdict"] == "not reproduced"
    if changes.get("quoted"):
        assert claims["value"]["paper"] == "34" and "The paper quotes 34, nearer to the" in said
    if several:
        assert "one panel a dimension" in figures["split"]["alt"] and "nc/‖K‖" in said
    if changes.get("architecture") == "wrn":
        assert "Wide ResNet 10-1" in said and ("over each sample" in said) is ("norm" in changes)


def test_chapter_1_on_house_numbers(svhn):
    figures, claims, said = shown(executed(**SMOKE | {"dataset": "svhn-2"}))
    assert "SVHN" in said and list(figures) == ["catapult", "norm", "split", "hessian"]


SMOKE_2 = {name: value for name, value in RUNS["multiple_catapults"].settings["smoke"].items() if name != "quoted"}
CHANGES_2 = {
    "defaults": {"width": 64, "quoted": {"critical_learning_rate": 3.6, "final_learning_rate": 60.0}},
    "cnn": {"architecture": "cnn", "width": 16, "our_schedule": "1.8 eta_crit; 6, 12: 1.5 current eta_crit"},
    "divergence": {"width": 64, "paper_schedule": "50 eta_crit", "our_schedule": "2 eta_crit; 6: 1000 eta_crit"},
}


@pytest.mark.parametrize("changes", CHANGES_2.values(), ids=CHANGES_2)
@pytest.mark.usefixtures("cifar10")
def test_chapter_2(changes):
    figures, claims, said = shown(executed("multiple_catapults", **SMOKE_2 | changes))
    assert list(figures) == ["paper", "ours", "paper-split", "our-split", "restarts"]
    assert set(claims) == {"paper", "ours", "norm", "smaller", "multiple", "paper_restart", "our_restart", "top"}
    if "paper_schedule" in changes:
        assert "The run diverges." in said and "no longer finite" in said and "There is no catapult." in said
        assert claims["multiple"]["verdict"] == "not reproduced"
        assert claims["paper_restart"]["verdict"] == claims["our_restart"]["verdict"] == "not compared"
    if "quoted" in changes:
        assert "60, 16.7 times 3.6" in claims["multiple"]["paper"]


@pytest.mark.usefixtures("cifar10")
def test_chapter_2_at_the_papers_size_shows_several_catapults():
    """What holds of section 3.2 for the fully connected network of Fig. 4a, at its own size and for all its steps."""
    claims = contents(executed("multiple_catapults"), "claims")[0]["claims"]
    for name in ("norm", "smaller", "multiple", "our_restart"):
        assert claims[name]["verdict"] == "reproduced", claims[name]
    assert int(claims["ours"]["ours"].split()[0]) >= 3  # whether the last rate gives a fourth, rounding decides


SMOKE_3 = {"width": 64, "n_train": 24, "image_size": 8, "batch_size": 6, "steps": 15}
VIT = {"architecture": "vit", "depth": 1, "width": 8, "n_train": 8}
MYRTLE = {"architecture": "myrtle", "depth": 5, "width": 8, "n_train": 8, "dataset": "cifar-10", "labels": "zero-one"}
SPHERE = {"dataset": "sphere", "image_size": None, "depth": 2, "gain": 1.0, "labels": "zero-one", "batch_size": 1}
CHANGES_3 = {
    "defaults": {"learning_rate": "2 eta_crit"},
    "cnn": {"architecture": "cnn", "width": 16, "learning_rate": "0.5 eta_crit"},
    "vit": VIT | {"learning_rate": "1 eta_crit", "hessian_every": None},
    "ten classes": MYRTLE | {"learning_rate": "1 eta_crit", "hessian_every": None},
    "one sample a batch": SPHERE | {"learning_rate": 40, "train_last_layer": False},
    "with replacement": {"replacement": True, "learning_rate": "1 eta_crit", "top": 5},
    "now and then": {"loss_every": 2, "kernel_every": 5, "hessian_every": None, "learning_rate": "2 eta_crit"},
    "no kernel": {"kernel_every": None, "calm_learning_rate": None, "hessian_every": None, "learning_rate": 3},
    "a cycle": {"learning_rate": "0.5 eta_crit .. 2 eta_crit, 4", "calm_learning_rate": None},
    "PyTorch": {"parameterization": "pytorch", "gain": 1.0, "bias": True, "learning_rate": "0.3 eta_crit"},
    "divergence": {"learning_rate": "100 eta_crit", "hessian_every": None},
}


@pytest.mark.parametrize("changes", CHANGES_3.values(), ids=CHANGES_3)
@pytest.mark.usefixtures("cifar10")
def test_chapter_3(changes):
    figures, claims, said = shown(executed("sgd_spikes", **SMOKE_3 | changes))
    assert list(claims) == [
        "rate", "spikes", "whole", "batch", "exact", "calm", "norm", "between", "top", "rest", "hessian", "converged"
    ]  # fmt: skip
    expected = ["critical-rates", "calm", "norm", "split", "spike", "hessian"]
    diverges = changes.get("learning_rate") == "100 eta_crit"
    unmeasured = changes.get("kernel_every", 1) is None or diverges  # at once, with one kernel only
    left_out = {
        "calm": changes.get("calm_learning_rate", 1) is None,
        "norm": unmeasured,
        "split": unmeasured,
        "spike": "spike" not in figures,  # there is none, or its kernel was not measured
        "hessian": changes.get("hessian_every", 1) is None,
    }
    assert list(figures) == [name for name in expected if not left_out.get(name)]
    assert "inf" not in said.replace("information", "")
    assert ("The run diverges." in said) is diverges
    assert ("Steps on which the loss" in said) is (changes.get("batch_size") == 1)


def test_chapter_3_on_house_numbers(svhn):
    _, _, said = shown(executed("sgd_spikes", **SMOKE_3 | {"dataset": "svhn-2", "learning_rate": "1 eta_crit"}))
    assert "SVHN" in said


@pytest.mark.usefixtures("cifar10")
def test_chapter_3_at_the_papers_size_shows_that_spikes_are_catapults():
    """What holds of section 3.3 for the fully connected network of Fig. 7a, at its own size and to the end."""
    claims = contents(executed("sgd_spikes", hessian_every=15), "claims")[0]["claims"]
    for name in ("spikes", "calm", "norm", "between", "hessian", "converged"):
        assert claims[name]["verdict"] == "reproduced", claims[name]


@pytest.mark.usefixtures("cifar10")
def test_match_rates():
    smoke = {n: v for n, v in RUNS["match_rates"].settings["smoke"].items() if n != "quoted"}
    figures, claims, said = shown(executed("match_rates", **smoke, quoted={"fcn": 96.17, "fcn_deviation": 1.46}))
    assert list(figures) == ["match-rates"] and "96.2 ± 1.5 % (Table 2)" in claims["fcn_whole"]["paper"]
    assert list(claims) == [f"{n}_{reading}" for n in ("shallow", "fcn", "cnn") for reading in ("whole", "batch")]
    assert "only rises by more than 5 %" in said


@pytest.mark.usefixtures("cifar10")
def test_chapter_1_at_the_papers_size_shows_the_catapult():
    """The claims of the paper for its fully connected network, Fig. 3a, at its own size: 5 x 1024, n = 128."""
    claims = contents(executed(steps=12), "claims")[0]["claims"]
    for name in ("spike", "norm", "top", "rest", "few", "hessian", "hessian_along"):
        assert claims[name]["verdict"] == "reproduced", claims[name]


def test_chapter_1_stops_at_an_impossible_value():
    with pytest.raises(CellExecutionError, match="top = 24: allowed are whole numbers from 1 to 23"):
        executed(**SMOKE | {"top": 24})


def test_chapter_2_stops_at_an_impossible_schedule():
    with pytest.raises(CellExecutionError, match="our_schedule = '6; 99: 8': allowed are changes before iteration 24"):
        executed("multiple_catapults", **SMOKE_2 | {"our_schedule": "6; 99: 8"})


def test_chapter_3_stops_at_an_impossible_batch():
    with pytest.raises(CellExecutionError, match="batch_size = 25: allowed are 1 to n_train = 24"):
        executed("sgd_spikes", **SMOKE_3 | {"batch_size": 25})


def smoke(run: str) -> dict:
    """The parameters of a run at the preset smoke, without what it is compared with."""
    return {name: value for name, value in RUNS[run].settings["smoke"].items() if name != "quoted"}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Where the trainings of chapter 4 are kept."""
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path))
    return tmp_path


def test_chapter_4(results):
    figures, claims, said = shown(executed("agop_gd", **smoke("agop_gd")))
    assert list(figures) == ["catapults", "rates", "validation", "pictures"]
    names = ["catapults", "performance", "alignment", "correlation", "validation", "closer", "small", "schedule"]
    assert sorted(claims) == sorted(names)
    assert "The EGOP is exact." in said and "5 trainings" in said
    assert len(list(results.glob("Training-*.npz"))) == 5


def test_chapter_4_where_nothing_is_to_be_learned(results):
    _, claims, _ = shown(executed("agop_gd", **smoke("agop_gd-full-rank")))
    assert sorted(claims) == ["catapults", "no_alignment", "no_better", "schedule"]


@pytest.mark.usefixtures("usps")
def test_chapter_4_on_images(results):
    figures, _, said = shown(executed("agop_gd", **smoke("agop_gd-usps")))
    assert list(figures) == ["catapults", "rates", "validation"]
    assert "A strong model stands for the true function" in said and "test samples right" in said
    assert len(list(results.glob("StrongModel-*.npz"))) == 1


def test_chapter_4_with_batches(results):
    quoted = {"alignment_5": 0.95, "test_loss_5": 0.42, "settings": {"n_train": 2000}}
    values = smoke("agop_sgd-small-rate") | {"seeds": [0], "quoted": quoted}
    figures, claims, said = shown(executed("agop_sgd", **values))
    assert list(figures) == ["batch-sizes", "validation", "validation-small"]
    assert {"catapults", "performance", "alignment", "small_catapults", "small_spread", "table_5"} <= claims.keys()
    assert claims["table_5"]["verdict"] == "not compared"  # at another size than the paper's
    assert "6 trainings" in said
    again = shown(executed("agop_sgd", **values))
    assert "6 taken from earlier ones" in again[2] and again[1] == claims


def test_chapter_4_with_optimisers(results):
    figures, claims, said = shown(executed("agop_optimizers", **smoke("agop_optimizers")))
    assert list(figures) == ["optimizers"] and sorted(claims) == ["pearson", "spearman"]
    assert "7 trainings" in said and "RMSprop" in figures["optimizers"]["alt"]


def test_chapter_4_stops_at_an_impossible_batch():
    with pytest.raises(CellExecutionError, match="batch_sizes = .*: allowed are 1 to n_train = 64"):
        executed("agop_sgd", **smoke("agop_sgd") | {"batch_sizes": [5, 65]})


class TestRuns:
    @pytest.mark.parametrize("preset", runs.PRESETS)
    @pytest.mark.parametrize("name", RUNS)
    def test_each_resolves_in_every_preset(self, name, preset):
        chapter, settings = RUNS[name].chapter, RUNS[name].settings[preset]
        assert chapter.resolve(settings) == settings
        assert chapter.experiment.from_namespace(settings).device == "auto"

    @pytest.mark.parametrize("preset", runs.PRESETS)
    @pytest.mark.parametrize("name", RUNS)
    def test_the_page_shows_the_parameters_that_it_was_made_with(self, name, preset):
        run = RUNS[name]
        page = page_of(run, run.chapter.notebook, RUNS, preset)
        cell = next(cell for cell in page.cells if "parameters" in cell.metadata.get("tags", []))
        shown = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}
        assert shown.pop("quoted", {}) == {}
        assert shown == {name: value for name, value in run.settings[preset].items() if name != "quoted"}

    def test_the_note_at_the_top_leaves_long_values_to_the_parameters(self):
        run = RUNS["match_rates"]
        text = page_of(run, run.chapter.notebook, RUNS, "laptop").cells[0].source
        ours, theirs = run.departures("laptop")["steps"]
        assert "`search` (shown with the parameters)" in text and f"`steps = {ours}` (there: `{theirs}`)" in text
        assert "In the paper: table 2." in text and "rises_above" not in text

    def test_each_figure_has_a_page(self):
        figures = ["2", "3a", "3b", "4a", "4b", "13a", "13b", "17a", "17b", "18a", "18b"]
        figures += [f"{number}{panel}" for number in (7, 14, 15, 16, 20, 21) for panel in "abcd"]
        figures += [f"{number}{panel}" for number in (8, 9, 10, 11, 24, 25, 29, 30, 31) for panel in "abcd"]
        figures += [f"{number}{panel}" for number in (27, 32) for panel in "abc"]
        figures += ["26", "28", "33a", "33b", "34a", "34b"]
        figures += ["5", "6a", "6b", "12a", "12b", "12c", "19a", "19b", "22a", "22b", "22c", "23a", "23b"]
        there = {figure for run in RUNS.values() for figure in run.figures}
        assert not set(figures) - there
        assert {table for run in RUNS.values() for table in run.tables} == {"1", "2", "3"}

    def test_no_run_is_larger_than_the_papers(self):
        for run in RUNS.values():
            for preset in ("smoke", "laptop"):
                for name, (ours, theirs) in run.departures(preset).items():
                    larger = name in ("depth", "width", "n_train", "steps", "restart_steps") and ours > theirs
                    assert not larger, (run.name, preset, name)


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
    assert (
        "departs from the preset **paper**: " in text and "`width = 32` (there: `512`)" in text and "quoted" not in text
    )
    assert "## When it starts" in text and "Were the network linear" not in text
    parameters = next(cell for cell in page.cells if "parameters" in cell.metadata.get("tags", []))
    assert "architecture: str = 'cnn'" in parameters.source
    main = page_of(RUNS["gd_catapults"], notebook, RUNS, "smoke")
    assert "Were the network linear" in "\n".join(cell.source for cell in main.cells)
    names = {cell.metadata["mystnb"]["figure"]["name"] for cell in page.cells if "mystnb" in cell.metadata}
    assert names == {f"fig-gd_catapults-cnn-{name}" for name in ("catapult", "norm", "split")}
