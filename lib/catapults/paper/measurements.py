"""What trainings of section 4 are compared by, and how its values are written."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..experiments.causes import Without
from ..experiments.fits import Fitted, Strong, undiverged
from .statistics import resolution


@dataclass(frozen=True)
class Measurement:
    """A number that a training ends with.

    ``title``: as in the middle of a sentence. ``of``: takes it from a result; NaN where there is none. ``better``: 1
    where more is better, -1 where less is. ``digits``: decimals that are written. ``percent``: it is a fraction.
    """

    title: str
    of: Callable[[Any], float]
    better: Literal[1, -1]
    digits: int = 3
    percent: bool = False

    def mean(self, results: Iterable[Fitted | Without]) -> float:
        """Over trainings; NaN where none has it."""
        return mean_and_deviation(self.of(result) for result in results)[0]

    def write(self, value: float) -> str:
        """The value as text."""
        if math.isnan(value):
            return "–"
        return f"{100 * value:.{self.digits}f} %" if self.percent else f"{value:.{self.digits}f}"

    def write_mean(self, results: Iterable[Fitted | Without]) -> str:
        """Mean and standard deviation over trainings as text."""
        mean, deviation = mean_and_deviation(self.of(result) for result in results)
        if math.isnan(mean) or math.isnan(deviation):
            return self.write(mean)
        factor, unit = (100, " %") if self.percent else (1, "")
        return f"{factor * mean:.{self.digits}f} ± {factor * deviation:.{self.digits}f}{unit}"


ALIGNMENT = Measurement("alignment", lambda r: r.alignment, 1)
CATAPULTS = Measurement("number of catapults", lambda r: float(catapults_of(r)), 1, 0)  # of gradient descent
STEPS_ABOVE = Measurement("number of steps above the batch's critical rate", lambda r: float(r.catapults), 1, 0)


TEST_LOSS = Measurement("test loss", lambda r: r.test_loss, -1)  # as Table 1 has it
NORM = Measurement("‖K‖ at the best weights over ‖K‖ at first", lambda r: r.norms[1] / r.norms[0], 1, 2)


def catapults_of(result: Fitted) -> int:
    """Of gradient descent: peaks by a factor of two in whose rise the rate exceeds the critical one, where that was
    measured."""
    return result.spikes if result.spikes_above is None else result.spikes_above


def performance(measure: Literal["loss", "error"]) -> Measurement:
    """On the test set: the fraction of the targets' variance that is left unexplained (FVU) for regression, where 1 is
    what a constant does; the error for classes."""
    if measure == "error":
        return Measurement("test error", lambda r: r.test_error, -1, 1, percent=True)
    return Measurement("test FVU", lambda r: r.test_loss / r.test_variance, -1)


FVU = performance("loss")


def validation(measure: Literal["loss", "error"]) -> Measurement:
    """The same on the validation set, at its best; over the variance of the test targets."""
    if measure == "error":
        return Measurement("best validation error", lambda r: r.best_validation, -1, 1, percent=True)
    return Measurement("best validation FVU", lambda r: r.best_validation / r.test_variance, -1)


def linear_fvu(results: Iterable[Fitted]) -> float:
    """Of the best linear predictor, the mean over trainings; NaN for classes."""
    return mean_and_deviation(r.linear_test_loss / r.test_variance for r in results)[0]


def told_apart(results: Iterable[Fitted], measure: Literal["loss", "error"], images: int) -> float:
    """The difference of mean test errors that so many test images in all tell apart; 0 for regression."""
    mean = Measurement("", lambda r: r.test_error, -1).mean(undiverged(results))
    return 0.0 if measure == "loss" or math.isnan(mean) else resolution(mean, images)


LEARNED, CHANCE = 0.9, 0.5  # of the best linear predictor's FVU, and of the error by chance, that must be undercut


def nothing_to_compare(results: Sequence[Fitted], strong: Strong | None, classes: int) -> str:
    """Why trainings cannot tell who learns better; empty where they can.

    ``strong``: the model that stands for f*, ``None`` where it is exact; ``classes``: of the task.
    """
    known = [r for r in results if not r.diverged]
    if not known:
        return "all trainings diverge"
    if strong is not None and strong.test_error > CHANCE * (1 - 1 / classes):
        return f"the strong model is hardly better than chance: it gets {100 * strong.test_error:.0f} % wrong"
    best, linear = min(performance("loss").of(r) for r in known), linear_fvu(known)
    if best > LEARNED * linear:
        return (
            f"nothing is learned that could be told apart: the best FVU is {best:.2f}, and {linear:.2f} that of the "
            "best linear predictor"
        )
    return ""


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
