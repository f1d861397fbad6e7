"""Why claims do not hold: what runs.yml says was tested, with the numbers of the runs that show it."""

from collections.abc import Iterator, Mapping

from ..display import table
from ..paper import NOT_REPRODUCED, PARTLY, Claim
from .runs import KINDS, Reason
from .sheets import Sheet

UNKNOWN = "not found yet"
_WORDS = {
    "size": "Size: at other sizes it is different",
    "seed": "Seed: it depends on the draw",
    "reading": "Reading: the paper leaves open how it was done, and with another reading it is different",
    "statistics": "Statistics: too few numbers, or too noisy ones, to tell",
    "the paper": "The paper: at its own size and with every reading that we tried it is not so",
    UNKNOWN: "Not found yet",
}


def failing(sheet: Sheet) -> dict[str, Claim]:
    """The claims of a page that do not hold, or only in part of the seeds."""
    return {name: claim for name, claim in sheet.claims.items() if claim.verdict in (NOT_REPRODUCED, PARTLY)}


def of_page(sheet: Sheet, sheets: Mapping[str, Sheet]) -> str:
    """For the page of a run; empty where all claims hold that were compared."""
    lines = [
        f"- **{_capitalised(claim.statement)}**: {claim.verdict}. {_said(sheet, name, sheets)}"
        for name, claim in failing(sheet).items()
    ]
    return "\n".join(["**Why some claims do not hold.**", "", *lines]) if lines else ""


def by_kind(sheets: Mapping[str, Sheet]) -> str:
    """For the report: the claims on the paper that do not hold, sorted by the kind of their reason."""
    every: dict[str, list[tuple[str, ...]]] = {kind: [] for kind in (*KINDS, UNKNOWN)}
    for sheet in sheets.values():
        for name, claim in failing(sheet).items() if sheet.run.items else ():
            reason = sheet.run.reasons.get(name)
            row = f"[](/chapters/{sheet.run.name})", claim.statement, claim.seeds or "–", _said(sheet, name, sheets)
            every[UNKNOWN if reason is None else reason.kind].append(row)
    parts = []
    for kind, rows in every.items():
        if rows:
            count = f"{len(rows)} claim{'s' * (len(rows) > 1)}"
            parts.append(f"**{_WORDS[kind]}** ({count}).\n\n{table(('page', 'claim', 'holds in', 'why'), rows)}")
    return "\n\n".join(parts) or "All claims that could be compared hold."


def stale(sheets: Mapping[str, Sheet]) -> Iterator[str]:
    """Reasons for claims that hold, or that there are not, and runs or claims that a reason names in vain."""
    for sheet in sheets.values():
        for name, reason in sheet.run.reasons.items():
            where = f"runs.yml: run {sheet.run.name!r}, reason for {name!r}"
            if sheet.complete and name not in failing(sheet):
                yield f"{where}: this claim {'holds' if name in sheet.claims else 'does not exist'}"
            for other, claim in reason.shown_by(name):
                if other not in sheets:
                    yield f"{where}: see {other!r}, which is no run"
                elif sheets[other].complete and claim not in sheets[other].claims:
                    yield f"{where}: run {other!r} has no claim {claim!r}"


def _said(sheet: Sheet, name: str, sheets: Mapping[str, Sheet]) -> str:
    reason: Reason | None = sheet.run.reasons.get(name)
    if reason is None:
        return f"{_capitalised(UNKNOWN)}."
    shown = [
        f"[](/chapters/{other}): {_verdict(sheets[other].claims[claim])}"
        for other, claim in reason.shown_by(name)
        if other in sheets and claim in sheets[other].claims
    ]
    return f"*{_capitalised(reason.kind)}:* {reason.text.strip()}" + "".join(f" {evidence}" for evidence in shown)


def _verdict(claim: Claim) -> str:
    return f"{claim.verdict}, {claim.ours}" + (f" ({claim.seeds})." if claim.seeds else ".")


def _capitalised(words: str) -> str:
    return words[:1].upper() + words[1:]
