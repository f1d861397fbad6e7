"""The book's own chapters, each executed once by nbclient at sizes of the preset smoke; and as pages.

What claims and figures make of other parameters is tested on results, without a notebook.
"""

import ast
import copy

import nbformat
import pytest
from book_project import ROOT
from catapults.book import execute as execution
from catapults.book import runs
from catapults.book.executed import figures as figures_of
from catapults.book.findings import FINDINGS
from catapults.book.sheets import sheet_of
from catapults.book.stage import page_of
from catapults.display import MIME
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

RUNS = runs.load(ROOT / "chapters")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("CATAPULTS_RECORD", str(tmp_path / "no-record"))


def executed(run: str, **parameters) -> nbformat.NotebookNode:
    """The notebook of a run in the preset smoke, with values put after its parameters cell, as papermill does."""
    notebook = copy.deepcopy(RUNS[run].chapter.notebook)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    values = RUNS[run].settings["smoke"] | parameters
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]}))
    resources = {"metadata": {"path": str(ROOT / "chapters")}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def contents(notebook: nbformat.NotebookNode, kind: str) -> list[dict]:
    outputs = (output.get("data", {}).get(MIME, {}) for cell in notebook.cells for output in cell.get("outputs", []))
    return [content for content in outputs if content.get("kind") == kind]


def shown(run: str, **parameters) -> tuple[list[str], list[str], str]:
    """Names of the figures and of the claims, and all text of an executed chapter, which has what each has to have."""
    notebook = executed(run, **parameters)
    figures = figures_of(notebook)
    assert all(len(figure.alt) > 60 and figure.caption.endswith(".") for figure in figures)
    (facts,) = contents(notebook, "provenance")
    assert {"results", "computed", "on", "changed since"} <= facts.keys()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "stream"]  # no litter of progress bars
    said = " ".join(output.data["text/plain"] for output in outputs if "text/plain" in output.get("data", {}))
    assert "nan" not in said.split()
    claims = [name for content in contents(notebook, "claims") for name in content["order"]]
    for part in (part for parts in FINDINGS.values() for part in parts):
        assert part.chapter != RUNS[run].chapter.name or part.claim in claims
    return [figure.name for figure in figures], claims, said


def test_chapter_1():
    figures, claims, _ = shown("gd_catapults-rank-2", seeds=2, hessian_every=1)
    assert figures == ["catapult", "norm", "split", "hessian"]
    assert claims == ["rate", "spike", "norm", "top", "rest", "few", "hessian", "hessian_along", "value"]


def test_chapter_2():
    figures, claims, said = shown("multiple_catapults", dataset="rank-2", image_size=None)
    assert figures == ["paper", "ours", "paper-split", "our-split", "restarts"]
    assert {"paper", "ours", "norm", "smaller", "multiple", "paper_restart", "our_restart", "top", "rest"} == set(
        claims
    )


def test_chapter_3():
    figures, claims, _ = shown("sgd_spikes-sphere", hessian_every=1, kernel_every=1)
    assert {"critical-rates", "calm", "norm", "split", "hessian"} <= set(figures)
    assert claims[:7] == ["rate", "spikes", "whole", "batch", "explained", "exact", "calm"]


@pytest.mark.usefixtures("cifar10")
def test_match_rates():
    figures, claims, said = shown("match_rates")
    assert figures == ["match-rates"] and "only rises by more than 5 %" in said
    assert claims == [
        f"{n}_{reading}" for n in ("shallow", "fcn", "cnn") for reading in ("whole", "batch", "explained")
    ]


def test_chapter_4():
    figures, claims, said = shown("agop_gd")
    assert figures == ["catapults", "rates", "validation", "pictures"]
    assert {"catapults", "performance", "alignment", "correlation", "validation", "closer", "small"} <= set(claims)
    assert "The EGOP is exact." in said


def test_chapter_4_on_images(usps):
    figures, claims, said = shown("agop_gd-usps")
    assert figures == ["catapults", "rates", "validation"] and "strong model" in said


def test_chapter_4_with_batches():
    figures, claims, _ = shown("agop_sgd-small-rate", seeds=[0])
    assert figures == ["batch-sizes", "validation", "validation-small"]
    assert {"steps_above", "performance", "alignment", "small_catapults", "small_spread"} <= set(claims)


def test_chapter_4_with_optimisers():
    figures, claims, said = shown("agop_optimizers")
    assert figures == ["optimizers"] and claims == ["pearson", "spearman", "settings"] and "RMSprop" in said


def test_what_the_measurements_cost():
    figures, claims, said = shown("performance")
    assert len(figures) == 1 and claims == [] and "Our bound on a step is for" in said


def test_when_spikes_recur():
    figures, claims, said = shown("stability")
    assert figures == ["stability", "against", "courses"]
    names = {"mean_square", "trace", "sharpness", "exceeded", "critical", "order", "divergence", "settles"}
    assert names == set(claims)
    assert "normal, b = 1" in said and "The lowest test FVUs" in said


class TestYourOwnNetwork:
    def test_it_measures_networks_that_are_not_ours(self):
        figures, claims, said = shown("own_network")
        assert figures == [
            "transformer-sgd", "resnet-gradient-descent", "relu-at-twice-the-critical-rate",
            "gelu-at-twice-the-critical-rate",
        ]  # fmt: skip
        assert claims == [] and said.count("by the Hessian") == 3 and said.count("of the AGOP's trace") == 3
        assert "with three layers 2 of 2 and 0 of 2" in said  # GELU diverges where ReLU catapults

    def test_each_measurement_has_less_than_15_lines(self):
        cells = [cell for cell in RUNS["own_network"].chapter.notebook.cells if cell.cell_type == "code"]
        assert all(len([line for line in cell.source.splitlines() if line.strip()]) < 15 for cell in cells)

    def test_it_is_executed_again_where_the_library_or_torch_has_changed(self, monkeypatch):
        run = RUNS["own_network"]
        trains, shows = execution.code_of(run.chapter, all_of_it=True), execution.code_of(run.chapter)
        through = {"training/loop.py", "tangent/kernel.py", "tangent/hessian.py", "agop.py", "sgd.py"}
        assert through <= trains.keys() and not through & shows.keys() and "figures/plot.py" in shows
        sheet = sheet_of(run, "smoke", run.page("smoke"), {})
        before = execution.key(sheet)
        assert sheet.complete and before == execution.key(sheet)
        monkeypatch.setattr(execution.fingerprint, "dependencies", lambda: {"torch": "3"})
        assert before != execution.key(sheet)

    def test_a_chapter_of_our_own_has_a_full_size_in_place_of_the_papers(self):
        for name, preset, header in (
            ("gd_catapults", "book", "| the paper | this page |"),
            ("gd_catapults-cnn", "laptop", "| the paper | this page |"),
            ("performance", "smoke", "| full size | this page |"),
            ("causes", "paper", "| type | this page |"),
        ):
            sources = [cell.source for cell in page_of(RUNS[name], RUNS[name].chapter.notebook, RUNS, preset).cells]
            (table,) = [source for source in sources if source.startswith(":::{div} parameters")]
            assert header in table, name

    def test_its_page_has_no_values_of_the_paper(self):
        run = RUNS["own_network"]
        sources = [cell.source for cell in page_of(run, run.chapter.notebook, RUNS, "book").cells]
        (table,) = [source for source in sources if source.startswith(":::{div} parameters")]
        assert "the paper" not in table and "| `width` | whole number | `128` |" in table
        assert "record" not in sources[-1] and "catapults run own_network" in sources[-1]


class TestYourOwnTraining:
    def test_each_training_is_diagnosed_and_limited(self):
        figures, claims, said = shown("your_training")
        assert claims == [] and len(figures) == 6 and figures[:2] == ["gpt-adam", "gpt-adam-limited"]
        assert said.count("The limit has lowered the rate at") == 3 and "by curvature" not in said

    def test_each_training_has_less_than_15_lines(self):
        cells = [cell for cell in RUNS["your_training"].chapter.notebook.cells if cell.cell_type == "code"]
        shown_ = [cell for cell in cells if not {"hide-input", "remove-cell"} & set(cell.metadata.get("tags", []))]
        assert all(len([line for line in cell.source.splitlines() if line.strip()]) < 15 for cell in shown_)


def test_a_notebook_stops_at_an_impossible_value():
    with pytest.raises(CellExecutionError, match="top = 32: allowed are whole numbers from 1 to 31"):
        executed("gd_catapults", top=32)


class TestPages:
    def test_they_show_the_parameters_they_were_made_with(self):
        for run in RUNS.values():
            for preset in runs.PRESETS:
                page = page_of(run, run.chapter.notebook, RUNS, preset)
                place = next(i for i, cell in enumerate(page.cells) if "parameters" in cell.metadata.get("tags", []))
                table, cell = page.cells[place - 1].source, page.cells[place]
                shown = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}
                assert shown == run.settings[preset] and "hide-input" in cell.metadata["tags"]
                lines = [line for line in table.splitlines() if line.startswith("| `")]
                assert [line.split("`")[1] for line in lines] == list(run.chapter.parameters)
                assert all(parameter.meaning in table for parameter in run.chapter.parameters.values())

    def test_the_table_has_the_papers_value_beside_the_pages(self):
        run = RUNS["gd_catapults-cnn"]
        cells = page_of(run, run.chapter.notebook, RUNS, "smoke").cells
        table = next(cell.source for cell in cells if cell.source.startswith(":::{div} parameters"))
        assert "| `width` | whole number | `512` | `32` | neurons" in table
        assert "| `depth` | whole number | same | `5` | weight layers" in table

    def test_long_values_have_a_line_for_each_item(self):
        run = RUNS["match_rates"]
        cells = page_of(run, run.chapter.notebook, RUNS, "laptop").cells
        text = cells[0].source
        ours, theirs = run.departures("laptop")["steps"]
        assert "`search` (see the parameters)" in text and f"`steps = {ours}` (there: `{theirs}`)" in text
        assert "In the paper: table 2." in text and "rises_above" not in text
        table = next(cell.source for cell in cells if cell.source.startswith(":::{div} parameters"))
        assert "<br>`{'network': 'cnn', 'rises_above': 0.05}`" in table and "`'architecture': 'fcn'`<br>" in table

    def test_another_run_than_the_chapters_says_what_differs_and_leaves_the_teaching_out(self):
        run, main = RUNS["gd_catapults-cnn"], RUNS["gd_catapults"]
        page = page_of(run, run.chapter.notebook, RUNS, "smoke")
        assert page == page_of(run, run.chapter.notebook, RUNS, "smoke")  # else every build would render all pages
        text, teaching = (
            "\n".join(cell.source for cell in p.cells if cell.cell_type == "markdown")
            for p in (page, page_of(main, run.chapter.notebook, RUNS, "smoke"))
        )
        assert text.startswith(f"# {run.title}")
        assert "`architecture = 'cnn'` (instead of `'fcn'`)" in text and "`width = 32` (instead of `128`)" in text
        assert "departs from the preset **paper**: " in text and "`width = 32` (there: `512`)" in text
        headings = [line for line in text.splitlines() if line.startswith("## ")]
        assert headings and all(heading in teaching for heading in headings)
        assert len(teaching) > 2 * len(text.replace(text[text.index(":::{div}") : text.rindex(":::")], ""))
