"""Which criterion separates the trainings whose spikes lower the norm of the kernel from the others."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..display import Text, number, table
from ..experiments.constant_kernel import share_of_rises
from ..experiments.stability import FALL, LINES, Criterion, StabilityRun, Watched
from .claims import OURS, Claim, Claims, at_least, at_most, claim, over_seeds
from .correlation import spearman

WORDS: dict[Criterion, str] = {
    "mean_square": "S, the mean square",
    "trace": "η tr(K)/(n b), the trace",
    "sharpness": "batch sharpness over 2/η",
    "exceeded": "share of batches above their critical rate",
    "critical": "η over the critical rate",
}
SEPARATES = at_least(0.9)  # balanced accuracy; 0.5 is chance


def claims(runs: Sequence[StabilityRun]) -> Claims:
    return over_seeds([_of_one_seed(run) for run in runs])


def criteria_table(runs: Sequence[StabilityRun]) -> Text:
    """For each criterion at initialisation: how well its line separates, and how well it orders, the trainings."""
    rows = []
    for name, words in WORDS.items():
        every = [accuracy(run, name) for run in runs]
        without = [accuracy(run, name, divergent=False) for run in runs]
        plain, beside = ([rank_correlation(run, name, to) for run in runs] for to in (False, True))
        rows.append((words, f"{LINES[name]:g}", *(_range(values) for values in (every, without, plain, beside))))
    header = (
        "criterion at initialisation",
        "line",
        "balanced accuracy",
        "without those that diverge",
        "rank correlation with the fall of ‖K‖",
        "the same beside the largest batch",
    )
    return Text(table(header, rows))


def robustness_table(runs: Sequence[StabilityRun]) -> Text:
    """The balanced accuracy of each criterion, with other choices of what counts."""
    ways = {f"‖K‖ lower by {100 * fall:g} %": {"fall": fall} for fall in (0.01, 0.02, FALL, 0.1)}
    ways |= {"most spikes lower ‖K‖": {"by_spikes": True}}
    ways |= {"at equal η × steps": {"equal_time": True}, "without η > η_crit": {"subcritical": True}}
    rows = [
        (words, *(_range([accuracy(run, name, **options) for run in runs]) for options in ways.values()))
        for name, words in WORDS.items()
    ]
    return Text(table(("criterion", *ways), rows))


def map_table(runs: Sequence[StabilityRun]) -> Text:
    """What became of each batch size at each rate: medians over the seeds that do not diverge."""
    rows = []
    for cell in runs[0].trainings:
        of = [run.trainings[cell] for run in runs]
        known = [t for t in of if not t.result.diverged]
        values = [_range_of(known, value, form) for value, form in _COLUMNS.values()]
        S = _range_of(of, lambda t: t.criterion("mean_square"), "{:.2f}")
        diverged = f"{len(of) - len(known)} of {len(of)}"
        rows.append((str(cell[0]), f"{cell[1]:g}", S, diverged, *values))
    header = ("b", "η / η_crit", "S at first", "diverge", *_COLUMNS)
    return Text(table(header, rows))


_COLUMNS: dict[str, tuple[Callable[[Watched], float], str]] = {
    "spikes": (lambda t: float(len(t.spikes)), "{:.0f}"),
    "over which ‖K‖ falls": (lambda t: float(t.lowering), "{:.0f}"),
    "steps above": (lambda t: 100 * t.steps_above, "{:.0f} %"),
    "change of ‖K‖": (lambda t: -100 * t.fall, "{:+.1f} %"),
    "change of tr(K)": (lambda t: 100 * float(t.result.trace[-1] / t.result.trace[0] - 1), "{:+.0f} %"),
    "test FVU": (lambda t: t.test, "{:.2f}"),
}


def one_spike(runs: Sequence[StabilityRun]) -> Text:
    """By how much a spike changes ``||K||``, in a sentence."""
    every = [t for run in runs for t in run.undiverged]
    changes = [100 * abs(math.expm1(c)) for t in every for s in t.spikes if not math.isnan(c := t.norm_change(s))]
    if not changes:
        return Text("There is no spike after which ‖K‖ was measured.")
    often = max(every, key=lambda t: len(t.spikes))
    return Text(
        f"Over one of the {len(changes)} spikes ‖K‖ changes by {number(np.median(changes))} % in the median, and by at "
        f"most {number(np.quantile(changes, 0.95))} % in 95 of 100. Where they come most often there is one every "
        f"{number(often.result.steps / max(len(often.spikes), 1))} steps, and ‖K‖ is measured every "
        f"{often.experiment.norm_every}: what is lost cannot be divided among them."
    )


def doubts(runs: Sequence[StabilityRun]) -> Text:
    """On how much the comparison of the criteria rests: the gap around the cut, and where the lines part."""
    falls = {o: [100 * t.fall for run in runs for t in run.outcomes(o)] for o in ("calm", "falling")}
    said = []
    if all(falls.values()):
        said.append(
            f"Calm trainings lose at most {number(max(falls['calm']))} % of ‖K‖, falling ones at least "
            f"{number(min(falls['falling']))} %: any cut in between is the same as ours of {100 * FALL:g} %."
        )
    parted = [
        cell
        for cell in runs[0].trainings
        if cell[1] <= 1
        and any(_side(t, "mean_square") != _side(t, "exceeded") for t in (run.trainings[cell] for run in runs))
    ]
    listed = ", ".join(f"b = {b} at {m:g} η_crit" for b, m in parted) or "none"
    said.append(
        f"Up to the critical rate, S = 1 and the paper's criterion part in {len(parted)} of "
        f"{sum(m <= 1 for _, m in runs[0].trainings)} fields, in any seed: {listed}."
    )
    if parted:
        there = [run.trainings[cell] for run in runs for cell in parted]
        S = [t.criterion("mean_square") for t in there]
        said.append(
            f"There S is {number(min(S))} to {number(max(S))}, {sum(t.result.diverged for t in there)} of {len(there)} "
            f"trainings diverge, and ‖K‖ loses {_range([100 * t.fall for t in there])} %."
        )
    return Text(" ".join(said))


def _side(training: Watched, name: Criterion) -> bool:
    return training.criterion(name) >= LINES[name]


def best(runs: Sequence[StabilityRun]) -> Text:
    """Where the test FVU is lowest, and what S is there, in a sentence."""
    medians = {
        cell: float(np.median(values))
        for cell in runs[0].trainings
        if not np.isnan(values := [run.trainings[cell].test for run in runs]).any()
    }
    if not medians:
        return Text("All trainings diverge in some seed.")
    order = sorted(medians, key=medians.get)[:3]
    S = [float(np.median([run.trainings[cell].criterion("mean_square") for run in runs])) for cell in order]
    listed = "; ".join(
        f"{medians[cell]:.2f} at b = {cell[0]} and {cell[1]:g} η_crit (S = {'∞' if math.isinf(s) else f'{s:.2f}'})"
        for cell, s in zip(order, S, strict=True)
    )
    return Text(f"The lowest test FVUs, medians over the seeds, are {listed}.")


def _range_of(of: Sequence[Watched], value: Callable[[Watched], float], form: str) -> str:
    return form.format(float(np.median([value(t) for t in of]))) if of else "–"


def half_of_steps(multiples: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9), steps: int = 40_000) -> Text:
    """The theorem on a constant kernel, by simulation: residuals that are normal, and residuals that are not."""
    generator = np.random.default_rng(0)
    normal, skewed = generator.normal(size=100_000), generator.exponential(size=100_000)
    kinds = {"normal, b = 1": (normal, 1), "normal, b = 5": (normal, 5)}
    kinds |= {"exponential, b = 1": (skewed, 1), "exponential, b = 5": (skewed, 5)}
    rows = [
        (words, *(f"{100 * share_of_rises(d, m, b, steps):.1f} %" for m in multiples))
        for words, (d, b) in kinds.items()
    ]
    return Text(table(("deviations of the residuals", *(f"{m:g} η_crit" for m in multiples)), rows))


def accuracy(
    run: StabilityRun,
    name: Criterion,
    fall: float = FALL,
    *,
    divergent: bool = True,
    by_spikes: bool = False,
    equal_time: bool = False,
    subcritical: bool = False,
) -> float:
    """Balanced accuracy, the mean of the shares of unstable and of calm trainings on the right side of a criterion's
    line at initialisation. Unstable are those that diverge, and those in which ``||K||`` falls by more than ``fall``.

    ``divergent``: with those that diverge. ``by_spikes``: unstable are, instead of the latter, those with spikes of
    which most lower ``||K||``. ``equal_time``: each only up to the eta times steps that the smallest rate
    takes in all its steps. ``subcritical``: only rates below the critical one. NaN without both kinds.
    """
    chosen = [t for t in run.trainings.values() if divergent or not t.result.diverged]
    chosen = [t for t in chosen if not subcritical or t.multiple < 1]
    unstable = np.array([_unstable(t, fall, equal_time, by_spikes) for t in chosen])
    above = np.array([_side(t, name) for t in chosen])
    if unstable.all() or not unstable.any():
        return math.nan
    return float((above[unstable].mean() + (~above[~unstable]).mean()) / 2)


def rank_correlation(run: StabilityRun, name: Criterion, beside_largest: bool = False) -> float:
    """Between the criterion at initialisation and the fall of ``||K||``, over the trainings that do not diverge.

    ``beside_largest``: of the fall, that of the largest batch at the same rate is taken off, below the critical rate:
    what is left is due to the batches.
    """
    every = run.undiverged
    falls = [t.fall for t in every]
    if beside_largest:
        largest = run.experiment.batch_sizes[-1]
        every = [t for t in every if t.multiple < 1 and t.batch_size < largest]
        falls = [t.fall - run.trainings[largest, t.multiple].fall for t in every]
    values = np.nan_to_num([t.criterion(name) for t in every], posinf=np.finfo(float).max)
    return spearman(values, falls)


def _unstable(training: Watched, fall: float = FALL, equal_time: bool = False, by_spikes: bool = False) -> bool:
    if training.result.diverged:
        return True
    if by_spikes:
        return 2 * training.lowering > len(training.spikes)
    if not equal_time:
        return training.fall > fall
    e = training.experiment
    return training.fall_until(int(e.steps * e.multiples[0] / training.multiple)) > fall


def _range(values: Sequence[float]) -> str:
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return "–"
    middle, low, high = (f"{of(known):.2f}" for of in (np.median, min, max))
    return middle if low == high else f"{middle} ({low} to {high})"


def _of_one_seed(run: StabilityRun) -> Claims:
    found = {name: _separates(run, name) for name in WORDS}
    return Claims(found | {"order": _order(run), "divergence": _divergence(run), "settles": _settles(run)})


def _separates(run: StabilityRun, name: Criterion) -> Claim:
    value = accuracy(run, name)
    wrong = [t for t in run.trainings.values() if _side(t, name) != _unstable(t)]
    listed = ", ".join(f"b = {t.batch_size} at {t.multiple:g} η_crit" for t in wrong)
    return claim(
        f"{WORDS[name]} at initialisation separates: unstable from {LINES[name]:g} on",
        "not stated; a measurement of this book",
        f"balanced accuracy {value:.2f}" + (f"; wrong: {listed}" if wrong else ""),
        SEPARATES,
        value,
        f"By {WORDS[name]}, {len(run.trainings) - len(wrong)} of {len(run.trainings)} trainings are on the right side "
        "of the line" + (f"; not {listed}." if wrong else "."),
        unless="" if not math.isnan(value) else "all trainings are alike",
        unit="{:.2f}",
        shown_in=(OURS,),
    )


def _order(run: StabilityRun) -> Claim:
    value = rank_correlation(run, "mean_square", beside_largest=True)
    others = ", ".join(
        f"{words}: {rank_correlation(run, name, beside_largest=True):.2f}"
        for name, words in WORDS.items()
        if name != "mean_square"
    )
    return claim(
        "the larger S at initialisation, the more of ‖K‖ is lost beside the largest batch at the same rate",
        "not stated; a measurement of this book",
        f"rank correlation {value:.2f}",
        SEPARATES,
        value,
        "Beside the largest batch at the same rate, the more of ‖K‖ is lost the larger S is at initialisation: the "
        f"rank correlation is {value:.2f} ({others}). Of the plain fall it is "
        f"{rank_correlation(run, 'mean_square'):.2f}.",
        unless="" if not math.isnan(value) else "fewer than three trainings to compare",
        unit="{:.2f}",
        shown_in=(OURS,),
    )


def _divergence(run: StabilityRun) -> Claim:
    diverged = run.outcomes("divergent")
    values = [t.criterion("mean_square") for t in diverged]
    lowest = min(values, default=math.nan)
    falling = [t.criterion("mean_square") for t in run.outcomes("falling")]
    largest = "infinite" if falling and math.isinf(max(falling)) else number(max(falling, default=math.nan))
    beside = f"; where ‖K‖ falls S is {number(min(falling))} to {largest}" if falling else ""
    return claim(
        "no training diverges with S below 1 at initialisation",
        "not stated; a measurement of this book",
        f"{len(diverged)} diverge, the smallest S among them is {number(lowest)}",
        at_least(1),
        lowest,
        f"{len(diverged)} of {len(run.trainings)} trainings diverge, with S of {number(lowest)} or more{beside}.",
        unless="" if diverged else "no training diverges",
        unit="{:.2f}",
        shown_in=(OURS,),
    )


def _settles(run: StabilityRun) -> Claim:
    chosen = [t for t in run.undiverged if t.criterion("mean_square") >= 1]
    last = max((t.criterion("mean_square", -1) for t in chosen), default=math.nan)
    later = [t.criterion("mean_square", k) for t in chosen for k in range(1, len(t.result.measured))]
    middle = f"later S has a median of {number(np.median(later))}" if later else ""
    still = [t for t in chosen if t.criterion("mean_square", -1) >= 1]
    not_yet = f" ({', '.join(f'b = {t.batch_size} at {t.multiple:g} η_crit' for t in still)})" if still else ""
    return claim(
        "trainings that begin with S above 1 and do not diverge bring it below 1",
        "not stated; a measurement of this book",
        f"{len(chosen)} trainings; the largest S at their ends is {number(last)}",
        at_most(1),
        last,
        f"{len(chosen)} trainings begin with S of 1 or more and do not diverge: {middle}, and at their ends it is "
        f"{number(last)} at most{not_yet}.",
        unless="" if chosen else "no such training",
        unit="{:.2f}",
        shown_in=(OURS,),
    )
