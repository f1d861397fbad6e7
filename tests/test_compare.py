"""Runs side by side: the page, its numbers, and the commands that make it."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from book_project import CLAIMS, CURVE, RUN, notebook, project
from catapults.book import cli, compare
from catapults.book import runs as runs_file
from catapults.book.execute import run_one
from catapults.book.sheets import sheet_of
from catapults.compute.sweep import look_up
from catapults.figures.compare import curves
from histories import history
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project whose runs "one" and "two" differ in their width and have their results."""
    folder = tmp_path_factory.mktemp("project")
    shows = notebook(RUN, CURVE, CLAIMS)
    runs = {"one": {}, "two": {"chapter": "one", "parameters": {"width": 8}}}
    return project(folder, {"one": shows}, runs)


@pytest.fixture(autouse=True)
def _here(root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setenv("CATAPULTS_RESULTS", str(root / "_build" / "results"))
    monkeypatch.setenv("CATAPULTS_RECORD", str(root / "no-record"))


@pytest.fixture(scope="module")
def sheets(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("CATAPULTS_RESULTS", str(root / "_build" / "results"))
        patch.setenv("CATAPULTS_RECORD", str(root / "no-record"))
        found = {}
        for name, run in runs_file.load(root / "chapters").items():
            page = run.page("smoke")
            sheet = sheet_of(run, "smoke", page, look_up(page.experiments()))
            found[name] = run_one(sheet, root / "_build" / "runs")
        return found


class TestPage:
    def test_it_has_what_differs_and_nothing_else(self, sheets):
        html = compare.page(sheets)
        part = html[html.index("Parameters that differ") : html.index("<h2>Curves")]
        assert re.findall(r'<th scope="row">(\w+)', part) == ["width"]
        assert "<td>8</td>" in part

    def test_claims_and_figures_stand_side_by_side(self, sheets):
        html = compare.page(sheets)
        assert html.count("the loss rises steeply") == 1
        assert '<th scope="col">one</th><th scope="col">two</th>' in html
        assert html.count("<strong>one.</strong>") == html.count("<strong>two.</strong>") >= 1

    def test_it_needs_nothing_from_elsewhere_and_describes_its_pictures(self, sheets):
        html = compare.page(sheets)
        assert not re.search(r'(src|href)="(?!#)', html) and "<script" not in html
        assert html.count('role="img" aria-label="') == html.count("<figure") > 2
        assert '<html lang="en">' in html

    def test_the_same_run_twice_differs_in_nothing(self, sheets):
        assert "<p>None.</p>" in compare.page({"a": sheets["one"], "b": sheets["one"]})


def test_numbers_as_csv_are_those_of_the_results(sheets):
    rows = list(csv.DictReader(compare.numbers(sheets).splitlines()))
    h = compare.histories(sheets["two"])[0]
    of_two = [float(row["loss"]) for row in rows if row["run"] == "two"]
    np.testing.assert_allclose(of_two, h.loss)
    assert {row["run"] for row in rows} == {"one", "two"}
    verdicts = list(csv.DictReader(compare.verdicts(sheets).splitlines()))
    assert len(verdicts) == sum(len(sheet.claims) for sheet in sheets.values())


def test_curves_lie_over_each_other():
    figure = curves({"mine": history([1, 3, 0.5]), "theirs": history([2, 1, 0.1])})
    assert "mine" in figure.alt and "theirs: it starts at 2 and ends at 0.1" in figure.alt
    with_norm = curves({"mine": history([1, 3, 0.5], kernel_norm=[3, 2, 1]), "theirs": history([2, 1, 0.1])})
    assert "norm of the tangent kernel" in with_norm.caption
    assert compare.png(figure.svg)[1:4] == b"PNG"


class TestCommands:
    def test_runs_side_by_side(self, sheets):
        said = CliRunner().invoke(cli.app, ["compare", "one", "two", "--preset", "smoke"])
        assert said.exit_code == 0, said.output
        (folder,) = Path("_build/compare").glob("one-and-two")
        assert {p.name for p in folder.iterdir()} == {
            "index.html", "curves.csv", "claims.csv", "curves.svg", "curves.png",
        }  # fmt: skip

    def test_a_run_with_parameters_of_ones_own_opens_beside_the_books(self, sheets, monkeypatch):
        opened = []
        monkeypatch.setattr(cli.webbrowser, "open_new_tab", opened.append)
        said = CliRunner().invoke(cli.app, ["run", "one", "--preset", "smoke", "-p", "seed=3", "--open"])
        assert said.exit_code == 0, said.output
        (address,) = opened
        html = Path(address.removeprefix("file://")).read_text()
        assert "your run" in html

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["one", "one"], "allowed are two or more that differ"),
            (["one", "tow"], "did you mean 'two'"),
        ],
    )
    def test_what_is_refused(self, given, message):
        said = CliRunner().invoke(cli.app, ["compare", *given])
        assert message in str(said.exception)
