"""SGD with several batch sizes: catapults, test performance and AGOP (Figs. 9, 10, 29 to 32, 34; Table 1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from .. import schedules
from .base import PositiveInt, Rate, Seed
from .fits import Fit, Fitted, LearningPage, Strong, undiverged


class BatchSizes(LearningPage):
    """SGD at one or several rates, with several batch sizes, from several seeds each (section 4, appendix E)."""

    learning_rates: Annotated[list[Rate], Field(min_length=1)]
    batch_sizes: Annotated[list[PositiveInt], Field(min_length=2)]  # n_train is gradient descent
    replacement: bool
    critical_every: PositiveInt
    seed: ClassVar[int] = 0  # each training has one of the seeds
    seeds: Annotated[list[Seed], Field(min_length=1)]

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
        for index, rate in enumerate(self.learning_rates):
            self.check_changes(rate, f"learning_rates[{index}]")
        self.trainings()
        return self

    def of_each_seed(self) -> list["BatchSizes"]:
        return [self]  # all seeds together are one run

    def trainings(self) -> Mapping[tuple[Rate, int, int], Fit]:
        """By learning rate, batch size and seed. Each is evaluated every ``evaluate_every`` steps, or after an epoch
        where that is longer; for batches above 500 one step in 200 has its critical rate measured, as it changes little
        there and costs most."""
        return {
            (rate, size, seed): self.fit(
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

    def run(self, results: Mapping[tuple[Rate, int, int], Fitted]) -> "BatchRun":
        return BatchRun(self, dict(results))


@dataclass(frozen=True)
class BatchRun:
    """``results``: by learning rate, batch size and seed."""

    experiment: BatchSizes
    results: dict[tuple[Rate, int, int], Fitted]
    strong: Strong | None = None

    def of(self, rate: Rate, size: int) -> list[Fitted]:
        """One for each seed."""
        return [self.results[rate, size, seed] for seed in self.experiment.seeds]

    def compared(self, rate: Rate, size: int) -> list[Fitted]:
        """Those of :meth:`of` that did not diverge; none where most did."""
        every = self.of(rate, size)
        finite = undiverged(every)
        return finite if 2 * len(finite) >= len(every) else []

    def left_out(self, rate: Rate) -> dict[int, int]:
        """How many trainings diverged, by batch size where any did."""
        counts = {size: sum(r.diverged for r in self.of(rate, size)) for size in self.experiment.batch_sizes}
        return {size: count for size, count in counts.items() if count}
