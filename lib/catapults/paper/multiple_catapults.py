"""What the paper states about several catapults in one training."""

import math
from collections.abc import Sequence

import numpy as np

from ..display import Text, number, table
from ..experiments.multiple_catapults import MultipleRun, Phase
from . import quotes
from .claims import Claim, Claims, Tolerance, at_least, at_most, claim, over_seeds
from .quotes import FinalRate

PAPER, OURS = "the paper's schedule", "our schedule"
NONE = "there is no catapult"
SEVERAL = Tolerance("at least two, by the definition on this page; without divergence", lambda count: count >= 2)
LOWER = at_least(80, "{:g} % of the catapults")
HALF = Tolerance("less than half", lambda ratio: ratio < 0.5)
FAR = 6  # times the critical rate: about the largest from which ReLU networks start without diverging (remark 1)
IN_TOP = at_least(95, "{:g} % of the median catapult")
UNAFFECTED = at_most(1.05, "{:g} times in the median catapult")


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
            "rest": _rest(run),
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
    diverged = phase.history.diverged
    return claim(
        f"{name}: raising the rate gives several catapults",
        theirs,
        f"{_catapults(count)}, at {len(answered)} of {len(stretches)} rates{', then diverges' * diverged}",
        SEVERAL,
        0 if diverged else count,
        f"Under {name} there {'is' if count == 1 else 'are'} {_catapults(count)}: {rates}. {end}",
        unit="{:.0f} catapults",
    )


def _norm(run: MultipleRun) -> Claim:
    norms = [phase.norms(c) for phase in (run.paper, run.ours) for c in phase.catapults]
    lower = sum(after < before for before, after in norms)
    return claim(
        "‖K‖ is lower after a catapult than before it",
        "it decreases during a catapult (section 3.2)",
        f"after {lower} of {len(norms)}",
        Tolerance(f"after {LOWER.words}, from the low of the loss before to its return", LOWER.holds),
        100 * lower / len(norms) if norms else math.nan,
        f"Both schedules together give {_catapults(len(norms))}; after {lower} of them ‖K‖ is lower than before."
        if norms
        else "There is no catapult after which ‖K‖ could be lower.",
        unless="" if norms else NONE,
        unit="{:.0f} % of the catapults",
    )


def _smaller(run: MultipleRun) -> Claim:
    """The kernel at the end of our schedule beside what one catapult has left of it when the second begins."""
    found, norm = run.ours.catapults, run.ours.history.kernel_norm
    if run.ours.history.diverged:
        ours, ratio, unless = "diverges", math.nan, "our schedule diverges"
        course = "Our schedule diverges, so there is no final ‖K‖ to compare."
    elif len(found) < 2:
        ours, ratio, unless = "fewer than two catapults", math.nan, "there are fewer than two catapults"
        course = "There are not several catapults to compare one with."
    else:
        single, many = float(norm[found[1].start]), float(norm[-1])
        ours, ratio, unless = (
            f"{number(single)} before the second, {number(many)} after {len(found)}",
            many / single,
            "",
        )
        course = (
            f"Under our schedule ‖K‖ starts at {number(norm[0])}, is {number(single)} before the second catapult and "
            f"{number(many)} at the end, after {len(found)}."
        )
    return claim(
        "several catapults make ‖K‖ much smaller than a single one",
        "much smaller (section 3.2)",
        ours,
        HALF,
        ratio,
        course,
        unless=unless,
        unit="{:.2f} times that after one",
    )


def _multiple(run: MultipleRun, quote: FinalRate | None) -> Claim:
    phase, theirs = run.ours, "a much larger rate (section 3.2)"
    if quote is not None:
        rate, critical = quote.final_learning_rate, quote.critical_learning_rate
        theirs += f": {number(rate)}, {number(quote.multiple)} times {number(critical)} ({quote.where})"
    loss, h = phase.history.loss, phase.history
    end = f"ends at {number(loss[-1])}" if not h.diverged else "diverges"
    enough = not h.diverged and bool(loss[-1] < loss[0] / 10)
    return claim(
        "training converges at a rate far above the initial critical one",
        theirs,
        f"{number(phase.final_rate)}, {number(phase.multiple)} times {number(phase.initial_critical_rate)}; loss {end}",
        Tolerance(
            f"more than {FAR} times, about the largest rate from which ReLU networks start without diverging (remark 1)"
            "; loss below a tenth of the initial one",
            lambda multiple: multiple > FAR,
        ),
        phase.multiple if enough else 0.0,
        f"Our schedule ends at the rate {number(phase.final_rate)}, {number(phase.multiple)} times the critical rate "
        f"at initialisation, {number(phase.initial_critical_rate)}; the loss {end}. The paper's schedule ends at "
        f"{number(run.paper.final_rate)}, {number(run.paper.multiple)} times.",
        unit="{:.3g} times",
    )


def _restart(phase: Phase, restart: Phase, name: str, quote: FinalRate | None) -> Claim:
    """``quote``: the rate that the paper started from, where this one should be the same in critical rates."""
    h, rate = restart.history, f"{number(phase.final_rate)} ({number(phase.multiple)} times the initial critical rate)"
    theirs, unless = "diverges (Fig. 18)", "the schedule itself diverges" if phase.history.diverged else ""
    if quote is not None:
        rate_there = f"{number(quote.final_learning_rate)}, {number(quote.multiple)} times the critical rate"
        theirs = f"diverges at {rate_there} ({quote.where})"
        if not unless and abs(phase.multiple / quote.multiple - 1) > 0.1:
            unless = (
                f"it ends at {number(phase.multiple)} times the critical rate, the paper's at {number(quote.multiple)}"
            )
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
    return claim(
        f"training diverges if it starts at the rate with which {name} ends",
        theirs,
        ours,
        Tolerance(
            "diverges" + ("" if quote is None else "; needs the paper's final rate, ± 10 %"), lambda diverged: diverged
        ),
        h.diverged,
        f"Started at the rate with which {name} ends, {rate}, {course}",
        unless=unless,
        shown_in=("figure 18",),
    )


def _top(run: MultipleRun) -> Claim:
    s = run.experiment.top
    shares = [100 * phase.share_in_top(c) for phase in (run.paper, run.ours) for c in phase.catapults]
    median = float(np.median(shares)) if shares else math.nan
    ours = f"median share {median:.1f} %, the smallest {min(shares):.1f} %" if shares else "no catapult"
    return claim(
        f"the catapults lie in the top-{s} eigenspace",
        f"L≤{s} has the spikes (Fig. 17)",
        ours,
        IN_TOP,
        median,
        f"Of the rise of a catapult the top-{s} eigenspace has {median:.1f} % in the median, and {min(shares):.1f} % "
        "at least."
        if shares
        else "There is no catapult that could be assigned to an eigenspace.",
        unless="" if shares else NONE,
        unit="{:.1f} %",
        shown_in=("figure 17",),
    )


def _rest(run: MultipleRun) -> Claim:
    s = run.experiment.top
    after = [phase.rest_after(c) for phase in (run.paper, run.ours) for c in phase.catapults]
    median = float(np.median(after)) if after else math.nan
    most = max(after, default=math.nan)
    return claim(
        f"a catapult leaves the rest of the loss, L>{s}, as it was",
        f"L>{s} decreases (Fig. 17)",
        f"{median:.2f} times in the median catapult, at most {most:.2f} times" if after else "no catapult",
        UNAFFECTED,
        median,
        f"From the low of the loss before a catapult to its return, the loss outside of the top-{s} eigenspace changes "
        f"by a factor of {median:.2f} in the median, and of {most:.2f} at most."
        if after
        else "There is no catapult after which the rest could be compared.",
        unless="" if after else NONE,
        unit="{:.2f} times",
        shown_in=("figure 17",),
    )


def _catapults(count: int) -> str:
    return "1 catapult" if count == 1 else f"{count} catapults"
