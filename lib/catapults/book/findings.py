"""The paper's four findings in plain words, each with how many of the book's runs bear it out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..paper import COMPARED, REPRODUCED
from .sheets import Sheet

_MOSTLY = 0.75  # of the verdicts


@dataclass(frozen=True)
class Part:
    """What a kind of run says about a finding: a claim of the pages of ``chapter``."""

    chapter: str
    claim: str
    what: str  # "in N of M runs ..."


FINDINGS: Mapping[str, tuple[Part, ...]] = {
    "The spikes are catapults": (
        Part("gd_catapults", "spike", "of gradient descent above the critical rate the loss rises and comes back"),
        Part(
            "sgd_spikes", "whole", "of SGD the loss rises almost only where the rate exceeds the batch's critical one"
        ),
    ),
    "A catapult happens in the top eigenspace": (
        Part("gd_catapults", "top", "of gradient descent at least 95 % of the spike lies there"),
        Part("sgd_spikes", "top", "of SGD all spikes lie there"),
        Part("gd_catapults", "rest", "of gradient descent the rest of the loss keeps falling"),
    ),
    "Each catapult lowers the norm of the tangent kernel": (
        Part("gd_catapults", "norm", "with one catapult the norm is lower afterwards"),
        Part("multiple_catapults", "norm", "with several catapults it falls with each"),
        Part("sgd_spikes", "norm", "of SGD it falls with each spike"),
    ),
    "Catapults align the AGOP": (
        Part("agop_gd", "alignment", "more catapults of gradient descent go with a better alignment"),
        Part("agop_sgd", "alignment", "smaller batches go with a better alignment"),
        Part("agop_sgd", "performance", "smaller batches go with a better test performance"),
        Part("agop_optimizers", "spearman", "the optimiser whose AGOP is aligned better tests better"),
    ),
}


def findings(sheets: Mapping[str, Sheet]) -> str:
    """A numbered list: each finding, its verdict, and in how many of the runs that could tell each part of it holds."""
    lines = []
    for number, (finding, parts) in enumerate(FINDINGS.items(), 1):
        verdicts = {part: list(_verdicts(part, sheets.values())) for part in parts}
        counted = [
            f"in {found.count(REPRODUCED)} of {len(found)} runs {part.what}"
            for part, found in verdicts.items()
            if found
        ]
        shown = "; ".join(counted) or "no run of this book could tell"
        lines.append(
            f"{number}. **{finding}.** *{_answer([v for found in verdicts.values() for v in found])}:* {shown}."
        )
    return "\n".join(lines)


def _answer(verdicts: list[str]) -> str:
    if not verdicts:
        return "Open"
    share = verdicts.count(REPRODUCED) / len(verdicts)
    return "Yes" if share == 1 else "No" if share == 0 else "Mostly" if share >= _MOSTLY else "In part"


def _verdicts(part: Part, sheets: Iterable[Sheet]) -> Iterable[str]:
    """Of the claims that were compared."""
    for sheet in sheets:
        if sheet.run.chapter.name == part.chapter:
            claim = sheet.claims.get(part.claim)
            if claim is not None and claim.verdict in COMPARED:
                yield claim.verdict
