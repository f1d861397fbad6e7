"""Full-batch gradient descent at learning rates that rise: chapter 2's multiple catapults."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import field_validator, model_validator

from .. import catapult, schedules
from ..catapult import Catapult
from ..history import History
from ..schedules import Schedule
from .base import Experiment, Page, PositiveInt, Rate
from .descent import GradientDescent, Measured, Restart
from .network import Network, check_tops, threshold


class MultipleCatapults(Network, Page):
    """Gradient descent from one initialisation under two schedules, and at the rates that these end with.

    Section 3.2 and appendices B.2, B.3 and F.2: the paper's schedule, our own that rises with the critical rate, and
    for either the restart of Fig. 18.
    """

    paper_schedule: Rate
    our_schedule: Rate
    steps: PositiveInt
    restart_steps: PositiveInt
    top: PositiveInt
    seeds: PositiveInt

    @field_validator("paper_schedule", "our_schedule")
    @classmethod
    def _readable(cls, value: Rate, info: Any) -> Rate:
        schedules.check(value, info.field_name, Schedule.parse)
        return value

    @model_validator(mode="after")
    def _schedules_end_in_time(self) -> "MultipleCatapults":
        check_tops(self.top, self.n_train, self.dataset)
        for name in ("paper_schedule", "our_schedule"):
            last = Schedule.parse(getattr(self, name)).last
            if last >= self.steps:
                raise ValueError(f"{name} = {getattr(self, name)!r}: allowed are changes before iteration {self.steps}")
        return self

    def trainings(self) -> Mapping[str, Experiment]:
        shared = self.shared_with(GradientDescent) | {"hessian_every": None}
        paper, ours = (
            GradientDescent(**shared | {"learning_rate": rate}) for rate in (self.paper_schedule, self.our_schedule)
        )
        restarts = (Restart(of=one, steps=self.restart_steps) for one in (paper, ours))
        return dict(zip(("paper", "ours", "paper restart", "our restart"), (paper, ours, *restarts), strict=True))

    def run(self, results: Mapping[str, Measured]) -> "MultipleRun":
        first = results["paper"]
        phases = (Phase(r.history, r.outputs) for r in results.values())
        return MultipleRun(self, first.source, *phases, first.parameters)


@dataclass(frozen=True)
class Stretch:
    """Iterations with one learning rate, and the catapults that begin there."""

    first: int
    last: int
    learning_rate: float
    catapults: list[Catapult]


@dataclass(frozen=True)
class Phase:
    """One training of the four."""

    history: History
    outputs: int

    @property
    def threshold(self) -> str:
        """How the critical learning rate is written for this number of outputs."""
        return threshold(self.outputs)

    @property
    def catapults(self) -> list[Catapult]:
        h = self.history
        return catapult.find(h.loss, h.rate_at_states, h.critical_learning_rate)

    @property
    def stretches(self) -> list["Stretch"]:
        """The run cut at the iterations at which another rate was set."""
        rates = self.history.rate_at_states
        first = [0, *(np.flatnonzero(np.diff(rates)) + 1).tolist()]
        last = [*(start - 1 for start in first[1:]), len(rates) - 1]
        return [
            Stretch(a, b, float(rates[a]), [c for c in self.catapults if a <= c.start <= b])
            for a, b in zip(first, last, strict=True)
        ]

    @property
    def final_rate(self) -> float:
        return float(self.history.learning_rate[-1])

    @property
    def initial_critical_rate(self) -> float:
        return float(self.history.critical_learning_rate[0])

    @property
    def multiple(self) -> float:
        """The final rate in units of the initial critical rate."""
        return self.final_rate / self.initial_critical_rate

    def norms(self, of: Catapult) -> tuple[float, float]:
        """The kernel's norm at the start and at the end of a catapult."""
        norm = self.history.kernel_norm
        return float(norm[of.start]), float(norm[of.end])

    def share_in_top(self, of: Catapult) -> float:
        """Part of the loss's rise, from the start to the peak, that lies in the top eigenspace."""
        loss, top = self.history.loss, self.history.loss_top
        return float((top[of.peak] - top[of.start]) / (loss[of.peak] - loss[of.start]))

    def rest_after(self, of: Catapult) -> float:
        """L_>s at the end of a catapult, over that at its start."""
        rest = self.history.loss_rest
        return float(rest[of.end] / rest[of.start])


@dataclass(frozen=True)
class MultipleRun:
    """What the experiment gave."""

    experiment: MultipleCatapults
    source: str
    paper: Phase  # under the paper's schedule
    ours: Phase  # under ours
    paper_restart: Phase  # from the start at the rate with which the paper's schedule ends
    our_restart: Phase
    parameters: int
