"""What measuring the kernel at every step costs, over the number of samples: the book's performance page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field, field_validator, model_validator

from ..schedules import LearningRate
from .base import Experiment, Page, Parameters, Positive, PositiveInt, Rate, Seed

FCN, CNN = "two-layer net", "convolutional net"
WARM_STEPS = 2  # of our loop that a round times
ALLOWED_RATIO, ALLOWED_ERROR = 6.5, 1e-3  # our bounds: a step over a plain one at the sizes below, relative differences
BOUND_SAMPLES, BOUND_WIDTH, BOUND_INPUTS = 5000, 1024, 3072


@dataclass(frozen=True)
class Scaled:
    """Medians over the rounds, in seconds: a row for each network, a column for each number of samples."""

    rounds: Int[np.ndarray, "2 k"]
    plain: Float[np.ndarray, "2 k"]  # a step that measures nothing
    ours: Float[np.ndarray, "2 k"]  # a step of the library's loop after the first
    first: Float[np.ndarray, "2 k"]  # its first step
    product: Float[np.ndarray, "2 k"]  # of the kernel with a vector, without the kernel
    expected_ratio: Float[np.ndarray, "2 k"]  # by counting multiplications
    compared: int  # samples at which values were compared with float64; 0 where all numbers of samples are too large
    errors: Float[np.ndarray, "2 3"]  # relative differences of the norm and both parts of the loss; NaN: not compared
    device: str
    seconds: float


class Timing(Parameters):
    """Times a step that measures nothing and a step of the library's loop on two networks, for each number of samples.

    The two-layer net gets the inputs of the task rank-2, N(0, I); the convolutional net random images.
    """

    samples: list[Annotated[int, Field(ge=2)]]
    input_dim: Annotated[int, Field(ge=2)]
    width: PositiveInt
    channels: PositiveInt
    image_size: PositiveInt
    depth: Annotated[int, Field(ge=3)]
    learning_rate: Rate
    top: PositiveInt
    seconds: Positive
    seed: Seed

    @field_validator("learning_rate")
    @classmethod
    def _readable(cls, value: Rate) -> Rate:
        LearningRate.parse(value)
        return value

    @model_validator(mode="after")
    def _samples_ascend(self) -> "Timing":
        if not self.samples or sorted(set(self.samples)) != self.samples:
            raise ValueError(f"samples = {self.samples!r}: allowed are one or several whole numbers that ascend")
        if self.top >= self.samples[0]:
            raise ValueError(f"top = {self.top!r}: allowed are whole numbers from 1 to {self.samples[0] - 1}")
        return self


class Scaling(Timing, Experiment):
    Result: ClassVar[type] = Scaled
    alone: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"times of a step, n = {', '.join(map(str, self.samples))}"


class Performance(Timing, Page):
    """The page on what the measurements cost."""

    seeds: ClassVar[int] = 1

    def of_each_seed(self) -> "list[Performance]":
        return [self]

    def trainings(self) -> Mapping[str, Scaling]:
        return {"scaling": Scaling(**self.shared_with(Scaling))}

    def run(self, results: Mapping[str, Scaled]) -> "ScalingRun":
        return ScalingRun(self, results["scaling"])


@dataclass(frozen=True)
class Point:
    """Medians over the rounds at n samples, in seconds."""

    n: int
    rounds: int
    plain: float  # a step that measures nothing
    ours: float  # a step of the library's loop after the first
    first: float  # its first step
    product: float  # of the kernel with a vector, without the kernel
    expected_ratio: float  # by counting multiplications

    @property
    def ratio(self) -> float:
        return self.ours / self.plain

    @property
    def kernel_mib(self) -> float:
        return self.n**2 * 4 / 2**20


@dataclass(frozen=True)
class Errors:
    """Relative differences from the full route in float64."""

    norm: float
    split_top: float
    split_rest: float

    @property
    def largest(self) -> float:
        return max(self.norm, self.split_top, self.split_rest)


@dataclass(frozen=True)
class ScalingRun:
    """What was measured, for each network at each number of samples."""

    experiment: Performance
    result: Scaled

    @property
    def device(self) -> str:
        return self.result.device

    @property
    def compared(self) -> int:
        return self.result.compared

    @property
    def bounded(self) -> "Point | None":
        """What the bound on the time of a step is for; ``None`` in a run of other sizes."""
        e = self.experiment
        if (e.width, e.input_dim) != (BOUND_WIDTH, BOUND_INPUTS) or BOUND_SAMPLES not in e.samples:
            return None
        return self.points[FCN][e.samples.index(BOUND_SAMPLES)]

    @property
    def points(self) -> Mapping[str, list[Point]]:
        """By network, over the numbers of samples."""
        r = self.result
        return {
            name: [
                Point(
                    n,
                    int(r.rounds[i, k]),
                    *(float(a[i, k]) for a in (r.plain, r.ours, r.first, r.product, r.expected_ratio)),
                )
                for k, n in enumerate(self.experiment.samples)
            ]
            for i, name in enumerate((FCN, CNN))
        }

    @property
    def errors(self) -> Mapping[str, Errors]:
        """By network, where values were compared."""
        if not self.compared:
            return {}
        return {name: Errors(*map(float, row)) for name, row in zip((FCN, CNN), self.result.errors, strict=True)}
