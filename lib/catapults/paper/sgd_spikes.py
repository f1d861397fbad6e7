"""What the paper states about spikes of the training loss in SGD."""

import math
from collections.abc import Sequence

import numpy as np

from ..display import Text, number, table
from ..experiments.sgd_spikes import READINGS, Reading, SGDRun, matches
from .claims import GIVEN, Claim, Claims, over_seeds, verdict

NO_SPIKE = "There is no spike."
GOAL = 0.001  # of the training loss
MATCHING = 0.95  # of the rises
VISIBLE = 0.1  # rises of the loss by more than this fraction are seen in a plot


def claims(runs: Sequence[SGDRun]) -> Claims:
    """The claims of section 3.3 and appendix A.2 for runs from one or several seeds."""
    return over_seeds([_of_one_seed(run) for run in runs])


def _of_one_seed(run: SGDRun) -> Claims:
    return Claims(
        {
            "rate": _rate(run),
            "spikes": _spikes(run),
            "whole": _match(run, "whole"),
            "batch": _match(run, "batch"),
            "exact": _exact(run),
            "calm": _calm(run),
            "norm": _norm(run),
            "between": _between(run),
            "top": _top(run),
            "rest": _rest(run),
            "hessian": _hessian(run),
            "converged": _converged(run),
        }
    )


def match_table(run: SGDRun) -> Text:
    """How the steps of a run fall, in either reading."""
    rows = []
    for reading, words in READINGS.items():
        m = matches(run.history, reading)
        counts = map(str, (m.hits, m.misses, m.false_alarms, m.quiet))
        rows.append((words, *counts, _percent(m.rate), _percent(m.base)))
    header = ("whose loss", "rises and η > η_crit", "rises, but not η > η_crit", "η > η_crit, but no rise", "neither")
    return Text(table((*header, "match rate", "η > η_crit, of all steps"), rows))


def spike_table(run: SGDRun, most: int = 12) -> Text:
    """The spikes of a run one by one, the highest if there are many."""
    h, found = run.history, run.spikes
    shown = sorted(sorted(found, key=lambda s: -h.loss[s.peak])[:most], key=lambda s: s.peak)
    rows = [
        (
            f"{s.start} → {s.peak} → {s.end}",
            " → ".join(number(h.loss[t]) for t in (s.start, s.peak, s.end)),
            " → ".join("–" if math.isnan(norm) else number(norm) for norm in run.norms(s)),
            "–" if math.isnan(share := run.share_in_top(s)) else f"{100 * share:.1f} %",
        )
        for s in shown
    ]
    header = ("iterations", "loss", "norm ‖K‖", f"share of the rise in the top {run.experiment.top}")
    if not rows:
        return Text(NO_SPIKE)
    more = f"\n\nThe {most} highest of {len(found)} spikes are listed." if len(found) > most else ""
    return Text(table(header, rows) + more)


def _rate(run: SGDRun) -> Claim:
    h, batch = run.history, run.history.batch_critical_learning_rate
    eta, many = h.learning_rate, int(h.exceeds.sum())
    rate = number(eta[0]) if np.ptp(eta) == 0 else f"{number(eta.min())} to {number(eta.max())}"
    initial = h.critical_learning_rate[0]
    whole = f"At initialisation the critical rate of the whole training set, {run.threshold}, is {number(initial)}. "
    whole = whole if math.isfinite(initial) else ""
    return Claim(
        "the learning rate exceeds the critical rate of some batches",
        "greater than η_crit(X_batch) for some of the batches (section 3.3)",
        f"at {many} of {len(h)} steps",
        "none; we chose the rate",
        GIVEN,
        f"The learning rate is {rate}. {whole}The critical rates of the batches range from {number(batch.min())} to "
        f"{number(batch.max())}; the learning rate exceeds that of its batch at {many} of {len(h)} steps.",
    )


def _spikes(run: SGDRun) -> Claim:
    found, loss = run.spikes, run.history.loss
    if run.history.diverged:
        ours, course = "diverges", "The run diverges."
    elif found:
        highest = max(found, key=lambda s: loss[s.peak])
        ours = f"{_spikes_of(len(found))}; the highest {number(loss[highest.start])} → {number(loss[highest.peak])}"
        course = (
            f"The loss has {_spikes_of(len(found))}. In the highest it rises from {number(loss[highest.start])} at "
            f"iteration {highest.start} to {number(loss[highest.peak])} at iteration {highest.peak}, and is down to "
            f"{number(loss[highest.end])} at iteration {highest.end}."
        )
    else:
        ours, course = (
            "none",
            f"The loss has no spike: it starts at {number(loss[0])} and ends at {number(_last(loss))}.",
        )
    return Claim(
        "spikes appear in the training loss",
        "many (section 3.3)",
        ours,
        "at least one, by the definition on this page",
        verdict(bool(found) and not run.history.diverged if run.history.exceeds.any() else None),
        course,
    )


def _match(run: SGDRun, reading: Reading) -> Claim:
    m, needed = matches(run.history, reading), 5
    theirs = "not stated: the paper counts the total training loss"
    holds = None
    if reading == "whole":
        theirs = "whenever the total loss increases, for a shallow network, a 5-layer FCN and CNN (section 3.3)"
        stated = run.experiment.architecture in ("fcn", "cnn") and run.experiment.batch_size > 1
        holds = bool(m.rate >= MATCHING) if stated and m.rises >= needed else None
    return Claim(
        f"where {READINGS[reading]} rises, η > η_crit(X_batch)",
        theirs,
        f"{m.hits} of {m.rises} rises" + (f", {_percent(m.rate)} (of all steps {_percent(m.base)})" if m.rises else ""),
        f"at least {100 * MATCHING:g} %; needs {needed} rises" if reading == "whole" else "none",
        verdict(holds),
        f"Of the {m.rises} steps on which {READINGS[reading]} rises, {m.hits} have η > η_crit(X_batch)"
        + (f", which is {_percent(m.rate)}; of all steps {_percent(m.base)} have it." if m.rises else "."),
    )


def _exact(run: SGDRun) -> Claim:
    m = matches(run.history, "whole", VISIBLE)
    one = run.experiment.batch_size == 1
    size = f"more than {100 * VISIBLE:g} %"
    return Claim(
        "with one sample a batch, the loss jumps at exactly the steps with η > η_crit(X_batch)",
        "exact match (Fig. 5)",
        f"{m.hits} matches, {m.misses} misses, {m.false_alarms} false alarms",
        f"no miss, no false alarm; jumps are rises by {size}; needs batches of one sample",
        verdict(m.misses == m.false_alarms == 0 if one and m.rises + m.false_alarms else None),
        f"Steps on which the loss of the whole training set rises by {size} and η exceeds η_crit(X_batch): {m.hits}. "
        f"Misses, where it rises as much although η does not exceed: {m.misses}. False alarms, where η exceeds but it "
        f"does not rise as much: {m.false_alarms}.",
    )


def _calm(run: SGDRun) -> Claim:
    statement = "at a rate below every batch's critical one the loss has no spike"
    theirs = "decreases monotonically until convergence (section 3.3)"
    tolerance = "no spike; rises of the whole set's loss on at most 5 % of the steps; convergence not required"
    if run.calm is None:
        return Claim(statement, theirs, "not run", tolerance, verdict(None), "This run has no second training.")
    h = run.calm
    m, spikes, exceeding = matches(h, "whole"), len(run.calm_spikes), int(h.exceeds.sum())
    steps = m.rises + m.false_alarms + m.quiet
    holds = None if exceeding or not steps else spikes == 0 and m.rises <= 0.05 * steps
    monotone = f"It is not monotone: it rises on {m.rises} of {steps} steps. " if m.rises else "It never rises. "
    return Claim(
        statement,
        theirs,
        f"η = {number(h.learning_rate[0])}: {_spikes_of(spikes)}; the loss rises on {m.rises} of {steps} steps",
        tolerance,
        verdict(holds),
        f"The second training has the rate {number(h.learning_rate[0])}; the critical rates of its batches are "
        f"{number(h.batch_critical_learning_rate.min())} or more, "
        + ("all above that rate" if not exceeding else f"below that rate on {exceeding} steps")
        + f". The loss has {_spikes_of(spikes)}. "
        + (monotone if steps else "")
        + f"It goes from {number(h.loss[0])} to {number(_last(h.loss))}"
        + (", where the run stops." if h.converged else f" in {len(h)} steps, after which the training ends."),
    )


def _norm(run: SGDRun) -> Claim:
    norms = [run.norms(s) for s in run.spikes]
    known = [(before, after) for before, after in norms if math.isfinite(before + after)]
    lower = sum(after < before for before, after in known)
    falls = [1 - after / before for before, after in known]
    typical = f"; the median change is {-100 * float(np.median(falls)):+.1f} %" if known else ""
    every = run.experiment.kernel_every
    between = f" It was measured every {every} steps, so some steps before and after a spike count with it."
    between = between if every is not None and every > 1 else ""
    return Claim(
        "‖K‖ is lower after each spike",
        "decreases whenever there is a spike (section 3.3)",
        f"after {lower} of {len(known)}",
        "each, from the last measurement before its start to the first after its end",
        verdict(lower == len(known) if known else None),
        f"After {lower} of {_spikes_of(len(known))} ‖K‖ is lower than before{typical}.{between}"
        if known
        else "There is no spike over which ‖K‖ could be compared.",
    )


def _between(run: SGDRun) -> Claim:
    changes, inside = run.norm_changes
    outside = changes[~inside]
    up = int((outside >= -1e-3).sum())
    total = {name: math.exp(part.sum()) for name, part in (("in", changes[inside]), ("out", outside))}
    return Claim(
        "between the spikes ‖K‖ rises or stays",
        "mostly increasing or unchanged at other steps (section 3.3)",
        f"in {up} of {len(outside)} cases; overall by a factor of {number(total['out'])}",
        "in more than half of the cases it falls by at most 0.1 % between measurements; needs a spike",
        verdict(up > len(outside) / 2 if inside.any() and len(outside) else None),
        f"Outside of the spikes ‖K‖ rises, stays, or falls by no more than 0.1 % from one measurement to the next in "
        f"{up} of {len(outside)} cases. Outside spikes ‖K‖ {_overall(total['out'])}"
        + (f", inside spikes it {_overall(total['in'])}." if inside.any() else "."),
    )


def _top(run: SGDRun) -> Claim:
    s = run.experiment.top
    shares = [100 * share for spike in run.spikes if math.isfinite(share := run.share_in_top(spike))]
    within = sum(share >= 90 for share in shares)
    median = f", median share {np.median(shares):.1f} %" if shares else ""
    return Claim(
        f"the spikes lie in the top-{s} eigenspace",
        "only in the top-1 direction, for deep networks (section 3.3)" if s == 1 else f"L≤{s} has the spikes (Fig. 6b)",
        f"{within} of {len(shares)}{median}",
        "at least 90 % of each rise; needs batches of several samples",
        verdict(within == len(shares) if shares and run.experiment.batch_size > 1 else None),
        f"Spikes with at least 90 % of their rise in the top-{s} eigenspace: {within} of {len(shares)}{median}."
        if shares
        else "There is no spike that could be assigned to an eigenspace.",
    )


def _rest(run: SGDRun) -> Claim:
    s = run.experiment.top
    rest = run.history.split(s)[1]
    rest = rest[np.isfinite(rest)]
    statement, theirs = f"L>{s} falls nearly monotonically", "only small oscillations (section 3.3)"
    tolerance = "rises by at most 10 % of its initial value; needs a spike"
    if len(rest) < 2:
        return Claim(statement, theirs, "not measured", tolerance, verdict(None), "The split was not measured.")
    rises = rest - np.minimum.accumulate(rest)
    most = float(rises.max() / rest[0]) if rest[0] > 0 else 0.0
    return Claim(
        statement,
        theirs,
        f"{number(rest[0])} → {number(rest[-1])}; rises by up to {100 * most:.0f} %",
        tolerance,
        verdict(most <= 0.1 if run.spikes else None),
        f"The loss outside of the top-{s} eigenspace starts at {number(rest[0])} and ends at {number(rest[-1])}. It "
        f"exceeds its smallest value so far by at most {number(rises.max())}, {100 * most:.0f} % of its initial value.",
    )


def _hessian(run: SGDRun) -> Claim:
    exact, kernel = run.hessian
    statement, theirs = "η_crit of a batch from the Hessian is close to b/‖K_batch‖", "close (Fig. 12)"
    tolerance = "correlation at least 0.9, median difference at most 10 %; needs 5 steps, not all alike"
    figure = ("figure 12",)
    if len(exact) < 5 or np.ptp(exact) == 0 or np.ptp(kernel) == 0:
        ours = "not measured" if not len(exact) else f"{len(exact)} steps"
        why = f"The Hessian was {'not measured' if not len(exact) else 'measured at too few steps, or never changed'}."
        return Claim(statement, theirs, ours, tolerance, verdict(None), why, figure)
    correlation, difference = float(np.corrcoef(exact, kernel)[0, 1]), 100 * np.abs(kernel / exact - 1)
    median, largest = float(np.median(difference)), float(difference.max())
    ours = f"correlation {correlation:.3f}, median difference {median:.1f} %, largest {largest:.0f} %"
    above = difference[run.hessian_exceeds]
    where = (
        f" At the {len(above)} of them with η > η_crit(X_batch) the median is {np.median(above):.1f} %."
        if len(above)
        else ""
    )
    return Claim(
        statement,
        theirs,
        ours,
        tolerance,
        verdict(correlation >= 0.9 and median <= 10),
        f"At {len(exact)} steps both critical rates of the batch were measured: {ours}.{where}",
        figure,
    )


def _converged(run: SGDRun) -> Claim:
    h, goal = run.history, run.experiment.stop_below
    end = "diverges" if h.diverged else f"{number(_last(h.loss))} after {len(h)} steps"
    sentence = "The run diverges." if h.diverged else f"The run ends at a loss of {end}."
    if goal and not (h.diverged or h.converged):
        sentence += f" It would have stopped at a loss below {number(goal)}."
    return Claim(
        "training converges",
        f"to a loss below {GOAL} (appendix F.3)",
        end,
        f"needs a goal of {GOAL}, and a run that reaches it or diverges",
        verdict(h.converged if goal == GOAL and (h.diverged or h.converged) else None),
        sentence,
    )


def _last(loss: np.ndarray) -> float:
    return float(loss[np.isfinite(loss)][-1])


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _overall(factor: float) -> str:
    """What a factor does."""
    return f"{'shrinks' if factor < 1 else 'grows'} by a factor of {number(factor)} overall"


def _spikes_of(count: int) -> str:
    return "1 spike" if count == 1 else f"{count} spikes" if count else "no spike"
