"""Gradient descent in networks of several widths at many learning rates: chapter 5's phases."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import field_validator, model_validator

from ..catapult import RISE
from ..history import History
from .base import Experiment, Page, Positive, PositiveInt, Seed, Word
from .descent import GradientDescent, Measured, first_below_start
from .expansion import Curve, Expanded, ExpandedDescent, Model
from .network import Architecture, Labels, threshold

Phase = Literal["lazy", "catapult", "unsettled", "divergence"]
Kind = Literal["network"] | Model
NAMES = {"linear": "linear", "quadratic": "quadratic", "frozen gates": "frozen gates", "network": "ReLU network"}


class Phases(Page):
    """Gradient descent at multiples of the initial critical rate, for several widths (section 2, remark 1); the same of
    the ``models`` beside each network, at these multiples and at the ``finer`` ones."""

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
    models: list[Model] = []
    finer: list[Positive] = []

    @field_validator("widths", "multiples")
    @classmethod
    def _ascend(cls, value: list) -> list:
        if not value or sorted(set(value)) != value:
            raise ValueError("allowed are one or several numbers that ascend")
        return value

    @field_validator("models")
    @classmethod
    def _differ(cls, value: list) -> list:
        if len(set(value)) < len(value):
            raise ValueError("allowed are models that differ")
        return value

    @model_validator(mode="after")
    def _possible(self) -> "Phases":
        if "frozen gates" in self.models and self.architecture != "fcn":
            held = f"gates are frozen in networks of architecture 'fcn', and not {self.architecture!r}"
            raise ValueError(f"models = {self.models!r}: {held}; allowed are 'linear' and 'quadratic'")
        for width in self.widths:
            self._training(width, self.multiples[0])
            for model in self.models:
                self._model(width, model)
        return self

    @property
    def multiples_of_models(self) -> list[float]:
        return sorted({*self.multiples, *self.finer})

    def trainings(self) -> Mapping[tuple[int, float | Model], Experiment]:
        networks = {(width, m): self._training(width, m) for width in self.widths for m in self.multiples}
        return networks | {(width, model): self._model(width, model) for width in self.widths for model in self.models}

    def _training(self, width: int, multiple: float) -> GradientDescent:
        plain = {"norm": None, "parameterization": "ntk", "hessian_every": None}
        own = {"width": width, "learning_rate": f"{multiple:g} eta_crit"}
        return GradientDescent.create(**self.shared_with(GradientDescent) | plain | own)

    def _model(self, width: int, model: Model) -> ExpandedDescent:
        plain = {"norm": None, "parameterization": "ntk"}
        own = {"width": width, "model": model, "multiples": self.multiples_of_models}
        return ExpandedDescent.create(**self.shared_with(ExpandedDescent) | plain | own)

    def run(self, results: Mapping[tuple[int, float | Model], Measured | Expanded]) -> "PhasesRun":
        first = next(iter(results.values()))
        courses = {(w, m): Course(m, results[w, m].history) for w in self.widths for m in self.multiples}
        beside = {
            (model, w, m): Course(m, results[w, model].curve(row))
            for model in self.models
            for w in self.widths
            for row, m in enumerate(self.multiples_of_models)
        }
        parameters = {width: results[width, self.multiples[0]].parameters for width in self.widths}
        return PhasesRun(self, first.source, courses, parameters, first.outputs, beside)


@dataclass(frozen=True)
class Course:
    """One training, at a multiple of its critical rate."""

    multiple: float
    history: History | Curve

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
        return first_below_start(self.history.loss, self.peak)

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
    """What one seed gave: a course for each width and multiple; the number of parameters for each width; and a course
    for each model ``beside`` the networks, width and multiple."""

    experiment: Phases
    source: str
    courses: Mapping[tuple[int, float], Course]
    parameters: Mapping[int, int]
    outputs: int
    beside: Mapping[tuple[Model, int, float], Course] = field(default_factory=dict)

    @property
    def threshold(self) -> str:
        return threshold(self.outputs)

    @property
    def kinds(self) -> list[Kind]:
        """The models beside the networks, and these."""
        return [*self.experiment.models, "network"]

    def of_width(self, width: int, kind: Kind = "network") -> list[Course]:
        """By ascending multiples."""
        if kind == "network":
            return [self.courses[width, m] for m in self.experiment.multiples]
        return [self.beside[kind, width, m] for m in self.experiment.multiples_of_models]

    def border(self, width: int, kind: Kind = "network") -> tuple[float, float]:
        """The largest multiple below the first one at which training does not come back, and that one.

        Infinite where it always comes back; 0 and the smallest multiple where it never does.
        """
        last = 0.0
        for course in self.of_width(width, kind):
            if course.phase in ("divergence", "unsettled"):
                return last, course.multiple
            last = course.multiple
        return last, float("inf")


def middle(border: tuple[float, float]) -> float:
    """The geometric mean of two rates between which a border lies; NaN where one of them is not known."""
    last, first = border
    return math.sqrt(last * first) if last > 0 and math.isfinite(first) else math.nan
