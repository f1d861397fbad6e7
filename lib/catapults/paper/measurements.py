"""What trainings of section 4 are compared by, and how its values are written."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..experiments.fits import Fitted, undiverged


@dataclass(frozen=True)
class Measurement:
    """A number that a training ends with.

    ``title``: as in the middle of a sentence. ``of``: takes it from a result; NaN where there is none. ``better``: 1
    where more is better, -1 where less is. ``digits``: decimals that are written. ``percent``: it is a fraction.
    """

    title: str
    of: Callable[[Fitted], float]
    better: Literal[1, -1]
    digits: int = 3
    percent: bool = False

    def mean(self, results: Iterable[Fitted]) -> float:
        """Over trainings; NaN where none has it."""
        return mean_and_deviation(self.of(result) for result in results)[0]

    def write(self, value: float) -> str:
        """The value as text."""
        if math.isnan(value):
            return "–"
        return f"{100 * value:.{self.digits}f} %" if self.percent else f"{value:.{self.digits}f}"

    def write_mean(self, results: Iterable[Fitted]) -> str:
        """Mean and standard deviation over trainings as text."""
        mean, deviation = mean_and_deviation(self.of(result) for result in results)
        if math.isnan(mean) or math.isnan(deviation):
            return self.write(mean)
        factor, unit = (100, " %") if self.percent else (1, "")
        return f"{factor * mean:.{self.digits}f} ± {factor * deviation:.{self.digits}f}{unit}"


ALIGNMENT = Measurement("alignment", lambda r: r.alignment, 1)
CATAPULTS = Measurement("number of catapults", lambda r: float(r.spikes), 1, 0)  # of gradient descent
STEPS_ABOVE = Measurement("number of steps above the batch's critical rate", lambda r: float(r.catapults), 1, 0)


def performance(measure: Literal["loss", "error"]) -> Measurement:
    """On the test set."""
    return _of(measure, f"test {measure}", lambda r: r.test)


def validation(measure: Literal["loss", "error"]) -> Measurement:
    """On the validation set, at its best."""
    return _of(measure, f"best validation {measure}", lambda r: r.best_validation)


def _of(measure: Literal["loss", "error"], title: str, of: Callable[[Fitted], float]) -> Measurement:
    return Measurement(title, of, -1) if measure == "loss" else Measurement(title, of, -1, 1, percent=True)


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float]:
    """Of those that are finite; NaN where there are too few."""
    known = np.array([value for value in values if math.isfinite(value)])
    return (
        float(known.mean()) if len(known) else math.nan,
        float(known.std(ddof=1)) if len(known) > 1 else math.nan,
    )


def without_diverged(results: Sequence[Fitted]) -> str:
    """A note on those that are left out; empty where there are none."""
    diverged = len(results) - len(undiverged(results))
    which = f"{diverged} of {len(results)} trainings, which diverge{'s' * (diverged == 1)}"
    return f"left out: {which}" if diverged else ""


def ends(results: Sequence[Fitted]) -> str:
    """How many of them converge and diverge."""
    diverged = len(results) - len(undiverged(results))
    converged = sum(result.converged for result in results)
    return f"{converged} of {len(results)}" + (f", {diverged} diverge{'s' * (diverged == 1)}" if diverged else "")
