"""Gradient descent with none, one and several catapults: test performance and AGOP (Figs. 8, 24 to 28)."""

from dataclasses import dataclass

from pydantic import field_validator, model_validator

from .. import schedules
from ..display import Text
from ..schedules import Schedule
from ..sweep import Sweep
from .base import PositiveInt
from .learning import LearningSweep, Rate, Scale, Trained, Training, describe_task, told, train


class RaisedRates(LearningSweep):
    """Gradient descent from one initialisation with the first rate of a schedule, with the first two, and so on; with
    the paper's own schedule where that is another one; and from a small initialisation (section 4, appendix D)."""

    learning_rate: str
    literal_schedule: str | None  # the paper's, where learning_rate is not
    settle: PositiveInt
    critical_every: PositiveInt
    small_scale: Scale | None  # sigma of the small initialisation; None: there is none
    small_learning_rate: Rate | None

    @field_validator("learning_rate", "literal_schedule")
    @classmethod
    def _steps(cls, value: str | None, info) -> str | None:
        if value is not None:
            schedules.check(value, info.field_name, Schedule.parse)
        return value

    @model_validator(mode="after")
    def _trainings_fit(self) -> "RaisedRates":
        if len(Schedule.parse(self.learning_rate).steps) < 2:
            raise ValueError(f"learning_rate = {self.learning_rate!r}: allowed are schedules with at least one raise")
        if (self.small_scale is None) != (self.small_learning_rate is None):
            pair = f"small_scale = {self.small_scale!r}, small_learning_rate = {self.small_learning_rate!r}"
            raise ValueError(f"{pair}: allowed are both or neither")
        self.trainings()
        return self

    def trainings(self) -> dict[str, Training]:
        """By what they are: a number of raises, ``literal``, ``small``."""
        steps = Schedule.parse(self.learning_rate).steps
        whole = {"batch_size": self.n_train, "critical_every": self.critical_every}
        every = {
            str(raises): self.training(
                learning_rate=str(Schedule(steps[: raises + 1])), settle=self.settle if raises else None, **whole
            )
            for raises in range(len(steps))
        }
        if self.literal_schedule is not None:
            every["literal"] = self.training(learning_rate=self.literal_schedule, **whole)
        if self.small_scale is not None:
            small = {"learning_rate": self.small_learning_rate, "initial_scale": self.small_scale}
            every["small"] = self.training(**small, **whole)
        return every

    def run(self, progress: bool = False) -> "RaisedRun":
        """Train all. Raises the errors of :func:`catapults.data.load` and :class:`.learning.TrainingFailed`."""
        trainings = self.trainings()
        results, swept = train(list(trainings.values()), self.scheduler, progress)
        by = dict(zip(trainings, results, strict=True))
        raised = [result for name, result in by.items() if name.isdigit()]
        return RaisedRun(self, raised, by.get("literal"), by.get("small"), swept)


@dataclass(frozen=True)
class RaisedRun:
    """``raised[k]``: the training with k raises of the rate. ``literal``: with the paper's schedule; ``small``: from a
    small initialisation; ``None`` where there was none."""

    experiment: RaisedRates
    raised: list[Trained]
    literal: Trained | None
    small: Trained | None
    sweep: Sweep

    def describe(self) -> Text:
        """What was trained on what, in words."""
        e = self.experiment
        rate = e.learning_rate.replace("eta_crit", "η_crit")
        lowered = sum(_lowered(result) for result in self.raised[1:])
        text = (
            f"{describe_task(e, self.raised)} Learning rates: {rate}. From {e.settle} iterations after the last raise "
            f"on, a rate above the critical one is lowered to half of that: so it was in {lowered} of "
            f"{len(self.raised) - 1} trainings with raises. The critical rate is measured every {e.critical_every} "
            f"iterations."
        )
        if self.literal is not None:
            text += f" The paper's own schedule, {e.literal_schedule}, is tried as well."
        if self.small is not None:
            rate = str(e.small_learning_rate).replace("eta_crit", "η_crit")
            text += f" The small initialisation has σ = {e.small_scale:g} and the learning rate {rate}."
        return told(text, self.sweep, [*self.raised, self.literal, self.small])


def _lowered(result: Trained) -> bool:
    """Whether the rate falls somewhere."""
    return bool((result.learning_rate[1:] < result.learning_rate[:-1]).any())
