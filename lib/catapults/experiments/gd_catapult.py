"""Full-batch gradient descent at one learning rate: chapter 1's catapults."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from pydantic import field_validator

from ..history import History
from ..schedules import LearningRate
from .base import Page, PositiveInt, Rate
from .descent import Descending, GradientDescent, Measured, first_below_start
from .network import threshold


class GDCatapult(Descending, Page):
    """Full-batch gradient descent at a constant rate on a small training set (section 3.1, appendix F.1)."""

    seeds: PositiveInt

    @field_validator("learning_rate")
    @classmethod
    def _constant(cls, value: Rate) -> Rate:
        LearningRate.parse(value)
        return value

    def trainings(self) -> Mapping[str, GradientDescent]:
        return {"catapult": GradientDescent(**self.shared_with(GradientDescent))}

    def run(self, results: Mapping[str, Measured]) -> "GDRun":
        r = results["catapult"]
        return GDRun(self, r.source, r.history, r.parameters, r.outputs)


@dataclass(frozen=True)
class GDRun:
    """What an experiment gave, and the numbers that describe its catapult."""

    experiment: GDCatapult
    source: str
    history: History
    parameters: int
    outputs: int

    @property
    def threshold(self) -> str:
        """How the critical learning rate is written for this run's number of outputs."""
        return threshold(self.outputs)

    @property
    def top(self) -> int:
        """The dimension of the largest eigenspace in which the loss was split."""
        return self.history.tops[-1]

    def measured(self, name: str) -> np.ndarray:
        """A column of the history up to the last state at which there was something to measure."""
        return getattr(self.history, name)[: self.history.measured]

    @property
    def learning_rate(self) -> float:
        return float(self.history.learning_rate[0])

    @property
    def critical_learning_rate(self) -> float:
        """n / ||K|| at initialisation (n c / ||K|| for c outputs)."""
        return float(self.history.critical_learning_rate[0])

    @property
    def peak(self) -> int:
        """The iteration with the largest loss; 0 when the loss never rises above its initial value."""
        return int(self.history.loss.argmax())

    @property
    def spikes(self) -> bool:
        """Whether the loss rises to at least twice its initial value without diverging."""
        loss = self.history.loss
        return not self.history.diverged and bool(loss[self.peak] >= 2 * loss[0])

    @property
    def back(self) -> int | None:
        """The first iteration after the peak with a loss below the initial one; None if there is none."""
        return first_below_start(self.history.loss, self.peak) if self.peak else None

    def share_of_spike_in_top(self, top: int) -> float:
        """Part of the loss's rise, from the start to the peak, that lies in a top eigenspace; NaN without a rise."""
        loss, in_top = self.history.loss, self.history.split(top)[0]
        rise = loss[self.peak] - loss[0]
        return float((in_top[self.peak] - in_top[0]) / rise) if 0 < rise < math.inf else math.nan

    def rest_after_spike(self, top: int) -> float:
        """L_>s where the loss is back below its initial value, over that at the start; NaN without a spike that is."""
        rest = self.history.split(top)[1]
        return math.nan if self.back is None or rest[0] == 0 else float(rest[self.back] / rest[0])

    def peak_of_rest(self, top: int) -> int:
        """Where L_>s is largest until the loss is back; the start where it never rises."""
        return int(np.argmax(self.history.split(top)[1][: (self.back or 0) + 1]))

    def largest_rise_of_rest(self, top: int) -> float:
        """The most that L_>s exceeds its initial value until the loss is back, as a share of the spike's height."""
        rest, loss = self.history.split(top)[1], self.history.loss
        height = loss[self.peak] - loss[0]
        return float((rest[self.peak_of_rest(top)] - rest[0]) / height) if 0 < height < math.inf else math.nan

    def turned_at_peak_of_rest(self, top: int) -> float:
        """The share of that rise that comes from the turning of the eigenvectors; NaN without a rise."""
        rest, at = self.history.split(top)[1], self.peak_of_rest(top)
        rise = rest[at] - rest[0]
        return self.history.turned(top, 0, at) / float(rise) if rise > 0 else math.nan

    @property
    def hessian(self) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """The iterations at which the Hessian was measured, its critical rates, and those of the kernel (Fig. 12)."""
        exact, approximate = self.history.hessian_critical_learning_rate, self.history.critical_learning_rate
        there = np.flatnonzero(np.isfinite(exact) & np.isfinite(approximate))
        return there, exact[there], approximate[there]
