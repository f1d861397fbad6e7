"""Seven optimisers on one task: does test performance follow the alignment of the AGOP? (Fig. 11, Table 3)"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator

from ..display import Text
from ..sweep import Sweep
from .base import PositiveInt
from .learning import LearningSweep, Seeds, Trained, Training, describe_task, performances, told, train

TITLES = {
    "gd": "GD",
    "sgd": "SGD",
    "sgd+m": "SGD with momentum",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "adam": "Adam",
}


class Optimizers(LearningSweep):
    """The same network trained by several optimisers, from several seeds each (section 4)."""

    rates: Annotated[dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=2)]
    batch_size: PositiveInt  # of all but GD
    seed: ClassVar[int] = 0  # each training has one of the seeds
    seeds: Seeds

    @field_validator("rates")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
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

    def trainings(self) -> dict[tuple[str, int], Training]:
        """By optimiser and seed."""
        return {
            (name, seed): self.training(
                learning_rate=rate,
                optimizer="sgd" if name == "gd" else name,
                batch_size=self.n_train if name == "gd" else self.batch_size,
                seed=seed,
            )
            for name, rate in self.rates.items()
            for seed in self.seeds
        }

    def run(self, progress: bool = False) -> "OptimizerRun":
        """Train all. Raises the errors of :func:`catapults.data.load` and :class:`.learning.TrainingFailed`."""
        trainings = self.trainings()
        results, swept = train(list(trainings.values()), self.scheduler, progress)
        return OptimizerRun(self, dict(zip(trainings, results, strict=True)), swept)


@dataclass(frozen=True)
class OptimizerRun:
    """``results``: by optimiser and seed."""

    experiment: Optimizers
    results: dict[tuple[str, int], Trained]
    sweep: Sweep

    def of(self, optimizer: str) -> list[Trained]:
        """One for each seed."""
        return [self.results[optimizer, seed] for seed in self.experiment.seeds]

    def measured(self, optimizer: str) -> dict[str, Float[np.ndarray, " seeds"]]:
        """Test performance (loss or error) and alignment for each seed."""
        results = self.of(optimizer)
        return {
            "test": performances(results, self.experiment.dataset),
            "alignment": np.array([r.alignment for r in results]),
        }

    def describe(self) -> Text:
        """What was trained on what, in words."""
        e, results = self.experiment, list(self.results.values())
        rates = ", ".join(f"{TITLES[name]} {rate:g}" for name, rate in e.rates.items())
        diverged, converged = sum(r.diverged for r in results), sum(r.converged for r in results)
        text = (
            f"{describe_task(e, results)} Learning rates: {rates}. Batches of {e.batch_size}, drawn without "
            f"replacement until all had their turn; GD takes all. Seeds {', '.join(map(str, e.seeds))}. {converged} of "
            f"{len(results)} trainings reach that loss, {diverged} diverge."
        )
        return told(text, self.sweep, results)
