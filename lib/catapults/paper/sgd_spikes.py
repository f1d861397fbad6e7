"""What the paper states about spikes of the training loss in SGD."""

import math
from collections.abc import Sequence

import numpy as np

from ..display import Text, number, table
from ..experiments.sgd_spikes import READINGS, Reading, SGDRun, explained, matches
from .claims import OURS, Claim, Claims, Tolerance, at_least, at_most, claim, given, over_seeds

NO_SPIKE = "There is no spike."
NONE = "there is no spike"
GOAL = 0.001  # of the training loss
VISIBLE = 0.1  # rises of the loss by more than this fraction are seen in a plot
SMOOTH = Tolerance(
    f"never more than {100 * VISIBLE:g} % above its lowest value so far, which one sees in a plot",
    lambda percent: percent <= 100 * VISIBLE,
)
MANY = at_least(3)
HIGH = 5  # times the loss where it began: a high spike
LOWER = at_least(80, "{:g} % of the spikes")
IN_TOP = at_least(90, "{:g} % of the median spike")
UNAFFECTED = at_most(1.05, "{:g} times in the median spike")  # L_>s once the loss is back over that at the start
EXPLAINED = at_least(75, "{:g} % of the rises")
NEEDED = 5  # rises
AGREE, CORRELATED = 90, 0.9  # per cent of the steps, and a correlation


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
            "explained": _explained(run),
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
    return given(
        "the learning rate exceeds the critical rate of some batches",
        "greater than η_crit(X_batch) for some of the batches (section 3.3)",
        f"at {many} of {len(h)} steps",
        f"The learning rate is {rate}. {whole}The critical rates of the batches range from {number(batch.min())} to "
        f"{number(batch.max())}; the learning rate exceeds that of its batch at {many} of {len(h)} steps.",
        "none; we chose the rate",
    )


def _spikes(run: SGDRun) -> Claim:
    found, loss, steps = run.spikes, run.history.loss, len(run.history)
    if run.history.diverged:
        ours, course = "diverges", "The run diverges."
    elif found:
        highest = max(found, key=lambda s: loss[s.peak])
        ours = f"{_spikes_of(len(found))}; the highest {number(loss[highest.start])} → {number(loss[highest.peak])}"
        course = (
            f"The loss has {_spikes_of(len(found))} in {steps} steps. In the highest it rises from "
            f"{number(loss[highest.start])} at iteration {highest.start} to {number(loss[highest.peak])} at iteration "
            f"{highest.peak}, and is down to {number(loss[highest.end])} at iteration {highest.end}."
        )
    else:
        ours, course = (
            "none",
            f"The loss has no spike: it starts at {number(loss[0])} and ends at {number(_last(loss))}.",
        )
    return claim(
        "spikes appear in the training loss",
        "many (section 3.3)",
        ours,
        Tolerance(f"{MANY.words}, by the definition on this page; without divergence", MANY.holds),
        0 if run.history.diverged else len(found),
        course,
        unless=_spikes_not_claimed(run),
        unit="{:.0f}",
    )


def _spikes_not_claimed(run: SGDRun) -> str:
    if run.experiment.batch_size == 1:
        return "a batch has one sample, of which Fig. 5 claims the exact match"
    return "" if run.history.exceeds.any() else "no step is above the critical rate of its batch"


def _match(run: SGDRun, reading: Reading) -> Claim:
    """Shown beside the base rate, and not judged: the paper states match rates for the networks of Table 2 only."""
    m = matches(run.history, reading)
    return claim(
        f"where {READINGS[reading]} rises, η > η_crit(X_batch)",
        "stated for the networks of Table 2 (section 3.3)" if reading == "whole" else "not stated",
        f"{m.hits} of {m.rises} rises" + (f", {_percent(m.rate)} (of all steps {_percent(m.base)})" if m.rises else ""),
        Tolerance("none", lambda rate: True),
        m.rate,
        f"Of the {m.rises} steps on which {READINGS[reading]} rises, {m.hits} have η > η_crit(X_batch)"
        + (f", which is {_percent(m.rate)}; of all steps {_percent(m.base)} have it." if m.rises else "."),
        unless="judged for Table 2 only",
    )


def _explained(run: SGDRun) -> Claim:
    e = explained(run.history)
    share = 100 * e.rate
    unless = "not measured" if not e.steps else f"fewer than {NEEDED} rises" if e.rises < NEEDED else ""
    return claim(
        "the whole set's loss rises where η exceeds the step's break-even rate η*_whole",
        "ours: the first-order theory of one step",
        "not measured" if not e.steps else f"{e.hits} of {e.rises} rises; right at {_percent(e.right)} of the steps",
        EXPLAINED,
        share,
        f"Of the {e.rises} steps on which the loss of the whole training set rises, {e.hits} have η > η*_whole. The "
        f"rule is right at {_percent(e.right)} of all steps."
        if e.steps
        else "The break-even rates were not measured.",
        unless=unless,
        unit="{:.0f} % of the rises",
        shown_in=(OURS,),
    )


def _exact(run: SGDRun) -> Claim:
    m = matches(run.history, "whole", VISIBLE)
    one = run.experiment.batch_size == 1
    size = f"more than {100 * VISIBLE:g} %"
    unless = "" if m.rises + m.false_alarms else "the loss never jumps"
    return claim(
        "with one sample a batch, the loss jumps at exactly the steps with η > η_crit(X_batch)",
        "exact match (Fig. 5)",
        f"{m.hits} matches, {m.misses} misses, {m.false_alarms} false alarms",
        Tolerance(f"no miss, no false alarm; jumps are rises by {size}", lambda wrong: wrong == 0),
        m.misses + m.false_alarms,
        f"Steps on which the loss of the whole training set rises by {size} and η exceeds η_crit(X_batch): {m.hits}. "
        f"Misses, where it rises as much although η does not exceed: {m.misses}. False alarms, where η exceeds but it "
        f"does not rise as much: {m.false_alarms}.",
        unless=unless if one else "batches have several samples",
        unit="{:.0f} misses and false alarms",
    )


def _calm(run: SGDRun) -> Claim:
    statement = "at a rate below every batch's critical one the loss has no spike"
    theirs = "decreases monotonically until convergence (section 3.3)"
    if run.calm is None:
        never = "there is no second training"
        return claim(statement, theirs, "not run", SMOOTH, math.nan, "This run has no second training.", unless=never)
    h = run.calm
    m, spikes, exceeding = matches(h, "whole"), len(run.calm_spikes), int(h.exceeds.sum())
    steps = m.rises + m.false_alarms + m.quiet
    known = h.loss[np.isfinite(h.loss)]
    highest = float((known / np.minimum.accumulate(known)).max()) - 1
    monotone = "It never rises. "
    if m.rises:
        monotone = f"It is not monotone: it rises on {m.rises} of {steps} steps, "
        monotone += f"to at most {100 * highest:.1f} % above its lowest value so far. "
    return claim(
        statement,
        theirs,
        f"{_spikes_of(spikes)}; the loss rises on {m.rises} of {steps} steps, by at most {100 * highest:.1f} %",
        SMOOTH,
        100 * highest,
        f"The second training has the rate {number(h.learning_rate[0])}; the critical rates of its batches are "
        f"{number(h.batch_critical_learning_rate.min())} or more, "
        + ("all above that rate" if not exceeding else f"below that rate on {exceeding} steps")
        + f". The loss has {_spikes_of(spikes)}. "
        + (monotone if steps else "")
        + f"It goes from {number(h.loss[0])} to {number(_last(h.loss))}"
        + (", where the run stops." if h.converged else f" in {len(h)} steps, after which the training ends."),
        unless=f"the rate exceeds that of {exceeding} batches" if exceeding else "" if steps else "not measured",
        unit="{:.1f} % above its lowest value at most",
    )


def _norm(run: SGDRun) -> Claim:
    norms = [run.norms(s) for s in run.spikes]
    known = [(before, after) for before, after in norms if math.isfinite(before + after)]
    lower = sum(after < before for before, after in known)
    falls = [1 - after / before for before, after in known]
    loss = run.history.loss
    high = [norms for s, norms in zip(run.spikes, norms, strict=True) if loss[s.peak] >= HIGH * loss[s.start]]
    of_high = [after < before for before, after in high if math.isfinite(before + after)]
    high_ones = f"; of spikes by a factor of {HIGH} or more after {sum(of_high)} of {len(of_high)}" if of_high else ""
    typical = f"; the median change is {-100 * float(np.median(falls)):+.1f} %" if known else ""
    every = run.experiment.kernel_every
    between = f" It was measured every {every} steps, so some steps before and after a spike count with it."
    between = between if every is not None and every > 1 else ""
    return claim(
        "‖K‖ is lower after a spike than before it",
        "decreases whenever there is a spike (section 3.3)",
        f"after {lower} of {len(known)}{typical}",
        Tolerance(f"after {LOWER.words}, once the loss is back where the spike began", LOWER.holds),
        100 * lower / len(known) if known else math.nan,
        f"After {lower} of {_spikes_of(len(known))} ‖K‖ is lower than before{typical}{high_ones}.{between}"
        if known
        else "There is no spike over which ‖K‖ could be compared.",
        unless="" if known else NONE,
        unit="{:.0f} % of the spikes",
    )


def _between(run: SGDRun) -> Claim:
    changes, inside = run.norm_changes
    outside = changes[~inside]
    up = int((outside >= -1e-3).sum())
    total = {name: math.exp(part.sum()) for name, part in (("in", changes[inside]), ("out", outside))}
    return claim(
        "between the spikes ‖K‖ rises or stays",
        "mostly increasing or unchanged at other steps (section 3.3)",
        f"in {up} of {len(outside)} cases; overall by a factor of {number(total['out'])}",
        Tolerance("in more than half of the cases it falls by at most 0.1 %", lambda share: share > 50),
        100 * up / len(outside) if len(outside) else math.nan,
        f"Outside of the spikes ‖K‖ rises, stays, or falls by no more than 0.1 % from one measurement to the next in "
        f"{up} of {len(outside)} cases. Outside spikes ‖K‖ {_overall(total['out'])}"
        + (f", inside spikes it {_overall(total['in'])}." if inside.any() else "."),
        unless="" if inside.any() and len(outside) else NONE,
        unit="{:.0f} % of the cases",
    )


def _top(run: SGDRun) -> Claim:
    s = run.experiment.top
    shares = [100 * share for spike in run.spikes if math.isfinite(share := run.share_in_top(spike))]
    median = float(np.median(shares)) if shares else math.nan
    ours = "not measured" if run.spikes else "no spike"
    if shares:
        ours = f"median share {median:.1f} %, from {min(shares):.1f} % to {max(shares):.1f} %"
    one = run.experiment.batch_size == 1
    return claim(
        f"the spikes lie in the top-{s} eigenspace",
        "only in the top-1 direction, for deep networks (section 3.3)" if s == 1 else f"L≤{s} has the spikes (Fig. 6b)",
        ours,
        IN_TOP,
        median,
        f"Of the rise of a spike, from its start to its peak, the share in the top-{s} eigenspace is {median:.1f} % in "
        f"the median, from {min(shares):.1f} % to {max(shares):.1f} %."
        if shares
        else "There is no spike whose share in an eigenspace is known.",
        unless="a batch has one sample" if one else "" if shares else _unmeasured(run),
        unit="{:.1f} %",
    )


def _rest(run: SGDRun) -> Claim:
    """For a fixed kernel a step of SGD leaks a little of a spike into the other directions. What the paper argues is
    that the rest is not affected for good."""
    s = run.experiment.top
    statement, theirs = (
        f"a spike leaves the rest of the loss, L>{s}, as it was",
        "only small oscillations (section 3.3)",
    )
    found = [rest for spike in run.spikes if math.isfinite((rest := run.rest(spike)).after)]
    after = float(np.median([rest.after for rest in found])) if found else math.nan
    rises = [rest.rise for rest in found]
    turned = [rest.turned for rest in found if math.isfinite(rest.turned)]
    ours = "not measured" if run.spikes else "no spike"
    sentence = f"There is no spike after which L>{s} could be compared."
    if found:
        rise = _percent(float(np.median(rises)))
        ours = f"{after:.2f} times in the median spike; its largest rise is {rise} of the spike"
        sentence = (
            f"From the start of a spike until the loss is back, the part outside of the top-{s} eigenspace changes by "
            f"a factor of {after:.2f} in the median of {_spikes_of(len(found))}. Its largest rise on the way is {rise} "
            "of the spike's"
        )
        if turned:
            sentence += (
                f"; {_percent(float(np.median(turned)))} of the spike are due to the turning of the eigenvectors"
            )
        sentence += "."
    one = run.experiment.batch_size == 1
    return claim(
        statement,
        theirs,
        ours,
        UNAFFECTED,
        after,
        sentence,
        unless="a batch has one sample" if one else "" if found else _unmeasured(run),
        unit="{:.2f} times",
    )


def _hessian(run: SGDRun) -> Claim:
    exact, kernel = run.hessian
    statement, theirs = "η_crit of a batch from the Hessian is close to b/‖K_batch‖", "close (Fig. 12)"
    allowed = Tolerance(
        f"on at least {AGREE} % of the steps they agree whether η exceeds; correlation at least {CORRELATED:g}",
        lambda found: found[0] >= AGREE and found[1] >= CORRELATED,
    )
    figure = ("figure 12",)
    if len(exact) < 5 or np.ptp(exact) == 0 or np.ptp(kernel) == 0:
        ours = "not measured" if not len(exact) else f"{len(exact)} steps"
        why = f"The Hessian was {'not measured' if not len(exact) else 'measured at too few steps, or never changed'}."
        unless = "the Hessian was not measured at five steps, or never changed"
        return claim(statement, theirs, ours, allowed, (0, 0), why, unless=unless, shown_in=figure)
    correlation, difference = float(np.corrcoef(exact, kernel)[0, 1]), 100 * np.abs(kernel / exact - 1)
    agree = 100 * float((run.hessian_exceeds == (run.rate_with_hessian > exact)).mean())
    ours = f"agree on {agree:.0f} % of {len(exact)} steps; correlation {correlation:.3f}, "
    ours += f"at worst {difference.max():.0f} % apart"
    above = run.hessian_exceeds
    parts = [
        f"{words} it is {np.median(of):.1f} % in the median, {np.quantile(of, 0.9):.0f} % at the nine-in-ten mark and "
        f"{of.max():.0f} % at worst"
        for words, of in (("where η exceeds b/‖K_batch‖", difference[above]), ("elsewhere", difference[~above]))
        if len(of)
    ]
    return claim(
        statement,
        theirs,
        ours,
        allowed,
        (agree, correlation),
        f"At {len(exact)} steps both critical rates of the batch were measured. On {agree:.0f} % of them both say the "
        f"same about whether η exceeds. Their correlation is {correlation:.3f}. As for their difference, "
        f"{', and '.join(parts)}.",
        shown_in=figure,
    )


def _converged(run: SGDRun) -> Claim:
    h, goal = run.history, run.experiment.stop_below
    end = "diverges" if h.diverged else f"{number(_last(h.loss))} after {len(h)} steps"
    sentence = "The run diverges." if h.diverged else f"The run ends at a loss of {end}."
    if goal and not (h.diverged or h.converged):
        sentence += f" It would have stopped at a loss below {number(goal)}."
    unless = "" if h.diverged or h.converged else "the training was ended before"
    return claim(
        "training converges",
        f"to a loss below {GOAL} (appendix F.3)",
        end,
        Tolerance(f"a loss below {GOAL}", lambda converged: converged),
        h.converged,
        sentence,
        unless=unless if goal == GOAL else f"it has another goal than {GOAL}",
    )


def _unmeasured(run: SGDRun) -> str:
    return "the kernel was not measured at a spike's start and peak" if run.spikes else NONE


def _last(loss: np.ndarray) -> float:
    return float(loss[np.isfinite(loss)][-1])


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _overall(factor: float) -> str:
    """What a factor does."""
    return f"{'shrinks' if factor < 1 else 'grows'} by a factor of {number(factor)} overall"


def _spikes_of(count: int) -> str:
    return "1 spike" if count == 1 else f"{count} spikes" if count else "no spike"
