"""The reproduction report, from made-up claims for the book's own runs; and once through Sphinx."""

import re
from dataclasses import replace
from html import unescape

import nbformat
import pytest
import yaml
from book_project import CLAIMS, CURVE, ROOT, RUN, notebook, project
from catapults.book import reasons
from catapults.book import runs as runs_file
from catapults.book import stage as staging
from catapults.book.build import build
from catapults.book.findings import findings
from catapults.book.panels import block, files, gallery, of_figure, table_of_sheets
from catapults.book.report import outcome, report, report_pages, report_summary, rows, together
from catapults.book.runs import Reason
from catapults.book.sheets import Sheet
from catapults.compute.sweep import Outcome
from catapults.display import Figure
from catapults.paper import Claim, Claims
from nbformat.v4 import new_code_cell, new_notebook, new_output

RUNS = runs_file.load(ROOT / "chapters")
PAPER = [*(f"figure {n}" for n in range(2, 35)), "table 1", "table 2", "table 3"]
YES, PARTLY, NO, OPEN, OURS = "reproduced", "partly reproduced", "not reproduced", "not compared", "set by us"
MADE = {"device": "abacus (2 beads)", "seconds": 3.2, "commit": "abc1234", "date": "2031-01-01 00:00 UTC"}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="4pt" height="3pt" viewBox="0 0 4 3"><path d="M0 0H4"/></svg>'


class Drawn:
    source = "Pebbles, found on a beach."


def claim(place: int, verdict: str, **other) -> Claim:
    values = f"statement {place}", f"theirs {place}", f"ours {place}", "needs luck", verdict, f"Sentence {place}."
    return replace(Claim(*values), **other)


def made_up(
    run: str,
    *verdicts: str,
    shown_in: dict[int, str] | None = None,
    figures: dict[str, list[str]] | None = None,
    named: dict[str, str] | None = None,
) -> Sheet:
    """A run whose claims have these verdicts, by their place or ``named``; ``shown_in`` by their place, ``figures``
    with the tags of their cells."""
    claims = {f"claim-{place}": claim(place, verdict) for place, verdict in enumerate(verdicts)}
    claims |= {name: claim(0, verdict) for name, verdict in (named or {}).items()}
    for place, item in (shown_in or {}).items():
        claims[f"claim-{place}"] = replace(claims[f"claim-{place}"], shown_in=(item,))
    cells = []
    for name, tags in (figures or {}).items():
        shown = Figure(SVG, name, "A caption.", "In words.")._repr_mimebundle_()
        cells.append(new_code_cell(outputs=[new_output("display_data", shown)], metadata={"tags": tags}))
    page = RUNS[run].page("laptop")
    different = {e.key: e for e in page.experiments()}
    made = MADE | {"seconds": 3.2 / len(different)}
    outcomes = {key: Outcome(e, Drawn, made) for key, e in different.items()}
    read = nbformat.reads(nbformat.writes(new_notebook(cells=cells)), 4)
    return Sheet(RUNS[run], "laptop", page, outcomes, Claims(claims), read)


def absent(run: str, failure: str = "") -> Sheet:
    """A run without results, because its data are missing or, with ``failure``, because it failed."""
    page = RUNS[run].page("laptop")
    why = "DataUnavailable: svhn cannot be had.\nRun `catapults data fetch svhn`."
    outcomes = {e.key: Outcome(e, failure=failure or why) for e in page.experiments()}
    return Sheet(RUNS[run], "laptop", page, outcomes)


MISSING = {name: absent(name) for name in RUNS}


def results(*some: Sheet) -> dict[str, Sheet]:
    """For all runs; those not given lack their data."""
    return MISSING | {sheet.run.name: sheet for sheet in some}


def line(table: str, start: str, run: str) -> list[str]:
    """The cells of the one line of the report that begins so and is about the run."""
    named = re.compile(rf"\| (\[{start}\]\(#paper-figure-\d+\)|{start}) \|")
    lines = [line for line in table.splitlines() if named.match(line) and f"(/chapters/{run})" in line]
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
        ([PARTLY, YES], "partly reproduced"),
        ([PARTLY], "partly reproduced"),
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
        assert list(dict.fromkeys(row.item for row in rows(results()))) == PAPER
        assert list(dict.fromkeys(row.item for row in rows({}))) == PAPER
        table = report(results(), "laptop")
        firsts = re.findall(r"^\| \[?(Fig\.|Table) (\d+)", table, re.MULTILINE)
        assert {f"{'figure' if kind == 'Fig.' else 'table'} {number}" for kind, number in firsts} == set(PAPER)

    def test_every_panel_of_a_run_is_there(self):
        found = {(row.sheet.run.name, label) for row in rows(results()) for label in row.labels}
        assert found == {(name, label) for name, run in RUNS.items() for label in (*run.figures, *run.tables)}

    def test_a_run_of_our_own_has_none(self):
        assert not RUNS["gd_catapults-wrn-norm"].items
        assert "gd_catapults-wrn-norm" not in report(results(), "laptop") + report_pages(results(), "laptop")

    def test_what_no_run_names_has_no_page_yet(self):
        assert "| Fig. 9 | ○ not run: no page yet | – | – | – | – |" in report({}, "laptop")

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
        table = report(results(made_up("sgd_spikes-sphere", *verdicts)), "laptop")
        cells = line(table, "Fig. 5", "sgd_spikes-sphere")
        assert cells[1:3] == [f"{verdict}(#report-sgd_spikes-sphere)", count]
        assert cells[5] == "3.2 s on abacus (2 beads)"

    def test_missing_data_and_a_failed_run_are_told_apart(self):
        found = results(absent("sgd_spikes-sphere", "ZeroDivisionError: division by zero"))
        table, pages = report(found, "laptop"), report_pages(found, "laptop")
        missing, broken = (
            line(table, *key) for key in (("Fig. 21a", "sgd_spikes-svhn"), ("Fig. 5", "sgd_spikes-sphere"))
        )
        assert missing[1:3] == ["○ [not run: data set missing](#report-sgd_spikes-svhn)", "–"]
        assert broken[1].startswith("○ [not run: the run failed]")
        assert "Run `catapults data fetch svhn`." in entry(pages, "sgd_spikes-svhn")
        assert "ZeroDivisionError" in entry(pages, "sgd_spikes-sphere")

    def test_a_claim_that_names_a_figure_counts_for_it_alone(self):
        found = results(made_up("sgd_spikes", YES, NO, NO, shown_in={0: "figure 12"}))
        table, page = report(found, "laptop"), entry(report_pages(found, "laptop"), "sgd_spikes")
        assert line(table, "Fig. 12b", "sgd_spikes")[1].startswith("✓ [reproduced]")
        assert line(table, "Fig. 7a", "sgd_spikes")[1].startswith("✗ [not reproduced]")
        assert page.count("statement 0") == page.count("statement 1") == 1
        assert page.index("**Figure 7a: not reproduced**") < page.index("statement 1") < page.index("**Figure 12b: rep")

    def test_a_claim_on_a_figure_of_another_page_counts_for_all_of_its_own(self):
        found = results(made_up("gd_catapults", YES, NO, shown_in={0: "figure 12"}))
        for label in ("Fig. 2", "Fig. 3a", "Fig. 13a"):
            assert line(report(found, "laptop"), label, "gd_catapults")[2] == "1 of 2"

    def test_only_figures_that_the_page_shows_are_named(self):
        figures = {"explained": ["main-page"], "first": [], "middle": [], "last": []}
        found = results(made_up("sgd_spikes", YES, figures=figures), made_up("sgd_spikes-svhn", YES, figures=figures))
        table = report(found, "laptop")
        own = line(table, "Fig. 7a", "sgd_spikes")[4]
        other = line(table, "Fig. 21a", "sgd_spikes-svhn")[4]
        assert re.findall(r"<(.+?)>", own) == ["fig-sgd_spikes-explained", "fig-sgd_spikes-last"]
        assert re.findall(r"<(.+?)>", other) == ["fig-sgd_spikes-svhn-first", "fig-sgd_spikes-svhn-last"]


class TestPages:
    def test_they_say_what_was_claimed_measured_and_what_made_it(self):
        found = results(made_up("gd_catapults-cnn", YES, OPEN))
        page = entry(report_pages(found, "laptop"), "gd_catapults-cnn")
        assert page.startswith("Figures 3b, 13b: Catapults in gradient descent: a convolutional network")
        assert "- ✓ *reproduced:* statement 0. *Paper:* theirs 0. *Here:* ours 0.\n" in page
        line = "- – *not compared:* statement 1. *Paper:* theirs 1. *Here:* ours 1. *Tolerance:* needs luck.\n"
        assert line in page
        assert "preset **laptop**, which departs from the preset **paper**: `width = 128` (there: `512`)" in page
        assert "Data: Pebbles, found on a beach." in page
        assert "Computed in 3.2 s on abacus (2 beads), 2031-01-01 00:00 UTC, at commit abc1234." in page
        same = report_pages(results(made_up("gd_catapults", YES)), "laptop")
        assert "which here is the same as **paper**" in entry(same, "gd_catapults")

    def test_claims_keep_the_order_of_their_page(self):
        many = made_up("sgd_spikes-sphere", *[YES] * 12)  # sorted by name, claim-10 would follow claim-1
        page = entry(report_pages(results(many), "laptop"), "sgd_spikes-sphere")
        assert re.findall(r"statement (\d+)", page) == [str(place) for place in range(12)]

    def test_several_seeds(self):
        one = made_up("gd_catapults", YES)
        held = replace(one, claims=Claims({"a": claim(0, YES, held=(2, 3))}))
        page = entry(report_pages(results(held), "laptop"), "gd_catapults")
        said = "- ✓ *reproduced:* statement 0. *Paper:* theirs 0. *Here:* ours 0. Holds in 2 of 3 seeds (21–94 %).\n"
        assert said in page


class TestSummary:
    def test_it_counts_each_figure_and_table_once(self):
        assert report_summary(results()).startswith("Of the paper's 33 figures and 3 tables: 36 not run. ")
        some = results(made_up("sgd_spikes-sphere", YES), made_up("match_rates", NO), made_up("gd_catapults", YES, NO))
        assert report_summary(some).startswith(
            "Of the paper's 33 figures and 3 tables: 1 reproduced, 3 partly reproduced, 1 not reproduced, 31 not run. "
        )

    def test_a_figure_needs_all_of_its_pages_and_a_panel_its_own(self):
        both = [made_up("gd_catapults-svhn", YES), made_up("gd_catapults-svhn-cnn", YES)]
        said = report_summary(results(*both))
        assert ": 1 reproduced, 35 not run. " in said and ": 4 reproduced, " in said
        said = report_summary(results(both[0]))
        assert ": 1 partly reproduced, 35 not run. " in said and ": 2 reproduced, " in said

    def test_a_line_for_each_run_sheet(self):
        lines = table_of_sheets(results(made_up("gd_catapults", YES, YES, OPEN))).splitlines()
        assert (
            "| [](/chapters/gd_catapults) | figures 2, 3a, 13a | 2 reproduced, 1 not compared | 3.2 s on abacus"
            in "".join(lines)
        )
        assert "| [](/chapters/sgd_spikes) | figures 7a, 12b | not run: data set missing | – |" in lines
        assert len([line for line in lines if "(/chapters/" in line]) == len(RUNS)


class TestPanels:
    WRN = {"norm": [], "split": [], "spike": []}

    def test_a_figure_has_all_its_panels_in_order_with_the_pictures_that_show_them(self):
        every = results(made_up("sgd_spikes-wrn", YES, NO, figures=self.WRN), made_up("gd_catapults-svhn", YES))
        panels = of_figure(7, every)
        assert [panel.label for panel in panels] == ["7a", "7a", "7b", "7c", "7d"]
        assert [picture.name for picture in panels[3].pictures] == ["norm", "split"]
        assert [panel.label for panel in of_figure(14, every)] == ["14a", "14b", "14c", "14d"]
        svhn = made_up("gd_catapults-svhn", YES, figures={"norm": [], "split": []})
        assert [[p.name for p in panel.pictures] for panel in of_figure(14, results(svhn))[:2]] == [["norm"], ["split"]]

    def test_under_a_panel_stand_its_verdict_and_its_run_sheet(self):
        text = block(7, results(made_up("sgd_spikes-wrn", YES, NO, figures=self.WRN)))
        assert text.startswith("(paper-figure-7)=\n### Figure 7: catapults in SGD\n")
        assert '```{image} /panels/sgd_spikes-wrn-norm.svg\n:alt: "In words."\n```' in text
        assert (
            "**(c)** a Wide ResNet: ◐ [partly reproduced](#report-sgd_spikes-wrn); claims that hold: 1 of 2; 1 seed; "
            "smaller than the paper's; [run sheet](/chapters/sgd_spikes-wrn)"
        ) in text
        assert "**(d)** a vision transformer: ○ not run: data set missing; [run sheet]" in text

    def test_every_figure_of_the_paper_is_in_the_book_once_and_in_the_gallery(self):
        pages = [path.read_text() for path in (ROOT / "book").glob("*.md")]
        pages += [c.source for r in RUNS.values() if r.is_main for c in r.chapter.notebook.cells]
        numbers = re.findall(r"<!-- catapults:figure (\d+) -->", "\n".join(pages))
        assert sorted(map(int, numbers)) == list(range(2, 35))
        shown = gallery(results(made_up("sgd_spikes-wrn", YES, figures=self.WRN)))
        assert set(re.findall(r"#paper-figure-(\d+)", shown)) == set(numbers)
        assert "[Fig. 7 (c)](#paper-figure-7): a Wide ResNet. ✓ reproduced" in shown

    def test_each_picture_is_written_once(self):
        written = files(results(made_up("sgd_spikes-wrn", YES, figures=self.WRN)))
        assert list(written) == ["sgd_spikes-wrn-norm.svg", "sgd_spikes-wrn-split.svg", "sgd_spikes-wrn-norm.png"]
        assert files(results(made_up("sgd_spikes-wrn", YES, figures=self.WRN)), written) == written
        other = written | {"sgd_spikes-wrn-norm.png": b"kept"}
        again = files(results(made_up("sgd_spikes-wrn", YES, figures=self.WRN)), other)
        assert again["sgd_spikes-wrn-norm.png"] == b"kept"  # its picture has not changed
        assert written["sgd_spikes-wrn-norm.svg"] == SVG.encode() and written["sgd_spikes-wrn-norm.png"][1:4] == b"PNG"


class TestReasons:
    WIDE = Reason(kind="size", text="A wide network keeps it.", see=["gd_catapults-cnn-wide claim-1"])

    def with_reasons(self, sheet, **of_claims):
        return replace(sheet, run=replace(sheet.run, reasons={n.replace("_", "-"): r for n, r in of_claims.items()}))

    def test_a_page_says_why_with_the_numbers_of_the_run_that_shows_it(self):
        narrow = self.with_reasons(made_up("gd_catapults-cnn", YES, NO, OPEN), claim_1=self.WIDE)
        every = results(narrow, made_up("gd_catapults-cnn-wide", NO, YES))
        said = reasons.of_page(narrow, every)
        assert "- **Statement 1**: not reproduced. *Size:* A wide network keeps it. " in said
        assert "[](/chapters/gd_catapults-cnn-wide): reproduced, ours 1." in said
        assert "tatement 0" not in said and "tatement 2" not in said
        assert not list(reasons.stale(every))

    def test_without_a_reason_it_says_so(self):
        sheet = made_up("gd_catapults", NO)
        assert "not reproduced. Not found yet." in reasons.of_page(sheet, results(sheet))
        assert "**Not found yet** (1 claim)" in reasons.by_kind(results(sheet))

    def test_nothing_to_explain(self):
        sheet = made_up("gd_catapults", YES, OPEN, OURS)
        assert reasons.of_page(sheet, results(sheet)) == ""
        assert reasons.by_kind(results(sheet)) == "All claims that could be compared hold."

    def test_the_report_sorts_by_kind(self):
        one = self.with_reasons(made_up("gd_catapults-cnn", NO), claim_0=self.WIDE)
        other = made_up("gd_catapults", PARTLY)
        said = reasons.by_kind(results(other, one))
        assert said.index("**Size: ") < said.index("gd_catapults-cnn") < said.index("**Not found yet**")

    def test_stale_ones_are_found(self):
        held = self.with_reasons(made_up("gd_catapults-cnn", YES, YES), claim_1=self.WIDE, claim_7=self.WIDE)
        wide = made_up("gd_catapults-cnn-wide", YES)
        first, second, third, fourth = reasons.stale(results(held, wide))
        assert "'claim-1': this claim holds" in first and "no claim 'claim-1'" in second
        assert "'claim-7': this claim does not exist" in third and "no claim 'claim-1'" in fourth
        lost = Reason(kind="size", text="T.", see=["elsewhere"])
        (only,) = reasons.stale(results(self.with_reasons(made_up("gd_catapults-cnn", NO), claim_0=lost)))
        assert "'elsewhere', which is no run" in only


class TestFindings:
    def held(self, run, **of_claims):
        named = {name: YES for name in of_claims}
        sheet = made_up(run, named=named)
        return replace(sheet, claims=Claims({n: replace(sheet.claims[n], held=h) for n, h in of_claims.items()}))

    def test_they_say_in_how_many_trainings_each_part_holds(self):
        some = results(
            self.held("gd_catapults", spike=(10, 10), norm=(1, 10), top=(9, 10)),
            self.held("gd_catapults-svhn", spike=(9, 10), norm=(0, 10)),
            self.held("sgd_spikes", spikes=(5, 10), top=(10, 10)),
        )
        first, second, third, fourth = findings(some).splitlines()
        start = (
            "1. **The spikes are catapults.** *It holds in part:* in 19 of 20 trainings (76–99 %) of gradient descent "
        )
        assert first.startswith(start) and "in 5 of 10 trainings (24–76 %) of SGD above the critical rates" in first
        assert second.endswith("; in 10 of 10 trainings (72–100 %) of SGD nine tenths of the median spike lie there.")
        assert "*It holds:* in 9 of 10 trainings" in second
        assert "*It does not hold:* in 1 of 20 trainings" in third
        assert fourth.endswith("*Open:* no run of this book could tell.")


class TestBlocks:
    @staticmethod
    def filled(page: str, *some: Sheet) -> str:
        return staging.with_generated_blocks(page, results(*some), "laptop")

    def test_a_claim_is_what_its_run_says(self):
        block = "Before.\n\n<!-- catapults:claim sgd_spikes claim-1 -->\n"
        page = self.filled(block, made_up("sgd_spikes", YES, NO))
        assert page == "Before.\n\n- [](/chapters/sgd_spikes): Sentence 1.\n"
        assert self.filled(block) == "Before.\n\n- [](/chapters/sgd_spikes): not run: data set missing.\n"

    @pytest.mark.parametrize(
        ("block", "message"),
        [
            ("claim sgd_spikes nothing", "claim 'nothing': run 'sgd_spikes' has none; allowed are claim-0, claim-1"),
            ("claim nowhere claim-0", "run 'nowhere': there is none; allowed are gd_catapults, "),
            ("parameters nowhere", "run 'nowhere': there is none; allowed are gd_catapults, "),
            (
                "claim sgd_spikes",
                "unknown generated block .* allowed are findings, cost, run-sheets, figure NUMBER, .*claim RUN CLAIM",
            ),
            ("verdicts", "unknown generated block .*verdicts"),
        ],
    )
    def test_what_there_is_not_is_refused(self, block, message):
        with pytest.raises(staging.StageError, match=message):
            self.filled(f"<!-- catapults:{block} -->", made_up("sgd_spikes", YES, NO))

    def test_the_books_own_pages_name_runs_that_there_are(self):
        for path in (ROOT / "book").glob("*.md"):
            assert "<!-- catapults:" not in self.filled(path.read_text()), path
        blocks = {path.stem: path.read_text() for path in (ROOT / "book").glob("*.md")}
        assert {"findings", "report-summary"} <= set(re.findall("<!-- catapults:(.+) -->", blocks["welcome"]))
        made = set(re.findall("<!-- catapults:(.+) -->", blocks["reproduction"]))
        assert {"report-summary", "report", "report-pages"} <= made
        assert "<!-- catapults:claim " in blocks["open_questions"]


@pytest.mark.parametrize("entry", [{"figures": ["1"]}, {"figures": ["35a"]}, {"figures": ["7ab"]}, {"tables": ["4"]}])
def test_a_run_names_only_what_the_paper_has(tmp_path, entry):
    root = project(tmp_path, {"one": notebook()}, {"one": entry})
    ((kind, (label,)),) = entry.items()
    with pytest.raises(runs_file.RunsError, match=f"{kind[:-1]} '{label}': allowed are [12] to (34|3)"):
        runs_file.load(root / "chapters")


def test_sphinx_numbers_the_figures_and_follows_the_links(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RECORD", str(tmp_path / "no-record"))
    monkeypatch.delenv("CATAPULTS_RESULTS", raising=False)
    shows = notebook(RUN, CURVE, "figures.loss_and_norm(run)", CLAIMS)
    runs = {"one": {"figures": ["3a", "13a"]}, "two": {"chapter": "one", "parameters": {"seed": 1}, "tables": ["1"]}}
    root = project(tmp_path, {"one": shows}, runs)
    blocks = ("report-summary", "report", "report-pages", "claim two spike", "figure 3", "figure 13", "gallery")
    page = "# Report\n\n## Figures\n" + "".join(f"\n<!-- catapults:{block} -->\n" for block in blocks)
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
