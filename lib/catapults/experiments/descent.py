"""Full-batch gradient descent, measured at every step: at rates that are given, or at those another one ended with."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import model_validator

from .. import schedules
from ..history import History
from .base import Experiment, PositiveInt, Scheduled
from .network import Network, check_tops


@dataclass(frozen=True)
class Measured:
    """What a training gave that measures the tangent kernel on its way."""

    history: History
    source: str  # of the data, in words
    parameters: int
    outputs: int
    input_norms: Float[np.ndarray, " n"]


def first_below_start(loss: Float[np.ndarray, " t"], after: int) -> int | None:
    """The first iteration from ``after`` on at which the loss is below its initial value; None if there is none."""
    below = np.flatnonzero(loss[after:] < loss[0])
    return after + int(below[0]) if len(below) else None


class Descending(Network):
    """Gradient descent from one initialisation: ``learning_rate`` as :func:`catapults.schedules.parse` reads it, and
    what is measured. ``hessian_every`` counts iterations; ``None`` means at initialisation only."""

    learning_rate: Scheduled
    steps: PositiveInt
    top: PositiveInt | list[PositiveInt]
    hessian_every: PositiveInt | None

    @model_validator(mode="after")
    def _fits(self) -> "Descending":
        check_tops(self.top, self.n_train, self.dataset)
        if schedules.parse(self.learning_rate).last >= self.steps:
            raise ValueError(f"learning_rate = {self.learning_rate!r}: allowed are changes before {self.steps}")
        return self


class GradientDescent(Descending, Experiment):
    Result: ClassVar[type] = Measured

    @property
    def name(self) -> str:
        return f"GD on {self.short}, rate {self.learning_rate}, {self.steps} steps, seed {self.seed}"


class Restart(Experiment):
    """The same from the start at the rate with which another one ended, without the Hessian."""

    Result: ClassVar[type] = Measured

    of: GradientDescent
    steps: PositiveInt

    @property
    def name(self) -> str:
        return f"restart of {self.of.name}"

    @property
    def needs(self) -> tuple[Experiment, ...]:
        return (self.of,)
