"""Gradient descent of the models beside a network, at several rates from the same weights."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float
from pydantic import field_validator, model_validator

from .base import Experiment, Positive, PositiveInt
from .network import Network

Model = Literal["linear", "quadratic", "frozen gates"]


@dataclass(frozen=True)
class Curve:
    """Of one training: the state before each step and the one after the last."""

    loss: Float[np.ndarray, " states"]
    kernel_norm: Float[np.ndarray, " states"]
    diverged: bool


@dataclass(frozen=True)
class Expanded:
    """What the trainings gave, a row for each rate; NaN stands in the states after the end of one that diverged."""

    loss: Float[np.ndarray, "m states"]
    kernel_norm: Float[np.ndarray, "m states"]
    diverged: tuple[bool, ...]
    source: str  # of the data, in words
    parameters: int
    outputs: int

    def curve(self, row: int) -> Curve:
        """One of the trainings."""
        taken = np.flatnonzero(~np.isnan(self.loss[row]))[-1] + 1
        return Curve(self.loss[row, :taken], self.kernel_norm[row, :taken], self.diverged[row])


class ExpandedDescent(Network, Experiment):
    """Gradient descent of a ``model`` beside the network (:mod:`catapults.expansion`), once for each of the
    ``multiples`` of the critical rate at initialisation. One experiment for all of them, as each is short."""

    Result: ClassVar[type] = Expanded

    model: Model
    multiples: list[Positive]
    steps: PositiveInt

    @field_validator("multiples")
    @classmethod
    def _ascend(cls, value: list) -> list:
        if not value or sorted(set(value)) != value:
            raise ValueError("allowed are one or several numbers that ascend")
        return value

    @model_validator(mode="after")
    def _has_gates(self) -> "ExpandedDescent":
        if self.model == "frozen gates" and self.architecture != "fcn":
            raise ValueError(
                f"model = {self.model!r}: no model of architecture {self.architecture!r}; allowed is 'fcn'"
            )
        return self

    @property
    def name(self) -> str:
        rates = f"{self.multiples[0]:g} to {self.multiples[-1]:g} eta_crit"
        return f"GD of the {self.model} model of {self.short}, rates {rates}, {self.steps} steps, seed {self.seed}"
