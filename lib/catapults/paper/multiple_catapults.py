"""What the paper states about several catapults in one training."""

import math
from collections.abc import Sequence

from ..display import Text, number, table
from ..experiments.multiple_catapults import MultipleRun, Phase
from . import quotes
from .claims import Claim, Claims, over_seeds, verdict
from .quotes import FinalRate

PAPER, OURS = "the paper's schedule", "our schedule"


def claims(runs: Sequence[MultipleRun]) -> Claims:
    """The claims of section 3.2 and appendices B.2 and B.3 for runs from one or several seeds."""
    return over_seeds([_of_one_seed(run, quotes.final_rate(run.experiment)) for run in runs])


def _of_one_seed(run: MultipleRun, quote: FinalRate | None) -> Claims:
    return Claims(
        {
            "paper": _count(run.paper, PAPER, "multiple catapults; the rate is raised twice (Fig. 4)"),
            "ours": _count(run.ours, OURS, "resetting η above η_crit triggers another one (section 3.2)"),
            "norm": _norm(run),
            "smaller": _smaller(run),
            "multiple": _multiple(run, quote),
            "paper_restart": _restart(run.paper, run.paper_restart, PAPER, quote),
            "our_restart": _restart(run.ours, run.our_restart, OURS, None),
            "top": _top(run),
        }
    )


def catapults(phase: Phase, top: int) -> Text:
    """A table of a training's catapults: when, by how much, and what became of the kernel."""
    h = phase.history
    rows = [
        (
            str(index),
            number(h.learning_rate[c.start]),
            f"{c.start} → {c.peak} → {c.end}",
            f"{number(h.loss[c.start])} → {number(h.loss[c.peak])} → {number(h.loss[c.end])}",
            " → ".join(map(number, phase.norms(c))),
            f"{100 * phase.share_in_top(c):.1f} %",
        )
        for index, c in enumerate(phase.catapults, start=1)
    ]
    header = (
        "catapult",
        "η",
        "iterations: low → peak → back",
        "loss",
        "norm ‖K‖",
        f"share of the rise in the top {top}",
    )
    return Text(table(header, rows) if rows else "There is no catapult.")


def _count(phase: Phase, name: str, theirs: str) -> Claim:
    count, stretches = len(phase.catapults), phase.stretches
    answered = [stretch for stretch in stretches if stretch.catapults]
    rates = ", ".join(
        f"{len(s.catapults) or 'none'} at η = {number(s.learning_rate)} (iterations {s.first} to {s.last})"
        for s in stretches
    )
    end = "The run diverges." if phase.history.diverged else f"The loss ends at {number(phase.history.loss[-1])}."
    return Claim(
        f"{name}: each rate that is set gives a catapult",
        theirs,
        f"{_catapults(count)}, at {len(answered)} of {len(stretches)} rates",
        "at least one at each rate, by the definition on this page",
        verdict(len(answered) == len(stretches) and not phase.history.diverged),
        f"Under {name} there {'is' if count == 1 else 'are'} {_catapults(count)}: {rates}. {end}",
    )


def _norm(run: MultipleRun) -> Claim:
    norms = [phase.norms(c) for phase in (run.paper, run.ours) for c in phase.catapults]
    lower = sum(after < before for before, after in norms)
    return Claim(
        "‖K‖ is lower after each catapult",
        "it decreases during a catapult (section 3.2)",
        f"after {lower} of {len(norms)}",
        "after each, compared from the low of the loss before it to its return",
        verdict(lower == len(norms) if norms else None),
        f"Both schedules together give {_catapults(len(norms))}; after {lower} of them ‖K‖ is lower than before."
        if norms
        else "There is no catapult after which ‖K‖ could be lower.",
    )


def _smaller(run: MultipleRun) -> Claim:
    """The kernel at the end of our schedule beside what one catapult has left of it when the second begins."""
    found, norm = run.ours.catapults, run.ours.history.kernel_norm
    if run.ours.history.diverged:
        ours, holds, course = "diverges", None, "Our schedule diverges, so there is no final ‖K‖ to compare."
    elif len(found) < 2:
        ours, holds, course = "fewer than two catapults", None, "There are not several catapults to compare one with."
    else:
        single, many = float(norm[found[1].start]), float(norm[-1])
        ours, holds = f"{number(single)} before the second, {number(many)} after {len(found)}", many < single / 2
        course = (
            f"Under our schedule ‖K‖ starts at {number(norm[0])}, is {number(single)} before the second catapult and "
            f"{number(many)} at the end, after {len(found)}."
        )
    return Claim(
        "several catapults make ‖K‖ much smaller than a single one",
        "much smaller (section 3.2)",
        ours,
        "less than half",
        verdict(holds),
        course,
    )


def _multiple(run: MultipleRun, quote: FinalRate | None) -> Claim:
    phase, theirs = run.ours, "a much larger rate (section 3.2)"
    if quote is not None:
        rate, critical = quote.final_learning_rate, quote.critical_learning_rate
        theirs += f": {number(rate)}, {number(quote.multiple)} times {number(critical)} ({quote.where})"
    loss, h = phase.history.loss, phase.history
    end = f"ends at {number(loss[-1])}" if not h.diverged else "diverges"
    return Claim(
        "training converges at a rate far above the initial critical one",
        theirs,
        f"{number(phase.final_rate)}, {number(phase.multiple)} times {number(phase.initial_critical_rate)}; loss {end}",
        "more than 6 times, about the largest rate from which ReLU networks start without diverging (remark 1); loss "
        "below a tenth of the initial one",
        verdict(not h.diverged and phase.multiple > 6 and bool(loss[-1] < loss[0] / 10)),
        f"Our schedule ends at the rate {number(phase.final_rate)}, {number(phase.multiple)} times the critical rate "
        f"at initialisation, {number(phase.initial_critical_rate)}; the loss {end}. The paper's schedule ends at "
        f"{number(run.paper.final_rate)}, {number(run.paper.multiple)} times.",
    )


def _restart(phase: Phase, restart: Phase, name: str, quote: FinalRate | None) -> Claim:
    """``quote``: the rate that the paper started from, where this one should be the same in critical rates."""
    h, rate = restart.history, f"{number(phase.final_rate)} ({number(phase.multiple)} times the initial critical rate)"
    theirs, comparable = "diverges (Fig. 18)", not phase.history.diverged
    if quote is not None:
        rate_there = f"{number(quote.final_learning_rate)}, {number(quote.multiple)} times the critical rate"
        theirs = f"diverges at {rate_there} ({quote.where})"
        comparable &= bool(abs(phase.multiple / quote.multiple - 1) <= 0.1)
    if phase.history.diverged:
        ours, course = "the schedule itself diverges", "it diverges, but so does the schedule itself."
    elif h.diverged:
        last = "is no longer finite" if math.isinf(h.loss[-1]) else f"is {number(h.loss[-1])}"
        ours = f"diverges within {len(h)} iterations"
        course = f"it diverges: at iteration {len(h)} the loss {last}."
    else:
        ours = f"does not diverge: {number(h.loss[0])} → {number(h.loss.max())} → {number(h.loss[-1])}"
        course = (
            f"it does not diverge. The loss goes from {number(h.loss[0])} to at most {number(h.loss.max())} and is "
            f"{number(h.loss[-1])} after {len(h)} iterations."
        )
    return Claim(
        f"training diverges if it starts at the rate with which {name} ends",
        theirs,
        ours,
        f"{len(h)} iterations" + ("" if quote is None else "; needs the paper's final rate, ± 10 %"),
        verdict(h.diverged if comparable else None),
        f"Started at the rate with which {name} ends, {rate}, {course}",
        ("figure 18",),
    )


def _top(run: MultipleRun) -> Claim:
    s = run.experiment.top
    shares = [100 * phase.share_in_top(c) for phase in (run.paper, run.ours) for c in phase.catapults]
    within = sum(share >= 95 for share in shares)
    smallest = f", the smallest share {min(shares):.1f} %" if shares else ""
    return Claim(
        f"all catapults lie in the top-{s} eigenspace",
        f"L≤{s} has the spikes (Fig. 17)",
        f"{within} of {len(shares)}{smallest}",
        "at least 95 % of each rise",
        verdict(within == len(shares) if shares else None),
        f"Catapults with at least 95 % of their rise in the top-{s} eigenspace: {within} of {len(shares)}{smallest}."
        if shares
        else "There is no catapult that could be assigned to an eigenspace.",
        ("figure 17",),
    )


def _catapults(count: int) -> str:
    return "1 catapult" if count == 1 else f"{count} catapults"
