"""Full-batch gradient descent at learning rates that rise: chapter 2's multiple catapults."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import field_validator, model_validator

from .. import catapult, schedules, training
from ..catapult import Catapult
from ..display import Text, number
from ..schedules import Schedule
from ..training import History
from .base import NetworkExperiment, PositiveInt, check_tops, threshold


class MultipleCatapults(NetworkExperiment):
    """Gradient descent from one initialisation under two schedules, and at the rates that these end with.

    Section 3.2 and appendices B.2, B.3 and F.2: the paper's schedule, our own that rises with the critical rate, and
    for either the restart of Fig. 18.
    """

    paper_schedule: int | float | str
    our_schedule: int | float | str
    steps: PositiveInt
    restart_steps: PositiveInt
    top: PositiveInt

    @field_validator("paper_schedule", "our_schedule")
    @classmethod
    def _readable(cls, value: int | float | str, info: Any) -> int | float | str:
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

    def run(self, progress: bool = False) -> "MultipleRun":
        """Load the data, and descend four times. Raises the errors of :func:`catapults.data.load`."""
        started = time.perf_counter()
        start = self.start()

        def descend(learning_rate: float | int | str, steps: int) -> Phase:
            model = self.model(start.inputs, start.outputs).to(start.inputs.device)
            history = training.gradient_descent(
                model, start.inputs, start.targets, learning_rate, steps, self.top, progress=progress
            )
            return Phase(history, start.outputs)

        paper, ours = (descend(schedule, self.steps) for schedule in (self.paper_schedule, self.our_schedule))
        restarts = (descend(phase.final_rate, self.restart_steps) for phase in (paper, ours))
        seconds = time.perf_counter() - started
        return MultipleRun(self, start.source, start.device, paper, ours, *restarts, start.parameters, seconds)


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
        return catapult.find(h.loss, h.learning_rate, h.critical_learning_rate)

    @property
    def stretches(self) -> list["Stretch"]:
        """The run cut at the iterations at which another rate was set."""
        rates = self.history.learning_rate
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


@dataclass(frozen=True)
class MultipleRun:
    """What the experiment gave."""

    experiment: MultipleCatapults
    source: str
    device: str
    paper: Phase  # under the paper's schedule
    ours: Phase  # under ours
    paper_restart: Phase  # from the start at the rate with which the paper's schedule ends
    our_restart: Phase
    parameters: int
    seconds: float

    def describe(self) -> Text:
        """What was trained on what, in words."""
        e = self.experiment
        return Text(
            f"{e.describe(self.source, self.parameters)} Training: {e.steps} steps under each schedule, at most "
            f"{e.restart_steps} from the start at either final rate; it took {number(self.seconds)} s.",
            {"kind": "data", "source": self.source},
        )
