"""Several optimisers on one task: does test performance follow the alignment of the AGOP? (Fig. 11, Table 3)"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from .base import Positive, PositiveInt, Seed
from .fits import Fit, Fitted, LearningPage, Strong

TITLES = {
    "gd": "GD",
    "sgd": "SGD",
    "sgd+m": "SGD with momentum",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "adam": "Adam",
}


class Optimizers(LearningPage):
    """The same network trained by several optimisers, from several seeds each (section 4)."""

    rates: Annotated[dict[str, Positive], Field(min_length=2)]
    batch_size: PositiveInt  # of all but GD
    seed: ClassVar[int] = 0  # each training has one of the seeds
    seeds: Annotated[list[Seed], Field(min_length=1)]

    @field_validator("rates")
    @classmethod
    def _optimizers_known(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            if name not in TITLES:
                raise ValueError(f"rates = {value!r}: {name!r} is no optimiser; allowed are {', '.join(TITLES)}")
        return value

    @model_validator(mode="after")
    def _trainings_fit(self) -> "Optimizers":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: allowed is each once")
        self.trainings()
        return self

    def of_each_seed(self) -> list["Optimizers"]:
        return [self]  # all seeds together are one run

    def trainings(self) -> Mapping[tuple[str, int], Fit]:
        """By optimiser and seed."""
        return {
            (name, seed): self.fit(
                learning_rate=rate,
                optimizer="sgd" if name == "gd" else name,
                batch_size=self.n_train if name == "gd" else self.batch_size,
                seed=seed,
            )
            for name, rate in self.rates.items()
            for seed in self.seeds
        }

    def run(self, results: Mapping[tuple[str, int], Fitted]) -> "OptimizerRun":
        return OptimizerRun(self, dict(results))


@dataclass(frozen=True)
class OptimizerRun:
    """``results``: by optimiser and seed."""

    experiment: Optimizers
    results: dict[tuple[str, int], Fitted]
    strong: Strong | None = None

    def of(self, optimizer: str) -> list[Fitted]:
        """One for each seed."""
        return [self.results[optimizer, seed] for seed in self.experiment.seeds]
