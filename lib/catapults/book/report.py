"""The reproduction report: the paper's figures and tables one by one, with the verdicts of the pages that show them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..claims import NOT_COMPARED, NOT_REPRODUCED, REPRODUCED, VERDICTS
from ..display import table
from .execute import Result
from .executed import claims, contents, shown
from .runs import PAPER, Run, listed

PARTLY, NOT_RUN = "partly reproduced", "not run"
_SHORT = {"figure": "Fig.", "table": "Table"}
OUTCOMES = {REPRODUCED: "✓", PARTLY: "◐", NOT_REPRODUCED: "✗", NOT_COMPARED: "–", NOT_RUN: "○"}  # with their marks


@dataclass(frozen=True)
class Row:
    """A figure or table of the paper, or panels of it, on one page; ``run`` and ``result`` are None without a page."""

    item: str  # "figure 7"
    labels: tuple[str, ...]  # "7a"
    run: Run | None = None
    result: Result | None = None

    @property
    def claims(self) -> dict[str, dict[str, Any]]:
        """Those of the page that are about this item."""
        if self.result is None or self.result.notebook is None:
            return {}
        return about(self.item, claims(self.result.notebook), self.run)

    @property
    def outcome(self) -> str:
        if self.result is None or self.result.notebook is None:
            return NOT_RUN
        return outcome(claim["verdict"] for claim in self.claims.values())


def outcome(verdicts: Iterable[str]) -> str:
    """What the verdicts on claims come to. Only claims that were compared count."""
    held = [verdict == REPRODUCED for verdict in verdicts if verdict in (REPRODUCED, NOT_REPRODUCED)]
    if not held:
        return NOT_COMPARED
    return REPRODUCED if all(held) else PARTLY if any(held) else NOT_REPRODUCED


def together(outcomes: Iterable[str]) -> str:
    """What the outcomes of an item on several pages come to: reproduced if all are, partly if any, else the best."""
    found = set(outcomes)
    if found != {REPRODUCED} and found & {REPRODUCED, PARTLY}:
        return PARTLY
    return next(outcome for outcome in OUTCOMES if outcome in found)


def about(item: str, every: Mapping[str, dict[str, Any]], run: Run) -> dict[str, dict[str, Any]]:
    """The claims of a run's page that an item of the paper is judged by.

    These are the claims that name it; if none does, those that name no item of the page.
    """
    on_page = {item for item, _ in run.items}
    named = {name: claim for name, claim in every.items() if item in claim["shown_in"]}
    return named or {name: claim for name, claim in every.items() if not on_page & set(claim["shown_in"])}


def rows(runs: Mapping[str, Run], results: Mapping[str, Result]) -> list[Row]:
    """Every figure and table of the paper in its order, on every page that shows it or a panel of it."""
    every = []
    for kind, numbers in PAPER.items():
        for number in numbers:
            item = f"{kind} {number}"
            panels = {name: tuple(label for of, label in run.items if of == item) for name, run in runs.items()}
            here = [Row(item, labels, runs[name], results[name]) for name, labels in panels.items() if labels]
            every += sorted(here, key=lambda row: row.labels) or [Row(item, (str(number),))]
    return every


def report_summary(runs: Mapping[str, Run], results: Mapping[str, Result]) -> str:
    """How many of the paper's figures and tables have each outcome, in a sentence."""
    by_item: dict[str, list[str]] = {}
    for row in rows(runs, results):
        by_item.setdefault(row.item, []).append(row.outcome)
    found = [together(outcomes) for outcomes in by_item.values()]
    counts = ", ".join(f"{found.count(outcome)} {outcome}" for outcome in OUTCOMES if outcome in found)
    items = " and ".join(f"{len(numbers)} {kind}s" for kind, numbers in PAPER.items())
    return f"Of the paper's {items}: {counts}."


def report(runs: Mapping[str, Run], results: Mapping[str, Result], preset: str) -> str:
    """A line for each row: item, verdict, how many claims hold, page, its figures, run time."""
    lines = []
    for row in rows(runs, results):
        name = f"{_SHORT[row.item.split()[0]]} {', '.join(row.labels)}"
        if row.run is None:
            lines.append((name, f"{OUTCOMES[NOT_RUN]} {NOT_RUN}: no page yet", *"––––"))
            continue
        ran = row.result.notebook is not None
        reached = row.outcome if ran else not_run(row.result)
        lines.append(
            (
                name,
                f"{OUTCOMES[row.outcome]} [{reached}](#{_target(row.run)})",
                _count(row.claims) if ran else "–",
                f"[](/chapters/{row.run.name})",
                _figures(row.run, row.result) or "–",
                _run_time(row.result) or "–",
            )
        )
    header = ("in the paper", "verdict", "claims that hold", "page", "its figures", "run time")
    return f"Made with the preset **{preset}**.\n\n{table(header, lines)}"


def report_pages(runs: Mapping[str, Run], results: Mapping[str, Result], preset: str) -> str:
    """For each page on the paper: what the paper claims, what was measured, and what made it."""
    return "\n\n".join(_page(run, results[name], preset) for name, run in runs.items() if run.items)


def not_run(result: Result) -> str:
    """Why there is no notebook."""
    return f"{NOT_RUN}: {'data set missing' if result.missing_data else 'the run failed'}"


def _page(run: Run, result: Result, preset: str) -> str:
    where = f"({_target(run)})=\n[](/chapters/{run.name})"
    if result.notebook is None:
        text = f"{where}: {not_run(result)}.\n\n```text\n{result.missing_data or result.failure}\n```"
    else:
        figures = _figures(run, result)
        judged = "\n\n".join(_judged(run, result))
        text = f"{where}{', figures ' * bool(figures)}{figures}.\n\n{judged}\n\n{_made(run, result, preset)}"
    return f":::::{{dropdown}} {_capitalised(run.in_paper)}: {run.title}\n{text}\n:::::"


def _judged(run: Run, result: Result) -> list[str]:
    """A paragraph and a list for each group of items that are judged by the same claims."""
    every = claims(result.notebook)
    groups: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for item, label in run.items:
        groups.setdefault(tuple(about(item, every, run)), []).append((item, label))
    parts = []
    for names, items in groups.items():
        judged = {name: every[name] for name in names}
        reached = outcome(claim["verdict"] for claim in judged.values())
        parts.append(f"**{_capitalised(listed(items))}: {reached}**. Claims that hold: {_count(judged)}.")
        parts.append("\n".join(f"- {_line(claim)}" for claim in judged.values()))
    return parts


def _line(claim: Mapping[str, Any]) -> str:
    verdict, tolerance = claim["verdict"], claim["tolerance"]
    line = f"{VERDICTS[verdict]} *{verdict}:* {claim['statement']}. *Paper:* {claim['paper']}."
    asked = f" *Asked:* {tolerance}." if verdict == NOT_COMPARED and tolerance != "none" else ""
    return f"{line} *This run:* {claim['ours']}.{asked}"


def _made(run: Run, result: Result, preset: str) -> str:
    sources = [content["source"] for content in contents(result.notebook, "data")]
    executed = [
        f"Executed in {facts['run time']} on {facts['device']}, {facts['executed']}, at commit {facts['commit']}."
        for facts in contents(result.notebook, "provenance")
    ]
    return "\n\n".join([run.made_with(preset), f"Data: {' '.join(sources) or 'not stated.'}", *executed])


def _count(every: Mapping[str, dict[str, Any]]) -> str:
    verdicts = [claim["verdict"] for claim in every.values()]
    compared = verdicts.count(REPRODUCED) + verdicts.count(NOT_REPRODUCED)
    return f"{verdicts.count(REPRODUCED)} of {compared}" if compared else "none to count"


def _figures(run: Run, result: Result) -> str:
    """The numbers of a page's figures, which Sphinx fills in; those of a page follow one another."""
    if result.notebook is None:
        return ""
    names = [content["name"] for content in contents(shown(run, result.notebook), "figure")]
    ends = dict.fromkeys([*names[:1], *names[-1:]])
    return "–".join(f"{{numref}}`{{number}} <fig-{run.name}-{name}>`" for name in ends)


def _run_time(result: Result) -> str:
    if result.notebook is None:
        return ""
    return ", ".join(facts["run time"] for facts in contents(result.notebook, "provenance"))


def _capitalised(words: str) -> str:
    return words[:1].upper() + words[1:]


def _target(run: Run) -> str:
    return f"report-{run.name}"
