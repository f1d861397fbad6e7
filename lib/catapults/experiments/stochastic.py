"""Mini-batch SGD with the critical rate of every batch."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from .. import schedules
from .base import Experiment, PositiveInt, Scheduled
from .descent import Measured
from .network import Network, check_tops


class Sampling(Network):
    """SGD from one initialisation: all but the rate and what is measured. ``steps`` are the most that are taken."""

    train_last_layer: bool
    batch_size: PositiveInt
    replacement: bool
    steps: PositiveInt
    stop_below: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    top: PositiveInt
    loss_every: PositiveInt

    @model_validator(mode="after")
    def _fits(self) -> "Sampling":
        check_tops(self.top, self.n_train, self.dataset)
        if self.batch_size > self.n_train and not self.replacement:
            raise ValueError(f"batch_size = {self.batch_size}: allowed are 1 to n_train = {self.n_train}")
        return self


class StochasticDescent(Sampling, Experiment):
    Result: ClassVar[type] = Measured

    learning_rate: Scheduled
    kernel_every: PositiveInt | None  # of the whole training set
    hessian_every: PositiveInt | None  # of the batch
    break_even_every: PositiveInt | None = None

    @model_validator(mode="after")
    def _in_time(self) -> "StochasticDescent":
        if schedules.parse(self.learning_rate).last >= self.steps:
            raise ValueError(f"learning_rate = {self.learning_rate!r}: allowed are changes before {self.steps}")
        return self

    @property
    def name(self) -> str:
        how = f"batches of {self.batch_size}, rate {self.learning_rate}"
        return f"SGD on {self.short}, {how}, at most {self.steps} steps, seed {self.seed}"
