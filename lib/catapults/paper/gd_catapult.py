"""What the paper states about catapults in full-batch gradient descent."""

import math
from collections.abc import Sequence

import numpy as np

from ..display import number
from ..experiments.gd_catapult import GDRun
from ..schedules import LearningRate
from . import quotes
from .claims import (
    NO_TOLERANCE,
    OURS,
    Claim,
    Claims,
    Tolerance,
    at_least,
    at_most,
    claim,
    given,
    over_seeds,
    within_factor,
)
from .quotes import CriticalRate

NO_SPIKE = "the loss does not double, or does not come back"
STEEP = Tolerance(
    "peak at least 2 times, end at most ½ of the initial loss; below it within 10 iterations of the peak",
    lambda run: bool(
        run.spikes
        and run.back is not None
        and run.back - run.peak <= 10
        and run.history.loss[-1] <= run.history.loss[0] / 2
    ),
)
ABOVE = Tolerance("above it", lambda ratio: ratio > 1)
LOWER = Tolerance("lower at the end of the run than at its start", lambda ratio: ratio < 1)
IN_TOP = at_least(95, "{:g} %")
UNAFFECTED = at_most(1.05)  # L_>s at the end of a spike over that at its start
NEAR = at_most(15, "{:g} %")  # between two critical rates
OFTEN = at_least(90, "{:g} %")  # of the iterations at which the Hessian was measured
PREDICTED = 1.5  # factor within which a quoted critical rate is met


def claims(runs: Sequence[GDRun]) -> Claims:
    """The claims of sections 2 and 3.1 for runs from one or several seeds. What the paper quotes for other settings is
    not compared."""
    return over_seeds([_of_one_seed(run, quotes.critical_rate(run.experiment)) for run in runs])


def _of_one_seed(run: GDRun, quote: CriticalRate | None) -> Claims:
    return Claims(
        {
            "rate": _rate(run, quote),
            "spike": _spike(run),
            "norm": _norm(run),
            "top": _top(run),
            "rest": _rest(run),
            "few": _few(run),
            "hessian": _hessian(run),
            "hessian_along": _hessian_along(run),
            "value": _value(run, quote),
        }
        | ({"average": _average(run, quote)} if run.outputs > 1 else {})
    )


def _rate(run: GDRun, quote: CriticalRate | None) -> Claim:
    eta, critical = run.learning_rate, run.critical_learning_rate
    relative = LearningRate.parse(run.experiment.learning_rate).relative
    theirs = "η > η_crit (section 2)"
    if quote is not None:
        rate, threshold = quote.learning_rate, quote.critical_learning_rate
        theirs = f"{number(rate)} > {number(threshold)} ({number(rate / threshold)} times; {quote.where})"
    statement = "the learning rate exceeds the critical one"
    ours = f"{number(eta)} against {number(critical)} ({number(eta / critical)} times)"
    sentence = (
        f"The learning rate is η = {number(eta)} and the critical one {run.threshold} = {number(critical)} at "
        f"initialisation: η is {number(eta / critical)} times the critical rate"
        + ("." if eta > critical else ", so that no catapult is expected.")
    )
    if relative:
        return given(statement, theirs, ours, sentence, f"{NO_TOLERANCE}; set as a multiple of the critical rate")
    return claim(statement, theirs, ours, ABOVE, eta / critical, sentence, unit="{:.3g} times")


def _spike(run: GDRun) -> Claim:
    loss, peak, back = run.history.loss, run.peak, run.back
    start, end = number(loss[0]), number(loss[-1])
    ours = f"{start} → {number(loss[peak])} (iteration {peak}) → {end}"
    if run.history.diverged:
        last = "no longer finite" if math.isinf(loss[-1]) else end
        ours = f"diverges within {len(loss) - 1} iterations"
        course = f"The loss starts at {start} and diverges: at iteration {len(loss) - 1} it is {last}."
    elif peak == 0:
        course = f"The loss never rises above its initial value of {start} and ends at {end}: no catapult."
    elif back is None:
        course = (
            f"The loss rises from {start} to {number(loss[peak])} at iteration {peak}, but does not come back below "
            f"its initial value; it ends at {end}."
        )
    else:
        course = (
            f"The loss rises from {start} to {number(loss[peak])} at iteration {peak}, is below its initial value "
            f"again at iteration {back} and ends at {end}."
        )
    return claim(
        "the loss rises steeply, comes back fast and goes on falling",
        "a drastic increase, then a fast decrease, where η > η_crit (section 2)",
        ours,
        STEEP,
        run,
        course,
        unless="" if run.learning_rate > run.critical_learning_rate else "the rate is below the critical one",
    )


def _norm(run: GDRun) -> Claim:
    norm, eta = run.measured("kernel_norm"), run.learning_rate
    first, last, lowest = norm[0], norm[-1], int(norm.argmin())
    threshold = first * run.critical_learning_rate / eta
    if run.history.diverged:
        course = f"The norm ‖K‖ goes from {number(first)} to {number(last)}, the last that was measured."
    else:
        course = (
            f"The norm ‖K‖ starts at {number(first)}, is at most {number(norm.max())} and at least "
            f"{number(norm[lowest])} (iteration {lowest}), and ends at {number(last)}, "
            + ("below" if last < threshold else "above")
            + f" the dotted line at {number(threshold)}; the critical rate goes from "
            f"{number(run.critical_learning_rate)} to {number(run.history.critical_learning_rate[-1])}."
        )
    return claim(
        "after the spike the norm of the tangent kernel is lower",
        "‖K‖ decreases (section 2)",
        f"{number(first)} → {number(last)}",
        LOWER,
        last / first,
        course,
        unless="" if run.spikes else NO_SPIKE,
        unit="{:.2f} of the initial norm",
    )


def _top(run: GDRun) -> Claim:
    tops, s = run.history.tops, run.top
    shares = {top: 100 * run.share_of_spike_in_top(top) for top in tops}
    if math.isnan(shares[s]):
        ours, course = "no spike", "There is no spike that could be assigned to an eigenspace."
    else:
        listed = ", ".join(f"{share:.1f} % in the top {top}" for top, share in shares.items())
        ours = f"{listed} of the rise to the peak" + ("; the rest is lower there" if shares[s] > 100 else "")
        if shares[s] > 100:
            course = (
                f"All of the loss's rise to its peak lies in the top-{s} eigenspace; the rest is lower at the peak "
                "than at the start."
            )
        else:
            course = f"Of the loss's rise to its peak, {shares[s]:.1f} % lies in the top-{s} eigenspace."
        if len(tops) > 1:
            course += f" By dimension: {listed}."
    return claim(
        f"the spike lies in the top-{s} eigenspace",
        f"L≤{s} has the spike (claim 1)",
        ours,
        IN_TOP,
        shares[s],
        course,
        unless="" if run.spikes else NO_SPIKE,
        unit="{:.1f} %",
    )


def _rest(run: GDRun) -> Claim:
    """Whether the spike leaves the rest of the loss as it was: for a fixed kernel it does, since no other direction is
    unstable. While the loss is high the eigenvectors turn, too, so that some of the spike shows in the rest."""
    s = run.top
    name, rest = rf"$\mathcal{{L}}_{{>{s}}}$", run.history.split(s)[1]
    after = run.rest_after_spike(s)
    if math.isnan(after):
        ours, course = "no spike that comes back", f"There is no spike after which {name} could be compared."
    else:
        rise, turned = run.largest_rise_of_rest(s), run.turned_at_peak_of_rest(s)
        ours = f"{after:.3f} times; in between it rises by {_percent(rise)} of the spike's height"
        course = (
            f"The rest, {name}, is {number(rest[0])} before the spike and {number(rest[run.back])} at iteration "
            f"{run.back}, when the loss is back: {after:.3f} times as much. In between it rises by {_percent(rise)} of "
            "what the loss rises by"
        )
        course += (
            "." if math.isnan(turned) else f", of which {_percent(turned)} come from the turning of the eigenvectors."
        )
    return claim(
        f"the spike leaves the rest of the loss, L>{s}, as it was",
        "L>s decreases almost monotonically (claim 1, Fig. 3)",
        ours,
        UNAFFECTED,
        after,
        course,
        unless="" if run.spikes and not math.isnan(after) else NO_SPIKE,
        unit="{:.2f} times",
    )


def _few(run: GDRun) -> Claim:
    most, allowed = int(np.nanmax(run.measured("unstable_directions"))), 10 * run.outputs
    return claim(
        "a few eigendirections are unstable",
        "only the top few; s is at most 10 (remark 1)" + (", for each output" if run.outputs > 1 else ""),
        f"at most {most} at a time",
        Tolerance(f"1 to {allowed}, the paper's largest s", lambda count: count <= allowed),
        most,
        "At no iteration does η exceed the critical rate of any eigendirection."
        if most == 0
        else f"The number of eigendirections whose critical rate η exceeds at the same time is at most {most}.",
        unless="the training diverges" if run.history.diverged else "none is unstable" if most == 0 else "",
        unit="{:.0f}",
    )


def _hessian(run: GDRun) -> Claim:
    critical, exact = run.critical_learning_rate, run.history.hessian_critical_learning_rate[0]
    difference = 100 * abs(critical / exact - 1)
    return claim(
        f"{run.threshold} approximates the critical rate of the Hessian at initialisation",
        "close for wide networks (appendix A.1)",
        f"{number(critical)} against {number(exact)}",
        NEAR,
        difference,
        f"The Hessian of the loss at initialisation gives 2/λ = {number(exact)}, the kernel {run.threshold} = "
        f"{number(critical)}: they differ by {difference:.1f} %.",
        unit="{:.1f} % apart",
    )


def _hessian_along(run: GDRun) -> Claim:
    iterations, exact, approximate = run.hessian
    differences = 100 * abs(approximate / exact - 1)
    close, unless = math.nan, ""
    if len(iterations) < 3:
        ours, course = (
            f"measured {len(iterations)} times",
            "Along the run the Hessian was measured too rarely to compare.",
        )
        unless = "the Hessian was measured too rarely"
    elif run.peak and not ((iterations > 0) & (iterations <= run.peak)).any():
        ours = f"measured at {len(iterations)} iterations, none of them in the spike"
        course = f"The Hessian was measured at {len(iterations)} iterations, none of them in the spike."
        unless = "the Hessian was not measured in the spike"
    else:
        close = 100 * float(np.mean([NEAR.holds(value) for value in differences]))
        worst = int(differences.argmax())
        ours = (
            f"within 15 % at {close:.0f} % of {len(iterations)} iterations; median {np.median(differences):.1f} %, "
            f"worst {differences[worst]:.0f} % (iteration {iterations[worst]})"
        )
        above = run.history.rate_at_states[iterations] > approximate
        course = (
            f"At {len(iterations)} iterations the Hessian was measured as well. The two critical rates are within 15 % "
            f"of each other at {close:.0f} % of them. The median difference is {_median(differences[above])} where η "
            f"exceeds n/‖K‖ and {_median(differences[~above])} where it does not; the worst is "
            f"{differences[worst]:.0f} %, at iteration {iterations[worst]}."
        )
    return claim(
        f"{run.threshold} stays close to the critical rate of the Hessian along the run",
        "close during training (appendix A.2, Fig. 12, for SGD)",
        ours,
        Tolerance(f"within 15 % at {OFTEN.words} of the iterations", OFTEN.holds),
        close,
        course,
        unless=unless,
        unit="{:.0f} % of the iterations",
        shown_in=(OURS,),  # the paper compares them along SGD
    )


def _median(percents: np.ndarray) -> str:
    return f"{np.median(percents):.1f} %" if len(percents) else "not measured"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _average(run: GDRun, quote: CriticalRate | None) -> Claim:
    """Which average the paper's loss takes over several outputs, which it does not say."""
    both, samples = run.critical_learning_rate, run.critical_learning_rate / run.outputs
    compared = quote is not None and not quote.differences(run.experiment)
    theirs = quote.critical_learning_rate if compared else None
    nearer = theirs is not None and abs(math.log(theirs / both)) < abs(math.log(theirs / samples))
    said = (
        ""
        if theirs is None
        else f" The paper quotes {number(theirs)}, nearer to the {'first' if nearer else 'second'}."
    )
    return given(
        "the loss is averaged over samples and outputs",
        "not said" if theirs is None else f"not said; the critical rate is {number(theirs)}",
        f"{number(both)} if averaged over both, {number(samples)} over samples only",
        f"With {run.outputs} outputs, a loss averaged over samples and outputs has the critical rate nc/‖K‖ = "
        f"{number(both)}; one averaged over samples and summed over outputs n/‖K‖ = {number(samples)}.{said}",
        f"{NO_TOLERANCE}; we chose the reading that comes nearer",
    )


def _value(run: GDRun, quote: CriticalRate | None) -> Claim:
    """One gain was chosen by one quoted critical rate; the others are then predictions."""
    theirs, ours = quote and quote.critical_learning_rate, run.critical_learning_rate
    statement, other = "the critical learning rate at initialisation", ""
    if quote is None:
        unless, course = (
            "the paper quotes none for these parameters",
            "The paper quotes no critical rate for these parameters.",
        )
    elif other := quote.elsewhere(run.experiment):
        unless = f"the paper's is for other settings: {other}"
        course = (
            f"The paper quotes the critical rate {number(theirs)} ({quote.where}), ours is {number(ours)}. The paper's "
            f"is for other settings: {other}."
        )
    else:
        unless = ""
        course = (
            f"The paper quotes the critical rate {number(theirs)} ({quote.where}); ours is "
            f"{number(ours / theirs)} times that."
        )
        if quote.fitted:
            course += " That is no evidence: the gain of the layers was chosen by this number."
            return given(
                statement, f"{number(theirs)} ({quote.where})", number(ours), course, "the gain was chosen by it"
            )
    return claim(
        statement,
        "none quoted" if quote is None else f"{number(theirs)} ({quote.where})",
        number(ours),
        within_factor(PREDICTED, theirs or 1.0),
        ours,
        course,
        unless=unless,
        unit="{:.3g}",
    )
