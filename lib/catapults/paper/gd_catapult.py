"""What the paper states about catapults in full-batch gradient descent."""

import math
from collections.abc import Sequence

import numpy as np

from ..display import number
from ..experiments.gd_catapult import GDRun
from ..schedules import LearningRate
from . import quotes
from .claims import GIVEN, NOT_COMPARED, NOT_REPRODUCED, Claim, Claims, over_seeds, verdict
from .quotes import CriticalRate


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
    return Claim(
        "the learning rate exceeds the critical one",
        theirs,
        f"{number(eta)} against {number(critical)} ({number(eta / critical)} times)",
        "none; set as a multiple of the critical rate" if relative else "none",
        GIVEN if relative else verdict(eta > critical),
        f"The learning rate is η = {number(eta)} and the critical one {run.threshold} = {number(critical)} at "
        f"initialisation: η is {number(eta / critical)} times the critical rate"
        + ("." if eta > critical else ", so that no catapult is expected."),
    )


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
    holds = back is not None and bool(run.spikes and back - peak <= 10 and loss[-1] <= loss[0] / 2)
    return Claim(
        "the loss rises steeply, comes back fast and goes on falling",
        "a drastic increase, then a fast decrease, where η > η_crit (section 2)",
        ours,
        "peak at least 2 times, end at most ½ of the initial loss; below it within 10 iterations of the peak",
        verdict(holds if run.learning_rate > run.critical_learning_rate else None),
        course,
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
    return Claim(
        "after the spike the norm of the tangent kernel is lower",
        "‖K‖ decreases (section 2)",
        f"{number(first)} → {number(last)}",
        "lower at the end of the run than at its start; needs a spike",
        verdict(bool(last < first) if run.spikes else None),
        course,
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
    return Claim(
        f"the spike lies in the top-{s} eigenspace",
        f"L≤{s} has the spike (claim 1)",
        ours,
        "at least 95 %; needs a spike",
        verdict(shares[s] >= 95 if run.spikes else None),
        course,
    )


def _rest(run: GDRun) -> Claim:
    s = run.top
    rise, start = run.largest_rise_of_rest(s), run.history.loss_rest[0]
    name = rf"$\mathcal{{L}}_{{>{s}}}$"
    if rise < 1e-3:
        course = f"The rest, {name}, starts at {number(start)} and never rises by more than 0.1 % of that."
    else:
        course = (
            f"The rest, {name}, starts at {number(start)} and never rises above its lowest value so far by more than "
            f"{100 * rise:.1f} % of its initial value."
        )
    return Claim(
        f"the rest of the loss, L>{s}, decreases almost monotonically",
        "monotone (claim 1), almost (Fig. 3)",
        f"largest rise {100 * rise:.1f} % of its initial value",
        "at most 5 %; needs a spike",
        verdict(rise <= 0.05 if run.spikes else None),
        course,
    )


def _few(run: GDRun) -> Claim:
    most, allowed = int(np.nanmax(run.measured("unstable_directions"))), 10 * run.outputs
    return Claim(
        "a few eigendirections are unstable",
        "only the top few; s is at most 10 (remark 1)" + (", for each output" if run.outputs > 1 else ""),
        f"at most {most} at a time",
        f"1 to {allowed}, the paper's largest s",
        verdict(None if run.history.diverged or most == 0 else most <= allowed),
        "At no iteration does η exceed the critical rate of any eigendirection."
        if most == 0
        else f"The number of eigendirections whose critical rate η exceeds at the same time is at most {most}.",
    )


def _hessian(run: GDRun) -> Claim:
    critical, exact = run.critical_learning_rate, run.history.hessian_critical_learning_rate[0]
    difference = abs(critical / exact - 1)
    return Claim(
        f"{run.threshold} approximates the critical rate of the Hessian at initialisation",
        "close for wide networks (appendix A.1)",
        f"{number(critical)} against {number(exact)}",
        "± 15 %",
        verdict(bool(difference <= 0.15)),
        f"The Hessian of the loss at initialisation gives 2/λ = {number(exact)}, the kernel {run.threshold} = "
        f"{number(critical)}: they differ by {100 * difference:.1f} %.",
    )


def _hessian_along(run: GDRun) -> Claim:
    iterations, exact, approximate = run.hessian
    differences = 100 * abs(approximate / exact - 1)
    if len(iterations) < 2:
        ours, course, holds = "measured once", "The Hessian was measured at the start only.", None
    elif len(iterations) == 2:
        ours, course, holds = "measured twice", "Along the run the Hessian was measured too rarely to compare.", None
    elif not (np.ptp(exact) and np.ptp(approximate)):  # there is no correlation
        ours, course, holds = "constant", "Along the run one of the critical rates stays the same.", None
    elif run.peak and not ((iterations > 0) & (iterations <= run.peak)).any():
        ours, holds = f"measured at {len(iterations)} iterations, none of them in the spike", None
        course = f"The Hessian was measured at {len(iterations)} iterations, none of them in the spike."
    else:
        middle, worst = float(np.median(differences)), int(differences.argmax())
        correlation = float(np.corrcoef(np.log(exact), np.log(approximate))[0, 1])
        ours = (
            f"median difference {middle:.1f} %, largest {differences[worst]:.1f} % (iteration {iterations[worst]}), "
            f"correlation {correlation:.3f} at {len(iterations)} iterations"
        )
        holds = middle <= 15 and correlation >= 0.9
        course = (
            f"At {len(iterations)} iterations the Hessian was measured as well. The two critical rates differ by "
            f"{middle:.1f} % in the median and by at most {differences[worst]:.1f} % (iteration {iterations[worst]}); "
            f"the correlation of their logarithms is {correlation:.3f}."
        )
    return Claim(
        f"{run.threshold} follows the critical rate of the Hessian along most of the run",
        "close during training (appendix A.2, Fig. 12, for SGD)",
        ours,
        "median within 15 %, correlation of the logarithms at least 0.9",
        verdict(holds),
        course,
    )


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
    return Claim(
        "the loss is averaged over samples and outputs",
        "not said" if theirs is None else f"not said; the critical rate is {number(theirs)}",
        f"{number(both)} if averaged over both, {number(samples)} over samples only",
        "none; we chose the reading that comes nearer",
        GIVEN,
        f"With {run.outputs} outputs, a loss averaged over samples and outputs has the critical rate nc/‖K‖ = "
        f"{number(both)}; one averaged over samples and summed over outputs n/‖K‖ = {number(samples)}.{said}",
    )


def _value(run: GDRun, quote: CriticalRate | None) -> Claim:
    theirs, ours = quote and quote.critical_learning_rate, run.critical_learning_rate
    other = "" if quote is None else quote.elsewhere(run.experiment)
    if quote is None:
        found, course = NOT_COMPARED, "The paper quotes no critical rate for these parameters."
    elif other:
        found = NOT_COMPARED
        course = (
            f"The paper quotes the critical rate {number(theirs)} ({quote.where}), ours is {number(ours)}. The paper's "
            f"is for other settings: {other}."
        )
    else:
        found = GIVEN if 0.5 <= ours / theirs <= 2 else NOT_REPRODUCED
        course = (
            f"The paper quotes the critical rate {number(theirs)} ({quote.where}); ours is "
            f"{number(ours / theirs)} times that."
        )
    return Claim(
        "the critical learning rate at initialisation",
        "none quoted" if quote is None else f"{number(theirs)} ({quote.where})",
        number(ours),
        "other settings" if other else "factor 2; no evidence, since the gain was chosen to come near",
        found,
        course,
    )
