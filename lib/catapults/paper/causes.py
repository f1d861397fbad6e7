"""Whether a gain in test performance and alignment is lost with the catapults (chapter 6), against what the paper
argues in section 4."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..display import Text, number, table
from ..experiments.causes import CausesRun, Without, above, arm_words, best_step, control_words, group_words
from ..experiments.fits import Fitted
from .claims import NOT_COMPARED, OURS, REPRODUCED, Claim, Claims, of_share
from .measurements import ALIGNMENT, FVU, NORM, Measurement
from .statistics import differs

HALF = 0.5  # of the gain: what is kept less of is lost
_RESAMPLES = 4000
MEASURED = {"test": FVU, "alignment": ALIGNMENT}  # FVU for classes, too: few test images tell errors little apart

Result = Fitted | Without


@dataclass(frozen=True)
class Kept:
    """The share of a gain that is kept: (control - intervened) / (control - as it is), of the means over the seeds in
    which none of the three diverges. ``interval``: of 95 %, by resampling the seeds. NaN where there is no gain."""

    share: float
    interval: tuple[float, float]
    seeds: int

    def __str__(self) -> str:
        if math.isnan(self.share):
            return "–"
        share, low, high = (round(100 * value) for value in (self.share, *self.interval))
        return f"{share} %" + (f" ({low} to {high})" if self.seeds > 2 else "")


def kept(runs: Sequence[CausesRun], group: str, arm: str, measurement: Measurement) -> Kept:
    """Over all seeds."""
    values = np.array([row for row in (_three(run, group, arm, measurement) for run in runs) if row is not None])
    if not _gain(values):
        return Kept(math.nan, (math.nan, math.nan), len(values))
    drawn = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    means = values[drawn].mean(1)
    shares = (means[:, 2] - means[:, 1]) / (means[:, 2] - means[:, 0])
    whole, arm_, control = values.mean(0)
    low, high = np.quantile(shares, (0.025, 0.975))
    return Kept(float((control - arm_) / (control - whole)), (float(low), float(high)), len(values))


def kept_by_seed(run: CausesRun, group: str, arm: str, measurement: Measurement) -> float:
    """Of one seed; NaN where one of the three diverges."""
    row = _three(run, group, arm, measurement)
    if row is None:
        return math.nan
    whole, intervened, control = row
    return (control - intervened) / (control - whole) if control != whole else math.nan


def decisive(run: CausesRun, group: str) -> str:
    """The intervention after which no step is above the critical rate, and all else as it was as far as possible."""
    return "follow" if group == "GD" else [arm for arm in run.groups[group] if arm.startswith("clip")][-1]


def claims(runs: Sequence[CausesRun]) -> Claims:
    """For every group: whether there is a gain, and whether it is lost without catapults. Over all seeds."""
    found: dict[str, Claim] = {}
    for group in runs[0].groups:
        for name, measurement in MEASURED.items():
            found[f"gain_{name}_{group}"] = _there_is_a_gain(runs, group, measurement)
            found[f"lost_{name}_{group}"] = _lost(runs, group, measurement)
    return Claims(found)


def arms_table(runs: Sequence[CausesRun], group: str) -> Text:
    """What each intervention does to one group's trainings, over all seeds."""
    rows = []
    for arm in runs[0].groups[group]:
        results = [run.groups[group][arm] for run in runs]
        finite = [r for r in results if not r.diverged]
        share = f"{100 * _mean(lambda r: above(r) / max(1, best_step(r)), finite):.0f} %" if finite else "–"
        shares = ["–" if arm in ("as it is", "control") else str(kept(runs, group, arm, m)) for m in MEASURED.values()]
        ended = f"{sum(r.converged for r in results)} of {len(results)}"
        diverged = sum(r.diverged for r in results)
        rows.append(
            (
                control_words(runs[0], group) if arm == "control" else arm_words(arm),
                share,
                *(f"{m.write_mean(finite)} | {s}" for m, s in zip(MEASURED.values(), shares, strict=True)),
                NORM.write_mean(finite),
                ended + (f", {diverged} diverge" if diverged else ""),
            )
        )
    split = [tuple(cell for part in row for cell in part.split(" | ")) for row in rows]
    header = (
        group_words(group),
        "steps above",
        FVU.title,
        "gain kept",
        ALIGNMENT.title,
        "gain kept",
        NORM.title,
        "converged",
    )
    return Text(table(header, split))


def headline(runs: Sequence[CausesRun]) -> Text:
    """One sentence for each group."""
    said = []
    for group in runs[0].groups:
        arm = decisive(runs[0], group)
        test, aligned = (kept(runs, group, arm, m) for m in MEASURED.values())
        start = "Gradient descent" if group == "GD" else f"SGD with batches of {group}"
        if math.isnan(test.share) and math.isnan(aligned.share):
            said.append(f"{start} has no gain here that its catapults could explain.")
            continue
        parts = [
            f"{kept_} of its gain in {name}"
            for name, kept_ in (("test performance", test), ("alignment", aligned))
            if not math.isnan(kept_.share)
        ]
        words = "gradient descent" if group == "GD" else start
        said.append(f"Without a step above the critical rate, {words} keeps {' and '.join(parts)}.")
    return Text(" ".join(said))


def _there_is_a_gain(runs: Sequence[CausesRun], group: str, measurement: Measurement) -> Claim:
    arm = decisive(runs[0], group)
    values = [row for row in (_three(run, group, arm, measurement) for run in runs) if row is not None]
    gains = [-measurement.better * (control - whole) for whole, _, control in values]
    held = sum(gain > 0 for gain in gains), len(gains)
    better = "higher" if measurement.better > 0 else "lower"
    control = control_words(runs[0], group)
    means = [f"{np.mean([row[k] for row in values]):.3f}" if values else "–" for k in (0, 2)]
    unless = "" if values else "in every seed one of the trainings diverges"
    return Claim(
        f"{group_words(group)}: the {measurement.title} is {better} than with the control ({control})",
        "catapults improve generalisation through alignment (section 4)",
        f"{means[0]} against {means[1]} in the mean",
        "in each seed by itself",
        NOT_COMPARED if unless else of_share(*held),
        f"With {group_words(group)} as they are the {measurement.title} is {means[0]}, with the control {means[1]}.",
        (OURS,),
        None if unless else held,
        why=unless,
    )


def _lost(runs: Sequence[CausesRun], group: str, measurement: Measurement) -> Claim:
    arm = decisive(runs[0], group)
    over_all = kept(runs, group, arm, measurement)
    shares = [kept_by_seed(run, group, arm, measurement) for run in runs]
    known = [share for share in shares if not math.isnan(share)]
    held = sum(share < HALF for share in known), len(known)
    unless = "there is no gain that could be lost" if math.isnan(over_all.share) else ""
    verdict = NOT_COMPARED if unless else of_share(*held)
    lost = "is lost" if verdict == REPRODUCED else "is kept" if held[0] == 0 else "is partly lost"
    what = arm_words(arm)
    return Claim(
        f"{group_words(group)}: without a step above the critical rate the gain in {measurement.title} is lost",
        "the spikes are what makes the difference (section 4)",
        f"kept: {over_all}, with {what}",
        f"less than {100 * HALF:.0f} % of the gain kept, in each seed by itself",
        verdict,
        f"With {group_words(group)} and {what}, so that no step is above the critical rate, "
        + (f"there was no gain in {measurement.title} to lose." if unless else f"{over_all} of the gain in "
           f"{measurement.title} is kept: it {lost}."),
        (OURS,),
        None if unless else held,
        why=unless,
    )  # fmt: skip


def _three(run: CausesRun, group: str, arm: str, measurement: Measurement) -> tuple[float, float, float] | None:
    """As it is, with an intervention, control; ``None`` where one of them diverges."""
    results = [run.groups[group][name] for name in ("as it is", arm, "control")]
    return None if any(r.diverged for r in results) else tuple(measurement.of(r) for r in results)


def _gain(values: np.ndarray) -> bool:
    """Whether as it is and control differ by more than chance over the seeds; for one seed, whether they do."""
    gains = [control - whole for whole, _, control in values]
    return bool(gains[0] != 0) if len(gains) == 1 else differs(gains)


def _mean(of: Callable[[Result], float], results: Sequence[Result]) -> float:
    return float(np.mean([of(r) for r in results])) if results else math.nan


def fork_sentence(runs: Sequence[CausesRun]) -> Text:
    """What single steps just below and well above the critical rate of their batch do."""
    forks = [run.fork for run in runs if run.fork is not None]
    if not forks:
        return Text("There are no single steps on this page.")
    multiples = np.array(runs[0].experiment.multiples)
    at = [int(np.abs(multiples - m).argmin()) for m in (1.0, 2.0)]
    whole = [np.concatenate([f.whole_loss[..., k].ravel() for f in forks]) for k in at]
    norm = [np.concatenate([f.norm[..., k].ravel() for f in forks]) for k in at]
    rises = [f"{100 * (w > 1).mean():.0f} %" for w in whole]
    falls = [f"{100 * (n < 1).mean():.0f} %" for n in norm]
    changes = [number(100 * abs(float(np.median(n)) - 1)) for n in norm]
    return Text(
        f"A step at {multiples[at[0]]:g} times the batch's critical rate raises the loss of the whole training set in "
        f"{rises[0]} of the cases and lowers ‖K‖ in {falls[0]}; the median change of ‖K‖ is {changes[0]} %. At "
        f"{multiples[at[1]]:g} times it these are {rises[1]}, {falls[1]} and {changes[1]} %."
    )
