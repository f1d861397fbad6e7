"""SGD that watches, now and then, whether it is stable: the whole set's loss, ||K||, and the criteria for a spike."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field, model_validator

from .. import data
from .base import Experiment, Positive, PositiveInt
from .network import Network


@dataclass(frozen=True)
class Recurred:
    """What a training of T steps gave. NaN or infinite is what was no longer finite.

    ``loss``: eq. (1) on the whole training set every ``loss_every`` steps from 0 on. ``norm``: ||K|| / n every
    ``norm_every``, by three products with K from a vector of ones. The columns of k states, ``measured``, every
    ``criteria_every`` steps and at the end: ``exact_norm``, ||K|| / n by all eigenvalues; ``trace``, tr(K) / n;
    ``mean_square``, S of :func:`catapults.stability.mean_square`; ``sharpness``,
    :func:`catapults.stability.batch_sharpness` over 2 / eta; ``exceeded``, the share of drawn batches with
    eta > eta_crit(X_batch).
    """

    steps: int  # taken
    learning_rate: float
    steps_above: int  # with eta > eta_crit(X_batch)
    loss: Float[np.ndarray, " l"]
    norm: Float[np.ndarray, " m"]
    measured: Int[np.ndarray, " k"]
    exact_norm: Float[np.ndarray, " k"]
    trace: Float[np.ndarray, " k"]
    mean_square: Float[np.ndarray, " k"]
    sharpness: Float[np.ndarray, " k"]
    exceeded: Float[np.ndarray, " k"]
    converged: bool
    diverged: bool
    test_loss: float  # at the end
    test_variance: float  # of the test targets: the loss of the best constant
    source: str
    parameters: int


class Watching(Network):
    """A network with one output, how its training is watched, and when it ends."""

    n_test: PositiveInt
    replacement: bool
    steps: PositiveInt
    stop_below: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    loss_every: PositiveInt
    norm_every: PositiveInt
    criteria_every: PositiveInt

    @model_validator(mode="after")
    def _has_one_output(self) -> "Watching":
        if (data.n_outputs(self.dataset) or 1) > 1:
            raise ValueError(f"dataset = {self.dataset!r}: has several outputs; allowed are tasks with one")
        return self


class Recurrence(Watching, Experiment):
    Result: ClassVar[type] = Recurred

    multiple: Positive  # learning rate over n / ||K|| at initialisation
    batch_size: PositiveInt

    @model_validator(mode="after")
    def _fits(self) -> "Recurrence":
        if self.batch_size > self.n_train and not self.replacement:
            raise ValueError(f"batch_size = {self.batch_size}: allowed are 1 to n_train = {self.n_train}")
        return self

    @property
    def name(self) -> str:
        how = f"batches of {self.batch_size}, rate {self.multiple:g} eta_crit"
        return f"watched SGD on {self.short}, {how}, at most {self.steps} steps, seed {self.seed}"
