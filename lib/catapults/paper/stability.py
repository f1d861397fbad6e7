"""Which criterion separates the trainings whose spikes lower the norm of the kernel from the others (chapter 7)."""

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
        order = [rank_correlation(run, name) for run in runs]
        rows.append((words, f"{LINES[name]:g}", *(_range(values) for values in (every, without, order))))
    header = (
        "criterion at initialisation",
        "line",
        "balanced accuracy",
        "without those that diverge",
        "rank correlation with the fall of ‖K‖",
    )
    return Text(table(header, rows))


def robustness_table(runs: Sequence[StabilityRun]) -> Text:
    """The balanced accuracy of each criterion, with other choices of what counts."""
    ways = {f"‖K‖ lower by {100 * fall:g} %": {"fall": fall} for fall in (0.01, 0.02, FALL, 0.1)}
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
    equal_time: bool = False,
    subcritical: bool = False,
) -> float:
    """Balanced accuracy, the mean of the shares of unstable and of calm trainings on the right side of a criterion's
    line at initialisation. Unstable are those that diverge, and those in which ``||K||`` falls by more than ``fall``.

    ``divergent``: with those that diverge. ``equal_time``: each only up to the eta times steps that the smallest rate
    takes in all its steps. ``subcritical``: only rates below the critical one. NaN without both kinds.
    """
    chosen = [t for t in run.trainings.values() if divergent or not t.result.diverged]
    chosen = [t for t in chosen if not subcritical or t.multiple < 1]
    unstable = np.array([_unstable(t, fall, equal_time) for t in chosen])
    above = np.array([t.criterion(name) >= LINES[name] for t in chosen])
    if unstable.all() or not unstable.any():
        return math.nan
    return float((above[unstable].mean() + (~above[~unstable]).mean()) / 2)


def rank_correlation(run: StabilityRun, name: Criterion) -> float:
    """Between the criterion at initialisation and the fall of ``||K||``, over the trainings that do not diverge."""
    every = run.undiverged
    values = np.nan_to_num([t.criterion(name) for t in every], posinf=np.finfo(float).max)
    return spearman(values, [t.fall for t in every])


def _unstable(training: Watched, fall: float, equal_time: bool) -> bool:
    if training.result.diverged:
        return True
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
    wrong = [
        t for t in run.trainings.values() if (t.criterion(name) >= LINES[name]) != _unstable(t, FALL, equal_time=False)
    ]
    listed = ", ".join(f"b = {t.batch_size} at {t.multiple:g} η_crit" for t in wrong)
    paper = "a catapult where η exceeds η_crit(X_batch) (section 3.3)" if name == "exceeded" else "not stated"
    return claim(
        f"{WORDS[name]} at initialisation separates: unstable from {LINES[name]:g} on",
        paper,
        f"balanced accuracy {value:.2f}" + (f"; wrong: {listed}" if wrong else ""),
        SEPARATES,
        value,
        f"{WORDS[name][:1].upper()}{WORDS[name][1:]} puts {len(run.trainings) - len(wrong)} of {len(run.trainings)} "
        f"trainings on the right side of its line" + (f"; not {listed}." if wrong else "."),
        unless="" if not math.isnan(value) else "all trainings are alike",
        unit="{:.2f}",
        shown_in=() if name == "exceeded" else (OURS,),
    )


def _order(run: StabilityRun) -> Claim:
    value = rank_correlation(run, "mean_square")
    others = ", ".join(f"{WORDS[name]}: {rank_correlation(run, name):.2f}" for name in WORDS if name != "mean_square")
    return claim(
        "the larger S at initialisation, the more of ‖K‖ is lost",
        "not stated; a measurement of this book",
        f"rank correlation {value:.2f}",
        SEPARATES,
        value,
        f"Over the {len(run.undiverged)} trainings that do not diverge, the rank correlation of the fall of ‖K‖ with S "
        f"is {value:.2f} ({others}).",
        unless="" if not math.isnan(value) else "fewer than three trainings do not diverge",
        unit="{:.2f}",
        shown_in=(OURS,),
    )


def _divergence(run: StabilityRun) -> Claim:
    diverged = run.outcomes("divergent")
    values = [t.criterion("mean_square") for t in diverged]
    lowest = min(values, default=math.nan)
    falling = [t.criterion("mean_square") for t in run.outcomes("falling")]
    beside = f"; where ‖K‖ falls S is {number(min(falling))} to {number(max(falling))}" if falling else ""
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
    return claim(
        "trainings that begin with S above 1 and do not diverge bring it below 1",
        "not stated; a measurement of this book",
        f"{len(chosen)} trainings; the largest S at their ends is {number(last)}",
        at_most(1),
        last,
        f"{len(chosen)} trainings begin with S of 1 or more and do not diverge: {middle}, and at their ends it is "
        f"{number(last)} at most.",
        unless="" if chosen else "no such training",
        unit="{:.2f}",
        shown_in=(OURS,),
    )
