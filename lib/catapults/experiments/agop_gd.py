"""Gradient descent with none, one and several catapults: test performance and AGOP (Figs. 8, 24 to 28)."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import field_validator, model_validator

from .. import schedules
from ..schedules import Schedule
from .base import Positive, PositiveInt, Rate, Word
from .fits import Fit, Fitted, LearningPage, Strong


class RaisedRates(LearningPage):
    """Gradient descent from one initialisation with the first rate of a schedule, with the first two, and so on; with
    the paper's own schedule where that is another one; and from a small initialisation (section 4, appendix D)."""

    learning_rate: Word
    literal_schedule: Word | None  # the paper's, where learning_rate is not
    settle: PositiveInt
    critical_every: PositiveInt
    small_scale: Positive | None  # sigma of the small initialisation; None: there is none
    small_learning_rate: Rate | None  # of the training from there
    seeds: PositiveInt

    @field_validator("learning_rate", "literal_schedule", "small_learning_rate")
    @classmethod
    def _readable(cls, value: Rate | None, info) -> Rate | None:
        if value is not None:
            in_steps = info.field_name == "learning_rate"  # the others may be cycles
            schedules.check(value, info.field_name, Schedule.parse if in_steps else schedules.parse)
        return value

    @model_validator(mode="after")
    def _trainings_fit(self) -> "RaisedRates":
        if len(Schedule.parse(self.learning_rate).steps) < 2:
            raise ValueError(f"learning_rate = {self.learning_rate!r}: allowed are schedules with at least one raise")
        if self.small_scale is not None and self.small_learning_rate is None:
            raise ValueError("small_learning_rate = None: a small initialisation needs a rate; or small_scale = None")
        for parameter in ("learning_rate", "literal_schedule", "small_learning_rate"):
            if (rate := getattr(self, parameter)) is not None:
                self.check_changes(rate, parameter)
        self.trainings()
        return self

    def trainings(self) -> Mapping[str, Fit]:
        """By what they are: a number of raises, ``literal``, ``small``."""
        steps = Schedule.parse(self.learning_rate).steps
        whole = {"batch_size": self.n_train, "critical_every": self.critical_every}
        every = {
            str(raises): self.fit(
                learning_rate=str(Schedule(steps[: raises + 1])), settle=self.settle if raises else None, **whole
            )
            for raises in range(len(steps))
        }
        if self.literal_schedule is not None:
            every["literal"] = self.fit(learning_rate=self.literal_schedule, **whole)
        if self.small_scale is not None:
            small = {"learning_rate": self.small_learning_rate, "initial_scale": self.small_scale}
            every["small"] = self.fit(**small, **whole)
        return every

    def run(self, results: Mapping[str, Fitted]) -> "RaisedRun":
        raised = [result for name, result in results.items() if name.isdigit()]
        return RaisedRun(self, raised, results.get("literal"), results.get("small"))


@dataclass(frozen=True)
class RaisedRun:
    """``raised[k]``: the training with k raises of the rate. ``literal``: with the paper's schedule; ``small``: from a
    small initialisation; ``None`` where there was none."""

    experiment: RaisedRates
    raised: list[Fitted]
    literal: Fitted | None
    small: Fitted | None
    strong: Strong | None = None

    @property
    def results(self) -> list[Fitted]:
        """All."""
        return [result for result in (*self.raised, self.literal, self.small) if result is not None]
