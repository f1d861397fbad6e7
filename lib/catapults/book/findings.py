"""The paper's four findings in plain words, each with how many of the book's trainings bear it out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..experiments.match_rates import NETWORKS
from ..paper import NOT_REPRODUCED, REPRODUCED, of_share
from ..paper.statistics import wilson
from .sheets import Sheet


@dataclass(frozen=True)
class Part:
    """What a kind of run says about a finding: a claim of the pages of ``chapter``."""

    chapter: str
    claim: str
    what: str  # "in N of M trainings ..."


FINDINGS: Mapping[str, tuple[Part, ...]] = {
    "The spikes are catapults": (
        Part("gd_catapults", "spike", "of gradient descent above the critical rate the loss rises and comes back"),
        Part("sgd_spikes", "spikes", "of SGD above the critical rates of some batches there are spikes"),
        *(
            Part("match_rates", f"{network}_whole", f"of a {words} the loss rises where the paper says, as often")
            for network, words in NETWORKS.items()
        ),
    ),
    "A catapult happens in the top eigenspace": (
        Part("gd_catapults", "top", "of gradient descent at least 95 % of the spike lies there"),
        Part("sgd_spikes", "top", "of SGD nine tenths of the median spike lie there"),
        Part("gd_catapults", "rest", "of gradient descent the rest of the loss is as it was once the spike is over"),
    ),
    "Each catapult lowers the norm of the tangent kernel": (
        Part("gd_catapults", "norm", "with one catapult the norm is lower afterwards"),
        Part("multiple_catapults", "norm", "with several catapults it falls with each"),
        Part("sgd_spikes", "norm", "of SGD it falls with at least 80 % of the spikes"),
    ),
    "Catapults align the AGOP": (
        Part("agop_gd", "alignment", "more catapults of gradient descent go with a better alignment"),
        Part("agop_sgd", "alignment", "smaller batches go with a better alignment"),
        Part("agop_sgd", "performance", "smaller batches go with a better test performance"),
        Part("agop_optimizers", "spearman", "the optimiser whose AGOP is aligned better tests better"),
    ),
}


def findings(sheets: Mapping[str, Sheet]) -> str:
    """A numbered list: each finding, one plain verdict, and in how many of the trainings that could tell each part of
    it holds. The runs on the paper's figures and tables count."""
    lines = []
    for number, (finding, parts) in enumerate(FINDINGS.items(), 1):
        counts = {part: _held(part, sheets.values()) for part in parts}
        known = {part: count for part, count in counts.items() if count[1]}
        shown = "; ".join(f"in {_of(*count)} {part.what}" for part, count in known.items())
        answer = _answer([of_share(*count) for count in known.values()])
        lines.append(f"{number}. **{finding}.** *{answer}:* {shown or 'no run of this book could tell'}.")
    return "\n".join(lines)


def _of(held: int, compared: int) -> str:
    low, high = wilson(held, compared)
    return f"{held} of {compared} trainings ({100 * low:.0f}–{100 * high:.0f} %)"


def _answer(verdicts: list[str]) -> str:
    """One for all parts."""
    if not verdicts:
        return "Open"
    found = set(verdicts)
    if found == {REPRODUCED}:
        return "It holds"
    return "It does not hold" if found == {NOT_REPRODUCED} else "It holds in part"


def _held(part: Part, sheets: Iterable[Sheet]) -> tuple[int, int]:
    """In how many of the trainings, over all seeds of the runs on the paper, in which it was compared a claim holds."""
    chapter = (sheet for sheet in sheets if sheet.run.chapter.name == part.chapter and sheet.run.items)
    claims = (sheet.claims.get(part.claim) for sheet in chapter)
    counts = [claim.held for claim in claims if claim is not None and claim.held is not None]
    return sum(held for held, _ in counts), sum(compared for _, compared in counts)
