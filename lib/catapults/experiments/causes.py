"""The same trainings with and without catapults: are these the cause of better generalisation? (chapter 6)"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field, field_validator, model_validator

from ..schedules import Schedule
from .base import Experiment, Positive, PositiveInt, Scheduled
from .fits import Fit, Fitted, LearningPage, Strong

Kind = Literal["clip", "follow", "shrink", "matched"]
FOLLOWED = 0.95  # of the current critical rate, which "follow" takes
FOLLOWED_EVERY = 5  # steps
SHRUNK = 0.9  # c of "shrink"
ARMS = {
    "as it is": "as it is",
    "clip": "rate ≤ {c} η_crit(B)",
    "follow": "rate 0.95 η_crit",
    "shrink": "spiking part damped",
    "matched": "constant rate, same mean",
}


@dataclass(frozen=True)
class Without:
    """What a training with an intervention gave; as in :class:`~catapults.experiments.fits.Fitted` where the name is
    the same. The curve is thinned."""

    steps: int
    above: int  # steps whose rate exceeds the critical one of their batch, up to the best weights
    best_step: int
    mean_rate: float  # of the steps that were taken
    curve: Int[np.ndarray, " k"]
    loss: Float[np.ndarray, " k"]
    rate: Float[np.ndarray, " k"]
    converged: bool
    diverged: bool
    test_loss: float
    test_error: float
    test_variance: float
    alignment: float
    norms: tuple[float, float]
    source: str


class Intervened(Fit):
    """One training of section 4 without catapults.

    ``kind``: ``clip`` and ``shrink`` as in :func:`catapults.training.interventions.fit_with`; ``follow``: the rate is
    ``c`` times the current critical one of the training set, whenever it is measured; ``matched``: a constant rate, the
    mean of those that ``clip`` has taken.
    """

    Result: ClassVar[type] = Without

    kind: Kind
    c: Positive

    @property
    def name(self) -> str:
        return f"{super().name}, {self.kind} {self.c:g}"

    @property
    def needs(self) -> tuple[Experiment, ...]:
        """The strong model, where there is one; last, for ``matched``, the training whose mean rate it takes."""
        return (*super().needs, *([self.model_copy(update={"kind": "clip"})] if self.kind == "matched" else []))


@dataclass(frozen=True)
class Forked:
    """What one step changes, for each moment, batch and multiple of the batch's critical rate: the value after the step
    over the one before, of the batch's loss, the whole training set's, and ``||K||`` of some training samples.

    ``own``: the training's rate over the batch's critical one.
    """

    batch_loss: Float[np.ndarray, "t b m"]
    whole_loss: Float[np.ndarray, "t b m"]
    norm: Float[np.ndarray, "t b m"]
    own: Float[np.ndarray, "t b"]
    source: str


class Fork(Fit):
    """Single steps at several rates from the same weights with the same batches, at several moments of a training."""

    Result: ClassVar[type] = Forked

    moments: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]  # iterations
    batches: PositiveInt  # at each of them
    multiples: Annotated[list[Positive], Field(min_length=1)]  # of the batch's critical rate

    @field_validator("moments", "multiples")
    @classmethod
    def _ascend(cls, value: list) -> list:
        if sorted(set(value)) != value:
            raise ValueError("allowed are one or several numbers that ascend")
        return value

    @property
    def name(self) -> str:
        return f"{super().name}, single steps"


class Causes(LearningPage):
    """Trainings of section 4 whose catapults are taken away.

    SGD with each of ``batch_sizes``, with its rate limited to each of ``limits`` times the critical one of the batch,
    and with ``large_batch``; gradient descent with the schedule in ``gd``, whose other entries replace parameters of
    the page.
    """

    learning_rate: Scheduled
    batch_sizes: list[PositiveInt]
    large_batch: PositiveInt
    limits: Annotated[list[Positive], Field(min_length=1)]
    replacement: bool
    critical_every: PositiveInt
    gd: dict[str, Any] | None
    moments: list[int]
    fork_batches: PositiveInt
    multiples: list[Positive]
    seeds: PositiveInt

    @field_validator("batch_sizes", "limits")
    @classmethod
    def _ascend(cls, value: list) -> list:
        if sorted(set(value)) != value:
            raise ValueError("allowed are numbers that ascend")
        return value

    @model_validator(mode="after")
    def _possible(self) -> "Causes":
        if not self.batch_sizes and self.gd is None:
            raise ValueError("batch_sizes = []: allowed where there is gradient descent, gd")
        if self.batch_sizes and self.large_batch <= self.batch_sizes[-1]:
            allowed = f"allowed is more than {self.batch_sizes[-1]}"
            raise ValueError(f"large_batch = {self.large_batch}: {allowed}")
        if self.gd is not None:
            if unknown := sorted(self.gd.keys() - Fit.model_fields.keys()):
                raise ValueError(f"gd: {unknown[0]} is unknown; allowed are {', '.join(Fit.model_fields)}")
            if len(Schedule.parse(self.gd.get("learning_rate", "")).steps) < 2:
                raise ValueError("gd: learning_rate has no raise; allowed are schedules with at least one")
        self.trainings()
        return self

    def trainings(self) -> Mapping[tuple[str, str], Experiment]:
        """By group, ``GD`` or a batch size, and by what they are."""
        every: dict[tuple[str, str], Experiment] = {}
        for size in self.batch_sizes:
            fit, group = self._sgd(size), str(size)
            every[group, "as it is"] = fit
            for c in self.limits:
                every[group, f"clip {c:g}"] = _intervened(fit, "clip", c)
            every[group, "shrink"] = _intervened(fit, "shrink", SHRUNK)
            every[group, "matched"] = _intervened(fit, "matched", self.limits[-1])
            every[group, "control"] = self._sgd(self.large_batch)
        if self.gd is not None:
            fit, first = self._gd(), Schedule.parse(self.gd["learning_rate"]).steps[:1]
            every["GD", "as it is"] = fit
            every["GD", "follow"] = _intervened(fit, "follow", FOLLOWED)
            every["GD", "shrink"] = _intervened(fit, "shrink", SHRUNK)
            every["GD", "control"] = self._gd(learning_rate=str(Schedule(first)), settle=None)
        if self.batch_sizes and self.moments:
            of = {"moments": self.moments, "batches": self.fork_batches, "multiples": self.multiples}
            every["fork", "fork"] = Fork.create(**dict(self._sgd(self.batch_sizes[0])) | of)
        return every

    def _sgd(self, size: int) -> Fit:
        """As on the page on batch sizes."""
        return self.fit(
            learning_rate=self.learning_rate, batch_size=size, replacement=self.replacement, seed=self.seed,
            critical_every=self.critical_every, evaluate_every=max(self.evaluate_every, self.n_train // size),
        )  # fmt: skip

    def _gd(self, **values: Any) -> Fit:
        given = self.gd | values
        schedule = str(Schedule.parse(given["learning_rate"]))
        return self.fit(**given | {"learning_rate": schedule, "batch_size": given.get("n_train", self.n_train)})

    def run(self, results: Mapping[tuple[str, str], Any]) -> "CausesRun":
        groups = {group: {} for group, _ in results if group != "fork"}
        for (group, arm), result in results.items():
            if group != "fork":
                groups[group][arm] = result
        return CausesRun(self, groups, results.get(("fork", "fork")))


@dataclass(frozen=True)
class CausesRun:
    """What one seed gave. ``groups``: by batch size or ``GD`` and by what was done: ``as it is``, the interventions,
    ``control``."""

    experiment: Causes
    groups: dict[str, dict[str, Fitted | Without]]
    fork: Forked | None
    strong: Strong | None = None


def above(result: Fitted | Without) -> int:
    """Steps whose rate exceeds the critical one of their batch, up to the best weights."""
    return result.catapults if isinstance(result, Fitted) else result.above


def best_step(result: Fitted | Without) -> int:
    return int(result.evaluated[result.best]) if isinstance(result, Fitted) else result.best_step


def arm_words(arm: str) -> str:
    """What was done, in a few words."""
    name, _, c = arm.partition(" ") if arm.startswith("clip") else (arm, "", "")
    return ARMS[name].format(c="" if c == "1" else c).replace("≤  ", "≤ ")


def group_words(group: str) -> str:
    return "gradient descent" if group == "GD" else f"batches of {group}"


def control_words(run: CausesRun, group: str) -> str:
    """What a group is compared with."""
    return "first rate, never raised" if group == "GD" else f"batches of {run.experiment.large_batch}"


def _intervened(fit: Fit, kind: Kind, c: float) -> Intervened:
    changed = {"settle": None, "critical_every": FOLLOWED_EVERY} if kind == "follow" else {}
    return Intervened.create(**dict(fit) | {"kind": kind, "c": c} | changed)
