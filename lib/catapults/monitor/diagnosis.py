"""Why a loss has risen: whether the rate exceeded the critical one, what fell after, and where the loss rose."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .. import catapult

Kind = Literal["catapult", "unstable", "stable", "unmeasured", "diverged"]
_FELL = 0.95  # of the norm or the sharpness before, below which it counts as fallen
_NEAR = 20  # measurements on each side of a rise that are looked at for the norm and the sharpness


@dataclass(frozen=True)
class Diagnosis:
    """Of one spike.

    - ``kind``: ``"catapult"``, the rate exceeded the critical one in the rise or at the last measurement before, and
      the curvature fell; ``"unstable"``, it exceeded and the curvature did not fall, or that is not known;
      ``"stable"``, it did not exceed at any measured step of the rise; ``"unmeasured"``; ``"diverged"``, the loss rose
      and did not come back.
    - ``excess``: the largest rate over critical rate among the ``measured`` steps, of which ``above`` exceeded.
    - ``fall``: curvature after over curvature before; that of the probe's norm where there is one, else of the batches'
      median sharpness; NaN where unknown.
    - ``share``: of the rise of the probe's squared residual, the part in the kernel's top eigenspace.
    """

    kind: Kind
    start: int
    peak: int
    end: int
    rise: float
    excess: float
    above: int
    measured: int
    fall: float
    by_norm: bool
    share: float

    def __str__(self) -> str:
        where = f"step {self.start} to {self.end}"
        what = f"{where}: the loss rose {_times(self.rise)} (peak at step {self.peak})"
        if self.kind == "diverged":
            what = f"from step {self.start}: the loss rose {_times(self.rise)} and did not come back"
        known = f"{what}. {self._rate()}{self._curvature()}{self._direction()}"
        return f"{known} {_ADVICE[self.kind]}"

    def _rate(self) -> str:
        if not self.measured:
            return "No step of the rise was measured."
        steps = f"{self.above} of {self.measured} measured steps"
        if not self.above:
            return (
                f"The rate stayed below the critical one, at most {self.excess:.2g} times it, at {_of(self.measured)}."
            )
        return f"The rate exceeded the critical one at {steps}, by up to a factor of {self.excess:.3g}."

    def _curvature(self) -> str:
        if math.isnan(self.fall):
            return ""
        what = "The kernel's norm" if self.by_norm else "The batches' sharpness"
        if self.fall < _FELL:
            return f" {what} fell to {self.fall:.0%} of what it was."
        return f" {what} did not fall ({self.fall:.0%} of what it was)."

    def _direction(self) -> str:
        if math.isnan(self.share):
            return ""
        return f" Of the rise on the probe {self.share:.0%} lay in the top eigendirections of the kernel."


_ADVICE = {
    "catapult": "A catapult: the rate was too large for the curvature, and training moved to where it is not.",
    "unstable": "The rate was too large for the curvature; a fall of the curvature was not seen.",
    "stable": "No instability of the rate was seen: look at the batch and its targets, or measure more often.",
    "unmeasured": "Measure more often to know why.",
    "diverged": "A smaller rate, a warm-up, or CriticalRate would be the next thing to try.",
}


def _times(factor: float) -> str:
    return f"{factor:.3g}-fold" if math.isfinite(factor) else "beyond all numbers"


def _of(measured: int) -> str:
    return "the one measured step" if measured == 1 else f"all {measured} measured steps"


def diagnosed(columns: Mapping[str, np.ndarray], rise: float) -> list[Diagnosis]:
    """Of every spike of the loss and of a rise at the end that does not come back, in their order."""
    loss = np.where(np.isfinite(columns["loss"]) & (columns["loss"] >= 0), columns["loss"], np.nan)
    found = [
        _diagnosis(columns, spike.start, spike.peak, spike.end, loss[spike.peak] / loss[spike.start], False)
        for spike in catapult.spikes(loss, rise)
    ]
    last = found[-1].end if found else 0
    rest = loss[last:]
    overflows = np.flatnonzero(~np.isnan(columns["loss"]) & ~np.isfinite(columns["loss"]))
    if len(overflows) and np.isfinite(rest).any():
        low = last + int(np.nanargmin(rest[: max(1, overflows[0] - last)])) if overflows[0] > last else last
        found.append(_diagnosis(columns, low, int(overflows[0]), len(loss) - 1, math.inf, True))
    elif np.isfinite(rest).any():
        low = last + int(np.nanargmin(rest))
        end = np.flatnonzero(np.isfinite(loss))[-1]
        if loss[low] > 0 and loss[end] >= 10 * rise * loss[low]:
            found.append(_diagnosis(columns, low, int(end), int(end), loss[end] / loss[low], True))
    return found


def _diagnosis(
    columns: Mapping[str, np.ndarray], start: int, peak: int, end: int, factor: float, diverged: bool
) -> Diagnosis:
    ratio = columns["applied"] / columns["critical"]
    before = np.flatnonzero(np.isfinite(ratio[: start + 1]))
    first = before[-1] if len(before) else start  # the last measurement before the rise belongs to it
    ratios = ratio[first : peak + 1]
    ratios = ratios[np.isfinite(ratios)]
    above = int((ratios > 1 + catapult.EPSILON).sum())
    fall, by_norm = _fall(columns, start, peak, end)
    kind: Kind = "unmeasured" if not len(ratios) else "stable" if not above else "unstable"
    if diverged:
        kind = "diverged"
    elif kind == "unstable" and fall < _FELL:
        kind = "catapult"
    excess = float(ratios.max()) if len(ratios) else math.nan
    steps = (int(columns["step"][index]) for index in (start, peak, end))
    return Diagnosis(
        kind, *steps, float(factor), excess, above, len(ratios), fall, by_norm, _share(columns, start, peak)
    )


def _fall(columns: Mapping[str, np.ndarray], start: int, peak: int, end: int) -> tuple[float, bool]:
    for name, by_norm in (("norm", True), ("sharpness", False)):
        there = np.flatnonzero(np.isfinite(columns[name]))
        before, after = there[there <= start], there[there >= end]
        if len(before) and len(after):
            if by_norm:
                values = columns[name][before[-1]], columns[name][after[0]]
            else:  # batches differ: medians of as many on both sides
                k = min(_NEAR, len(before), len(after))
                values = np.median(columns[name][before[-k:]]), np.median(columns[name][after[:k]])
            if values[0] > 0:
                return float(values[1] / values[0]), by_norm
    return math.nan, False


def _share(columns: Mapping[str, np.ndarray], start: int, peak: int) -> float:
    there = np.flatnonzero(np.isfinite(columns["top"]))
    before, after = there[there <= start], there[(there > start) & (there <= peak + 1)]
    if not len(before) or not len(after):
        return math.nan
    high = after[np.argmax(columns["top"][after] + columns["rest"][after])]
    top, rest = (columns[name][high] - columns[name][before[-1]] for name in ("top", "rest"))
    return float(top / (top + rest)) if top + rest > 0 else math.nan
