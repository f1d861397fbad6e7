"""SGD with several batch sizes: catapults, test performance and AGOP (Figs. 9, 10, 29 to 32, 34; Table 1)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator

from .. import schedules
from ..display import Text, number
from ..sweep import Sweep
from .base import PositiveInt
from .learning import LearningSweep, Rate, Seeds, Trained, Training, describe_task, performances, told, train


class BatchSizes(LearningSweep):
    """SGD at one or several rates, with several batch sizes, from several seeds each (section 4, appendix E)."""

    learning_rates: Annotated[list[Rate], Field(min_length=1)]
    batch_sizes: Annotated[list[PositiveInt], Field(min_length=2)]  # n_train is gradient descent
    replacement: bool
    critical_every: PositiveInt
    seed: ClassVar[int] = 0  # each training has one of the seeds
    seeds: Seeds

    @field_validator("learning_rates")
    @classmethod
    def _readable(cls, value: list[Rate]) -> list[Rate]:
        for index, rate in enumerate(value):
            schedules.check(rate, f"learning_rates[{index}]")
        return value

    @model_validator(mode="after")
    def _trainings_fit(self) -> "BatchSizes":
        for name in ("learning_rates", "batch_sizes", "seeds"):
            values = getattr(self, name)
            if len(set(map(str, values))) < len(values):
                raise ValueError(f"{name} = {values}: allowed is each once")
        if self.batch_sizes != sorted(self.batch_sizes):
            raise ValueError(f"batch_sizes = {self.batch_sizes}: allowed are sizes that ascend")
        if self.batch_sizes[-1] > self.n_train:
            raise ValueError(f"batch_sizes = {self.batch_sizes}: allowed are 1 to n_train = {self.n_train}")
        self.trainings()
        return self

    def trainings(self) -> dict[tuple[Rate, int, int], Training]:
        """By learning rate, batch size and seed. Each is evaluated every ``evaluate_every`` steps, or after an epoch
        where that is longer; for batches above 500 one step in 200 has its critical rate measured, as it changes little
        there and costs most."""
        return {
            (rate, size, seed): self.training(
                learning_rate=rate,
                batch_size=size,
                replacement=self.replacement,
                critical_every=self.critical_every if size <= 500 else 200 * self.critical_every,
                evaluate_every=max(self.evaluate_every, self.n_train // size),
                seed=seed,
            )
            for rate in self.learning_rates
            for size in reversed(self.batch_sizes)  # the longest first
            for seed in self.seeds
        }

    def run(self, progress: bool = False) -> "BatchRun":
        """Train all. Raises the errors of :func:`catapults.data.load` and :class:`.learning.TrainingFailed`."""
        trainings = self.trainings()
        results, swept = train(list(trainings.values()), self.scheduler, progress)
        return BatchRun(self, dict(zip(trainings, results, strict=True)), swept)


@dataclass(frozen=True)
class BatchRun:
    """``results``: by learning rate, batch size and seed."""

    experiment: BatchSizes
    results: dict[tuple[Rate, int, int], Trained]
    sweep: Sweep

    def of(self, rate: Rate, size: int) -> list[Trained]:
        """One for each seed."""
        return [self.results[rate, size, seed] for seed in self.experiment.seeds]

    def measured(self, rate: Rate, size: int) -> dict[str, Float[np.ndarray, " seeds"]]:
        """Catapults, test performance (loss or error) and alignment for each seed; an AGOP of zeros has none, NaN."""
        results = self.of(rate, size)
        return {
            "catapults": np.array([float(r.catapults) for r in results]),
            "test": performances(results, self.experiment.dataset),
            "alignment": np.array([r.alignment for r in results]),
        }

    def describe(self) -> Text:
        """What was trained on what, in words."""
        e, results = self.experiment, list(self.results.values())
        rates = [
            f"{str(rate).replace('eta_crit', 'η_crit')}"
            + (f" (η_crit = {number(critical)})" if np.isfinite(critical) else "")
            for rate in e.learning_rates
            for critical in [
                np.mean([r.initial_critical_learning_rate for s in e.batch_sizes for r in self.of(rate, s)])
            ]
        ]
        sampling = "drawn with replacement" if e.replacement else "drawn without replacement until all had their turn"
        diverged = sum(r.diverged for r in results)
        converged = sum(r.converged for r in results)
        ends = f"{converged} of {len(results)} trainings reach that loss, {diverged} diverge."
        text = (
            f"{describe_task(e, results)} Where an epoch is longer, it is looked at after each epoch. Learning rate: "
            f"{' and '.join(rates)}. Batches are {sampling}; a batch of {e.n_train} is gradient descent. Seeds "
            f"{', '.join(map(str, e.seeds))}; each draws data, initial weights and batches. {ends}"
        )
        return told(text, self.sweep, results)
