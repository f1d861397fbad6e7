"""The reproduction report: the paper's figures and tables one by one, with the verdicts of the pages that show them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..display import table
from ..paper import COMPARED, NOT_COMPARED, NOT_REPRODUCED, OURS, PARTLY, REPRODUCED, VERDICTS, Claim
from ..paper.items import PAPER, listed
from .executed import figures, shown
from .sheets import Sheet, when

NOT_RUN = "not run"
_SHORT = {"figure": "Fig.", "table": "Table"}
OUTCOMES = {REPRODUCED: "✓", PARTLY: "◐", NOT_REPRODUCED: "✗", NOT_COMPARED: "–", NOT_RUN: "○"}  # with their marks


@dataclass(frozen=True)
class Row:
    """A figure or table of the paper, or panels of it, on one page; ``sheet`` is None without a page."""

    item: str  # "figure 7"
    labels: tuple[str, ...]  # "7a"
    sheet: Sheet | None = None

    @property
    def claims(self) -> dict[str, Claim]:
        """Those of the page that are about this item."""
        return {} if self.sheet is None else about(self.item, self.sheet)

    @property
    def outcome(self) -> str:
        if self.sheet is None or not self.sheet.complete:
            return NOT_RUN
        return outcome(claim.verdict for claim in self.claims.values())


def outcome(verdicts: Iterable[str]) -> str:
    """What the verdicts on claims come to. Only claims that were compared count."""
    found = {verdict for verdict in verdicts if verdict in COMPARED}
    if not found:
        return NOT_COMPARED
    return found.pop() if len(found) == 1 else PARTLY


def together(outcomes: Iterable[str]) -> str:
    """What the outcomes of an item on several pages come to: reproduced if all are, partly if any, else the best."""
    found = set(outcomes)
    if found != {REPRODUCED} and found & {REPRODUCED, PARTLY}:
        return PARTLY
    return next(outcome for outcome in OUTCOMES if outcome in found)


def about(item: str, sheet: Sheet) -> dict[str, Claim]:
    """The claims of a page that an item of the paper is judged by.

    These are the claims that name it; if none does, those that name no item of the page. Statements that the paper does
    not make judge nothing.
    """
    on_page = {item for item, _ in sheet.run.items} | {OURS}
    named = {name: claim for name, claim in sheet.claims.items() if item in claim.shown_in}
    return named or {name: claim for name, claim in sheet.claims.items() if not on_page & set(claim.shown_in)}


def rows(sheets: Mapping[str, Sheet]) -> list[Row]:
    """Every figure and table of the paper in its order, on every page that shows it or a panel of it."""
    every = []
    for kind, numbers in PAPER.items():
        for number in numbers:
            item = f"{kind} {number}"
            panels = {
                name: tuple(label for of, label in sheet.run.items if of == item) for name, sheet in sheets.items()
            }
            here = [Row(item, labels, sheets[name]) for name, labels in panels.items() if labels]
            every += sorted(here, key=lambda row: row.labels) or [Row(item, (str(number),))]
    return every


def report_summary(sheets: Mapping[str, Sheet]) -> str:
    """How many of the paper's figures and tables, and of their panels, have each outcome, in two sentences."""
    by_item: dict[str, list[str]] = {}
    by_panel: dict[tuple[str, str], list[str]] = {}
    for row in rows(sheets):
        by_item.setdefault(row.item, []).append(row.outcome)
        for label in row.labels:
            by_panel.setdefault((row.item, label), []).append(row.outcome)
    items = " and ".join(f"{len(numbers)} {kind}s" for kind, numbers in PAPER.items())
    return (
        f"Of the paper's {items}: {_counts(by_item)}. Such a figure is reproduced only if all of its panels are. "
        f"Of {len(by_panel)} single panels and tables: {_counts(by_panel)}."
    )


def report(sheets: Mapping[str, Sheet], preset: str) -> str:
    """A line for each row: item, verdict, how many claims hold, page, its figures, what its results cost."""
    lines = []
    for row in rows(sheets):
        kind, number = row.item.split()
        name, sheet = f"{_SHORT[kind]} {', '.join(row.labels)}", row.sheet
        if kind == "figure" and sheet is not None:
            name = f"[{name}](#{anchor_of(kind, number)})"
        if sheet is None:
            lines.append((name, f"{OUTCOMES[NOT_RUN]} {NOT_RUN}: no page yet", *"––––"))
            continue
        reached = row.outcome if sheet.complete else not_run(sheet)
        lines.append(
            (
                name,
                f"{OUTCOMES[row.outcome]} [{reached}](#{target(sheet)})",
                count(row.claims) if sheet.complete else "–",
                f"[](/chapters/{sheet.run.name})",
                _figures(sheet) or "–",
                sheet.cost or "–",
            )
        )
    header = ("in the paper", "verdict", "claims that hold", "page", "its figures", "computed in")
    return f"Made with the preset **{preset}**.\n\n{table(header, lines)}"


def report_pages(sheets: Mapping[str, Sheet], preset: str) -> str:
    """For each page on the paper: what the paper claims, what was measured, and what made it."""
    return "\n\n".join(_page(sheet, preset) for sheet in sheets.values() if sheet.run.items)


def cost(sheets: Mapping[str, Sheet]) -> str:
    """How long all results together took to compute, on what, and which of the runs took longest."""
    made = {key: o.made for sheet in sheets.values() for key, o in sheet.outcomes.items() if o.made}
    hours = sum(m["seconds"] for m in made.values()) / 3600
    devices = ", ".join(dict.fromkeys(m["device"] for m in made.values()))
    complete = [sheet for sheet in sheets.values() if sheet.complete and sheet.made]
    longest = sorted(complete, key=lambda sheet: -sum(m["seconds"] for m in sheet.made))[:3]
    named = "; ".join(f"[](/chapters/{sheet.run.name}) ({sheet.cost})" for sheet in longest)
    return (
        f"The results of this book are those of {len(made):,} trainings and measurements. Together they took "
        f"{hours:.1f} core-hours on {devices}. The longest: {named}."
    )


def not_run(sheet: Sheet) -> str:
    """Why there is nothing to show."""
    return f"{NOT_RUN}: {sheet.state}"


def counted(sheet: Sheet) -> str:
    """How many of a page's claims have each verdict."""
    verdicts = [claim.verdict for claim in sheet.claims.values()]
    return ", ".join(f"{verdicts.count(v)} {v}" for v in VERDICTS if v in verdicts) or "–"


def _page(sheet: Sheet, preset: str) -> str:
    run = sheet.run
    where = f"({target(sheet)})=\n[](/chapters/{run.name})"
    if not sheet.complete:
        text = f"{where}: {not_run(sheet)}.\n\n```text\n{sheet.reason}\n```"
    else:
        numbers, judged = _figures(sheet), "\n\n".join(_judged(sheet))
        text = f"{where}{', figures ' * bool(numbers)}{numbers}.\n\n{judged}\n\n{_made(sheet, preset)}"
    return f":::::{{dropdown}} {_capitalised(run.in_paper)}: {run.title}\n{text}\n:::::"


def _judged(sheet: Sheet) -> list[str]:
    """A paragraph and a list for each group of items that are judged by the same claims."""
    groups: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for item, label in sheet.run.items:
        groups.setdefault(tuple(about(item, sheet)), []).append((item, label))
    parts = []
    for names, items in groups.items():
        judged = {name: sheet.claims[name] for name in names}
        reached = outcome(claim.verdict for claim in judged.values())
        parts.append(f"**{_capitalised(listed(items))}: {reached}**. Claims that hold: {count(judged)}.")
        parts.append("\n".join(f"- {_line(claim)}" for claim in judged.values()))
    return parts


def _line(claim: Claim) -> str:
    line = f"{VERDICTS[claim.verdict]} *{claim.verdict}:* {claim.statement}. *Paper:* {claim.paper}."
    asked = f" *Tolerance:* {claim.tolerance}." if claim.verdict == NOT_COMPARED and claim.tolerance != "none" else ""
    seeds = f" Holds in {claim.seeds}." if claim.seeds else ""
    why = f" *Why:* {claim.why}." if claim.why else ""
    return f"{line} *Here:* {claim.ours}.{seeds}{why}{asked}"


def _made(sheet: Sheet, preset: str) -> str:
    computed = f"Computed in {sheet.cost}, {when(sheet.made)}." if sheet.made else "Nothing had to be computed."
    return "\n\n".join([sheet.run.made_with(preset), f"Data: {sheet.source or 'not stated.'}", computed])


def anchor_of(kind: str, number: int | str) -> str:
    """The anchor of a figure of the paper where its panels are."""
    return f"paper-{kind}-{number}"


def count(every: Mapping[str, Claim]) -> str:
    """How many claims hold of those that were compared."""
    verdicts = [claim.verdict for claim in every.values()]
    compared = sum(map(verdicts.count, COMPARED))
    partly = f" and {verdicts.count(PARTLY)} in part" if PARTLY in verdicts else ""
    return f"{verdicts.count(REPRODUCED)}{partly} of {compared}" if compared else "none to count"


def _counts(every: Mapping[Any, list[str]]) -> str:
    outcomes = [together(outcomes) for outcomes in every.values()]
    return ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in OUTCOMES if outcome in outcomes)


def _figures(sheet: Sheet) -> str:
    """The numbers of a page's figures, which Sphinx fills in; those of a page follow one another."""
    if sheet.notebook is None:
        return ""
    names = [figure.name for figure in figures(shown(sheet.notebook, sheet.run.is_main))]
    ends = dict.fromkeys([*names[:1], *names[-1:]])
    return "–".join(f"{{numref}}`{{number}} <fig-{sheet.run.name}-{name}>`" for name in ends)


def _capitalised(words: str) -> str:
    return words[:1].upper() + words[1:]


def target(sheet: Sheet) -> str:
    """The anchor of a page's part of the report."""
    return f"report-{sheet.run.name}"
