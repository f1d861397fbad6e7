"""SGD over batch sizes and learning rates: where spikes recur, and which criterion says so."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import field_validator, model_validator

from .. import catapult
from ..catapult import Spike
from .base import Page, Positive, PositiveInt, Seed
from .recurrence import Recurred, Recurrence, Watching

Cell = tuple[int, float]  # batch size, and multiple of the critical rate
Outcome = Literal["calm", "falling", "divergent"]
Criterion = Literal["mean_square", "trace", "sharpness", "exceeded", "critical"]
FALL = 0.05  # of ||K||, from which on a training counts as one whose spikes lower it
LINES: dict[Criterion, float] = {  # where each criterion has its line
    "mean_square": 1.0,
    "trace": 1.0,
    "sharpness": 1.0,
    "exceeded": 0.5,
    "critical": 1.0,
}


class StabilityMap(Watching, Page):
    """SGD with every batch size at every multiple of the initial critical rate."""

    batch_sizes: list[PositiveInt]
    multiples: list[Positive]
    seed: Seed
    seeds: PositiveInt

    @field_validator("batch_sizes", "multiples")
    @classmethod
    def _ascend(cls, value: list) -> list:
        if not value or sorted(set(value)) != value:
            raise ValueError("allowed are one or several numbers that ascend")
        return value

    @model_validator(mode="after")
    def _possible(self) -> "StabilityMap":
        self._training(self.batch_sizes[-1], self.multiples[0])
        return self

    @property
    def cells(self) -> list[Cell]:
        return [(b, m) for b in self.batch_sizes for m in self.multiples]

    def trainings(self) -> Mapping[Cell, Recurrence]:
        return {cell: self._training(*cell) for cell in self.cells}

    def _training(self, batch_size: int, multiple: float) -> Recurrence:
        return Recurrence.create(**self.shared_with(Recurrence) | {"batch_size": batch_size, "multiple": multiple})

    def run(self, results: Mapping[Cell, Recurred]) -> "StabilityRun":
        return StabilityRun(self, {cell: Watched(self, *cell, result) for cell, result in results.items()})


@dataclass(frozen=True)
class Watched:
    """One training, with what is counted in it."""

    experiment: StabilityMap
    batch_size: int
    multiple: float
    result: Recurred

    @cached_property
    def spikes(self) -> list[Spike]:
        """Peaks of the whole set's loss by a factor of two or more; the iterations are steps."""
        loss = np.where(np.isfinite(self.result.loss), self.result.loss, np.nan)
        every = self.experiment.loss_every
        return [Spike(every * s.start, every * s.peak, every * s.end) for s in catapult.spikes(loss)]

    def norm_change(self, spike: Spike) -> float:
        """Of log ||K||, from the last measurement before a spike to the first one after; NaN without these."""
        before, after = spike.start // self.experiment.norm_every, -(-spike.end // self.experiment.norm_every)
        norm = self.result.norm
        return float(np.log(norm[after] / norm[before])) if after < len(norm) else math.nan

    @property
    def lowering(self) -> int:
        """Spikes over which ||K|| falls."""
        return sum(self.norm_change(spike) < 0 for spike in self.spikes)

    @property
    def fall(self) -> float:
        """The share of ||K|| that is gone at the end, negative where it has grown; NaN where training diverges."""
        return math.nan if self.result.diverged else 1 - float(self.result.exact_norm[-1] / self.result.exact_norm[0])

    def fall_until(self, step: int) -> float:
        """The same until a step, or until the end where that is earlier."""
        if self.result.diverged:
            return math.nan
        last = min(step // self.experiment.norm_every, len(self.result.norm) - 1)
        return 1 - float(self.result.norm[last] / self.result.norm[0])

    @property
    def outcome(self) -> Outcome:
        """calm: ||K|| is, in the end, at least 1 - FALL of what it was. falling: it is less. divergent: training
        diverges."""
        return self.outcome_by(FALL)

    def outcome_by(self, fall: float) -> Outcome:
        """The same for another share of ||K||."""
        if self.result.diverged:
            return "divergent"
        return "falling" if self.fall > fall else "calm"

    @property
    def steps_above(self) -> float:
        """The share of its steps with eta > eta_crit(X_batch)."""
        return self.result.steps_above / max(self.result.steps, 1)

    @property
    def test(self) -> float:
        """FVU on the test set at the end; NaN where training diverges."""
        return self.result.test_loss / self.result.test_variance

    def criterion(self, name: Criterion, at: int = 0) -> float:
        """Its value in a measured state, the initial one by default. mean_square: S. trace: S by the trace alone.
        sharpness: that of the batches over 2 / eta. exceeded: the share of batches with eta > eta_crit(X_batch).
        critical: eta over n / ||K||."""
        r = self.result
        if name == "critical":
            return float(r.learning_rate * r.exact_norm[at])
        if name == "trace":
            e = self.experiment
            rho = 1 / self.batch_size
            if not e.replacement:
                rho = (e.n_train - self.batch_size) / (self.batch_size * (e.n_train - 1))
            return float(rho * r.learning_rate * r.trace[at])
        return float(getattr(r, name)[at])


@dataclass(frozen=True)
class StabilityRun:
    """What one seed gave: a training for each batch size and multiple."""

    experiment: StabilityMap
    trainings: Mapping[Cell, Watched]

    @property
    def undiverged(self) -> list[Watched]:
        return [t for t in self.trainings.values() if not t.result.diverged]

    def outcomes(self, outcome: Outcome) -> list[Watched]:
        return [t for t in self.trainings.values() if t.outcome == outcome]
