"""The reproduction report, from made-up results for the book's own runs; and once through Sphinx."""

import re
from dataclasses import replace
from html import unescape

import nbformat
import pytest
import yaml
from book_project import ROOT, RUN, notebook, project
from catapults.book import runs as runs_file
from catapults.book import stage as staging
from catapults.book.build import build
from catapults.book.execute import Result
from catapults.book.report import outcome, report, report_pages, report_summary, rows, together
from catapults.claims import Claim, Claims
from catapults.display import Figure, Text
from nbformat.v4 import new_code_cell, new_notebook, new_output

RUNS = runs_file.load(ROOT / "chapters")
PAPER = [*(f"figure {n}" for n in range(2, 35)), "table 1", "table 2", "table 3"]
YES, NO, OPEN, OURS = "reproduced", "not reproduced", "not compared", "set by us"
MISSING = Result(None, missing_data="svhn cannot be had.\nRun `catapults data fetch svhn`.")
FACTS = {"device": "abacus (2 beads)", "run time": "3.2 s", "commit": "abc1234", "executed": "2031-01-01 00:00 UTC"}


def made_up(
    *verdicts: str, shown_in: dict[int, str] | None = None, figures: dict[str, list[str]] | None = None
) -> Result:
    """A run whose claims have these verdicts; ``shown_in`` by their place, ``figures`` with the tags of their cells."""
    claims = {
        f"claim-{place}": Claim(
            f"statement {place}", f"theirs {place}", f"ours {place}", "needs luck", verdict, f"Sentence {place}."
        )
        for place, verdict in enumerate(verdicts)
    }
    for place, item in (shown_in or {}).items():
        claims[f"claim-{place}"] = replace(claims[f"claim-{place}"], shown_in=(item,))
    shown = [
        (Text("Data.", {"kind": "data", "source": "Pebbles, found on a beach."}), []),
        (Claims(claims), []),
        (Text("Facts.", {"kind": "provenance"} | FACTS), []),
        *((Figure("<svg/>", name, "A caption.", "In words."), tags) for name, tags in (figures or {}).items()),
    ]
    cells = [
        new_code_cell(outputs=[new_output("display_data", what._repr_mimebundle_())], metadata={"tags": tags})
        for what, tags in shown
    ]
    return Result(nbformat.reads(nbformat.writes(new_notebook(cells=cells)), 4))


def results(**some: Result) -> dict[str, Result]:
    """For all runs; those not given lack their data."""
    return {name: some.get(name.replace("-", "_"), MISSING) for name in RUNS}


def line(table: str, start: str, run: str) -> list[str]:
    """The cells of the one line of the report that begins so and is about the run."""
    lines = [line for line in table.splitlines() if line.startswith(f"| {start} |") and f"(/chapters/{run})" in line]
    assert len(lines) == 1
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def entry(pages: str, run: str) -> str:
    """What the report says of one page."""
    (found,) = [part for part in pages.split(":::::{dropdown} ") if f"(report-{run})=" in part]
    return found


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([YES, YES], "reproduced"),
        ([YES, NO, YES], "partly reproduced"),
        ([NO, NO], "not reproduced"),
        ([YES, OPEN, OURS], "reproduced"),
        ([NO, OPEN, OURS], "not reproduced"),
        ([OPEN, OURS], "not compared"),
        ([], "not compared"),
    ],
)
def test_the_verdict_counts_what_was_compared(verdicts, expected):
    assert outcome(verdicts) == expected


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "not run"], "partly reproduced"),
        (["not reproduced", "reproduced"], "partly reproduced"),
        (["partly reproduced", "not reproduced"], "partly reproduced"),
        (["not run", "not reproduced", "not compared"], "not reproduced"),
        (["not run", "not compared"], "not compared"),
        (["not run"], "not run"),
    ],
)
def test_the_verdict_of_several_pages(outcomes, expected):
    assert together(outcomes) == expected


class TestRows:
    def test_every_figure_and_table_of_the_paper_has_one_in_its_order(self):
        assert list(dict.fromkeys(row.item for row in rows(RUNS, results()))) == PAPER
        assert list(dict.fromkeys(row.item for row in rows({}, {}))) == PAPER
        table = report(RUNS, results(), "laptop")
        firsts = re.findall(r"^\| (Fig\.|Table) (\d+)", table, re.MULTILINE)
        assert {f"{'figure' if kind == 'Fig.' else 'table'} {number}" for kind, number in firsts} == set(PAPER)

    def test_every_panel_of_a_run_is_there(self):
        found = {(row.run.name, label) for row in rows(RUNS, results()) if row.run for label in row.labels}
        assert found == {(name, label) for name, run in RUNS.items() for label in (*run.figures, *run.tables)}

    def test_a_run_of_our_own_has_none(self):
        assert not RUNS["gd_catapults-wrn-norm"].items
        assert "gd_catapults-wrn-norm" not in report(RUNS, results(), "laptop") + report_pages(
            RUNS, results(), "laptop"
        )

    def test_what_no_run_names_has_no_page_yet(self):
        assert "| Fig. 9 | ○ not run: no page yet | – | – | – | – |" in report({}, {}, "laptop")

    @pytest.mark.parametrize(
        ("verdicts", "verdict", "count"),
        [
            ([YES, YES], "✓ [reproduced]", "2 of 2"),
            ([YES, NO, OPEN], "◐ [partly reproduced]", "1 of 2"),
            ([NO, OURS], "✗ [not reproduced]", "0 of 1"),
            ([OPEN], "– [not compared]", "none to count"),
        ],
    )
    def test_they_follow_the_verdicts(self, verdicts, verdict, count):
        table = report(RUNS, results(sgd_spikes_sphere=made_up(*verdicts)), "laptop")
        cells = line(table, "Fig. 5", "sgd_spikes-sphere")
        assert cells[1:3] == [f"{verdict}(#report-sgd_spikes-sphere)", count] and cells[5] == "3.2 s"

    def test_missing_data_and_a_failed_run_are_told_apart(self):
        failed = Result(None, failure="ZeroDivisionError: division by zero")
        found = results(sgd_spikes_sphere=failed)
        table, pages = report(RUNS, found, "laptop"), report_pages(RUNS, found, "laptop")
        absent, broken = (
            line(table, *key) for key in (("Fig. 21a", "sgd_spikes-svhn"), ("Fig. 5", "sgd_spikes-sphere"))
        )
        assert absent[1:3] == ["○ [not run: data set missing](#report-sgd_spikes-svhn)", "–"]
        assert broken[1].startswith("○ [not run: the run failed]")
        assert "Run `catapults data fetch svhn`." in entry(pages, "sgd_spikes-svhn")
        assert "ZeroDivisionError" in entry(pages, "sgd_spikes-sphere")

    def test_a_claim_that_names_a_figure_counts_for_it_alone(self):
        found = results(sgd_spikes=made_up(YES, NO, NO, shown_in={0: "figure 12"}))
        table, page = report(RUNS, found, "laptop"), entry(report_pages(RUNS, found, "laptop"), "sgd_spikes")
        assert line(table, "Fig. 12b", "sgd_spikes")[1].startswith("✓ [reproduced]")
        assert line(table, "Fig. 7a", "sgd_spikes")[1].startswith("✗ [not reproduced]")
        assert page.count("statement 0") == page.count("statement 1") == 1
        assert page.index("**Figure 7a: not reproduced**") < page.index("statement 1") < page.index("**Figure 12b: rep")

    def test_a_claim_on_a_figure_of_another_page_counts_for_all_of_its_own(self):
        found = results(gd_catapults=made_up(YES, NO, shown_in={0: "figure 12"}))
        for label in ("Fig. 2", "Fig. 3a", "Fig. 13a"):
            assert line(report(RUNS, found, "laptop"), label, "gd_catapults")[2] == "1 of 2"

    def test_only_figures_that_the_page_shows_are_named(self):
        figures = {"explained": ["main-page"], "first": [], "middle": [], "last": []}
        found = results(sgd_spikes=made_up(YES, figures=figures), sgd_spikes_svhn=made_up(YES, figures=figures))
        table = report(RUNS, found, "laptop")
        own = line(table, "Fig. 7a", "sgd_spikes")[4]
        other = line(table, "Fig. 21a", "sgd_spikes-svhn")[4]
        assert re.findall(r"<(.+?)>", own) == ["fig-sgd_spikes-explained", "fig-sgd_spikes-last"]
        assert re.findall(r"<(.+?)>", other) == ["fig-sgd_spikes-svhn-first", "fig-sgd_spikes-svhn-last"]


class TestPages:
    def test_they_say_what_was_claimed_measured_and_what_made_it(self):
        found = results(gd_catapults_cnn=made_up(YES, OPEN))
        page = entry(report_pages(RUNS, found, "laptop"), "gd_catapults-cnn")
        assert page.startswith("Figures 3b, 13b: Catapults in gradient descent: a convolutional network")
        assert "- ✓ *reproduced:* statement 0. *Paper:* theirs 0. *This run:* ours 0.\n" in page
        assert "- – *not compared:* statement 1. *Paper:* theirs 1. *This run:* ours 1. *Asked:* needs luck.\n" in page
        assert "preset **laptop**, which departs from the preset **paper**: `width = 128` (there: `512`)" in page
        assert "Data: Pebbles, found on a beach." in page
        assert "Executed in 3.2 s on abacus (2 beads), 2031-01-01 00:00 UTC, at commit abc1234." in page
        same = report_pages(RUNS, results(gd_catapults=made_up(YES)), "laptop")
        assert "which here is the same as **paper**" in entry(same, "gd_catapults")

    def test_claims_keep_the_order_of_their_page(self):
        many = made_up(*[YES] * 12)  # sorted by name, claim-10 would follow claim-1
        page = entry(report_pages(RUNS, results(sgd_spikes_sphere=many), "laptop"), "sgd_spikes-sphere")
        assert re.findall(r"statement (\d+)", page) == [str(place) for place in range(12)]


class TestSummary:
    def test_it_counts_each_figure_and_table_once(self):
        assert report_summary(RUNS, results()) == "Of the paper's 33 figures and 3 tables: 36 not run."
        some = results(sgd_spikes_sphere=made_up(YES), match_rates=made_up(NO), gd_catapults=made_up(YES, NO))
        assert report_summary(RUNS, some) == (
            "Of the paper's 33 figures and 3 tables: 1 reproduced, 3 partly reproduced, 1 not reproduced, 31 not run."
        )

    def test_a_figure_needs_all_of_its_pages(self):
        both = {"gd_catapults_svhn": made_up(YES), "gd_catapults_svhn_cnn": made_up(YES)}
        assert "1 reproduced, 35 not run" in report_summary(RUNS, results(**both))
        one = both | {"gd_catapults_svhn_cnn": MISSING}
        assert "1 partly reproduced, 35 not run" in report_summary(RUNS, results(**one))


class TestBlocks:
    @staticmethod
    def filled(page: str, **some: Result) -> str:
        return staging._with_generated_blocks(page, RUNS, results(**some), "laptop")

    def test_a_claim_is_what_its_run_says(self):
        block = "Before.\n\n<!-- catapults:claim sgd_spikes claim-1 -->\n"
        page = self.filled(block, sgd_spikes=made_up(YES, NO))
        assert page == "Before.\n\n- [](/chapters/sgd_spikes): Sentence 1.\n"
        assert self.filled(block) == "Before.\n\n- [](/chapters/sgd_spikes): not run: data set missing.\n"

    @pytest.mark.parametrize(
        ("block", "message"),
        [
            ("claim sgd_spikes nothing", "claim 'nothing': run 'sgd_spikes' has none; allowed are claim-0, claim-1"),
            ("claim nowhere claim-0", "run 'nowhere': there is none; allowed are gd_catapults, "),
            ("parameters nowhere", "run 'nowhere': there is none; allowed are gd_catapults, "),
            ("claim sgd_spikes", "unknown generated block .* allowed are summary, runs, .*claim RUN CLAIM"),
            ("verdicts", "unknown generated block .*verdicts"),
        ],
    )
    def test_what_there_is_not_is_refused(self, block, message):
        with pytest.raises(staging.StageError, match=message):
            self.filled(f"<!-- catapults:{block} -->", sgd_spikes=made_up(YES, NO))

    def test_the_books_own_pages_name_runs_that_there_are(self):
        for path in (ROOT / "book").glob("*.md"):
            assert "<!-- catapults:" not in self.filled(path.read_text()), path
        blocks = {path.stem: path.read_text() for path in (ROOT / "book").glob("*.md")}
        assert "<!-- catapults:report-summary -->" in blocks["welcome"]
        assert all(
            f"<!-- catapults:{b} -->" in blocks["reproduction"] for b in ("report-summary", "report", "report-pages")
        )
        assert "<!-- catapults:claim " in blocks["open_questions"]


@pytest.mark.parametrize("entry", [{"figures": ["1"]}, {"figures": ["35a"]}, {"figures": ["7ab"]}, {"tables": ["4"]}])
def test_a_run_names_only_what_the_paper_has(tmp_path, entry):
    root = project(tmp_path, {"one": notebook()}, {"one": entry})
    ((kind, (label,)),) = entry.items()
    with pytest.raises(runs_file.RunsError, match=f"{kind[:-1]} '{label}': allowed are [12] to (34|3)"):
        runs_file.load(root / "chapters")


def test_sphinx_numbers_the_figures_and_follows_the_links(tmp_path):
    shows = notebook(
        RUN, "run.describe()", "figures.loss_curve(run)", "figures.loss_and_norm(run)", "claims(run, quoted)"
    )
    runs = {"one": {"figures": ["3a", "13a"]}, "two": {"chapter": "one", "parameters": {"seed": 1}, "tables": ["1"]}}
    root = project(tmp_path, {"one": shows}, runs)
    blocks = ("report-summary", "report", "report-pages", "claim two spike")
    page = "# Report\n" + "".join(f"\n<!-- catapults:{block} -->\n" for block in blocks)
    (root / "book" / "report.md").write_text(page)
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    toc["parts"].append({"caption": "Results", "chapters": [{"file": "book/report"}]})
    (root / "_toc.yml").write_text(yaml.safe_dump(toc))
    build(root, root / "_build", "smoke", print, jobs=1)  # which fails on any warning
    html = (root / "_build" / "html" / "book" / "report.html").read_text()
    numbers = re.findall(
        r'href="\.\./chapters/(\w+)\.html#fig-(\w+)-(\w+)"><span class="std std-numref">([\d.]+)<', html
    )
    assert {("one", "one", "catapult", "1.1"), ("two", "two", "norm", "2.2")} <= set(numbers)
    targets = set(re.findall(r'href="#(report-[\w-]+)"', html))
    assert targets == {"report-one", "report-two"} <= set(re.findall(r'id="([\w-]+)"', html))
    text = unescape(re.sub(r"<[^>]+>", "", html))
    assert "Of the paper’s 33 figures and 3 tables:" in text and "Synthetic task rank-2" in text
    assert re.search(r"Run two: The loss (starts|rises|never rises)", text)
