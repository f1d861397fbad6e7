"""Gradient descent in networks of several widths at many learning rates: chapter 5's phases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import field_validator, model_validator

from ..history import History
from .base import Page, Positive, PositiveInt, Seed, Word
from .descent import GradientDescent, Measured
from .network import Architecture, Labels, threshold

Phase = Literal["lazy", "catapult", "unsettled", "divergence"]
RISE = 2.0  # times its initial value that the loss of a catapult reaches


class Phases(Page):
    """Gradient descent at multiples of the initial critical rate, for several widths (section 2, remark 1)."""

    dataset: Word
    architecture: Architecture
    depth: PositiveInt
    widths: list[PositiveInt]
    image_size: PositiveInt | None
    n_train: PositiveInt
    labels: Labels
    gain: Positive
    bias: bool
    multiples: list[Positive]
    steps: PositiveInt
    top: PositiveInt
    seed: Seed
    seeds: PositiveInt

    @field_validator("widths", "multiples")
    @classmethod
    def _ascend(cls, value: list) -> list:
        if not value or sorted(set(value)) != value:
            raise ValueError("allowed are one or several numbers that ascend")
        return value

    @model_validator(mode="after")
    def _possible(self) -> "Phases":
        for width in self.widths:
            self._training(width, self.multiples[0])
        return self

    def trainings(self) -> Mapping[tuple[int, float], GradientDescent]:
        return {(width, m): self._training(width, m) for width in self.widths for m in self.multiples}

    def _training(self, width: int, multiple: float) -> GradientDescent:
        plain = {"norm": None, "parameterization": "ntk", "hessian_every": None}
        own = {"width": width, "learning_rate": f"{multiple:g} eta_crit"}
        return GradientDescent.create(**self.shared_with(GradientDescent) | plain | own)

    def run(self, results: Mapping[tuple[int, float], Measured]) -> "PhasesRun":
        first = next(iter(results.values()))
        courses = {key: Course(key[1], result.history) for key, result in results.items()}
        parameters = {width: results[width, self.multiples[0]].parameters for width in self.widths}
        return PhasesRun(self, first.source, courses, parameters, first.outputs)


@dataclass(frozen=True)
class Course:
    """One training, at a multiple of its critical rate."""

    multiple: float
    history: History

    @property
    def height(self) -> float:
        """The largest loss over the initial one: 1 where it never rises; infinite where it diverges."""
        loss = self.history.loss
        return float("inf") if self.history.diverged else float(loss.max() / loss[0])

    @property
    def peak(self) -> int:
        return int(self.history.loss.argmax())

    @property
    def back(self) -> int | None:
        """The first iteration after the largest loss at which it is below the initial one."""
        below = np.flatnonzero(self.history.loss[self.peak :] < self.history.loss[0])
        return self.peak + int(below[0]) if len(below) else None

    @property
    def phase(self) -> Phase:
        """lazy: the loss never doubles. catapult: it does, and comes back below its initial value. unsettled: not back
        within the steps. divergence: training diverges."""
        if self.history.diverged:
            return "divergence"
        if self.back is None:
            return "unsettled"
        return "lazy" if self.height < RISE else "catapult"

    @property
    def norm_lowest(self) -> float:
        """The smallest ``||K||`` over that at the start; NaN where training diverges."""
        norm = self.history.kernel_norm
        return float("nan") if self.history.diverged else float(norm.min() / norm[0])


@dataclass(frozen=True)
class PhasesRun:
    """What one seed gave: a course for each width and multiple; the number of parameters for each width."""

    experiment: Phases
    source: str
    courses: Mapping[tuple[int, float], Course]
    parameters: Mapping[int, int]
    outputs: int

    @property
    def threshold(self) -> str:
        return threshold(self.outputs)

    def of_width(self, width: int) -> list[Course]:
        """By ascending multiples."""
        return [self.courses[width, m] for m in self.experiment.multiples]

    def border(self, width: int) -> tuple[float, float]:
        """The largest multiple below the first one at which training does not come back, and that one.

        Infinite where it always comes back; 0 and the smallest multiple where it never does.
        """
        last = 0.0
        for course in self.of_width(width):
            if course.phase in ("divergence", "unsettled"):
                return last, course.multiple
            last = course.multiple
        return last, float("inf")
