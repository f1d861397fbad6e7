"""What was measured in a training: the same columns for gradient descent, SGD and other optimisers. Without torch."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from .catapult import steps_above


@dataclass(frozen=True)
class History:
    """A training of T steps; its states are those before each step and the one after the last step. NaN stands where
    nothing was measured, and for nothing else. For a full batch the batch's columns are the whole set's.

    Each of T steps: ``learning_rate``; ``batches``, the samples drawn, (T, 0) for the full batch or where they were not
    kept; ``batch_loss`` and ``batch_loss_after``, eq. (1) on them before and after the step;
    ``batch_critical_learning_rate``, b / ||K_batch|| before it, and ``batch_hessian_critical_learning_rate``,
    2 / lambda_max of the batch's Hessian; ``batch_break_even_rate`` and ``whole_break_even_rate``, the rates at which
    this step, to first order, leaves the batch's and the whole set's loss as it is: it rises above them, and at every
    rate where they are not positive.

    Each of T + 1 states, on the whole training set: ``loss``, eq. (1), infinite where it is not a number any more;
    ``kernel_norm``, ||K||; ``critical_learning_rate``, n / ||K||; ``hessian_critical_learning_rate``,
    2 / lambda_max(H); ``unstable_directions``, the number of eigendirections with eta > n / lambda_i; ``splits``,
    ``L_<=s`` and ``L_>s`` of eq. (2) for each s of ``tops``; ``turning``, how much of the change of ``L_>s`` since the
    last state with a split comes from the turning of the eigenvectors: ``L_>s`` of this state's residual, less the same
    in the eigenvectors of that state; ``seconds``, the time from the state to the next one, all measurements included;
    ``quantity_values``, one column for each of ``quantities``, which are a person's own.

    Each of e evaluations: ``evaluated``, the iteration; ``training_loss``, ``validation_loss``, and
    ``validation_error``, the fraction of wrong classes, NaN for regression; ``steps_above``, the number of steps before
    with eta - eta_crit(X_batch) > 1e-8, the paper's estimate of the number of catapults. Between two measurements a
    batch's critical rate counts as unchanged.

    ``best`` is the evaluation with the best validation loss or, for classes, error; -1 without any.
    ``initial_critical_learning_rate`` is the whole set's, NaN where it was not measured. ``converged``: the loss came
    below the value at which the training stops. ``diverged``: it was ended because the loss had exploded.
    """

    learning_rate: Float[np.ndarray, " T"]
    batches: Int[np.ndarray, "T b"]
    batch_loss: Float[np.ndarray, " T"]
    batch_loss_after: Float[np.ndarray, " T"]
    batch_critical_learning_rate: Float[np.ndarray, " T"]
    batch_hessian_critical_learning_rate: Float[np.ndarray, " T"]

    loss: Float[np.ndarray, " T+1"]
    kernel_norm: Float[np.ndarray, " T+1"]
    critical_learning_rate: Float[np.ndarray, " T+1"]
    hessian_critical_learning_rate: Float[np.ndarray, " T+1"]
    unstable_directions: Float[np.ndarray, " T+1"]
    splits: Float[np.ndarray, "T+1 s 2"]
    seconds: Float[np.ndarray, " T+1"]
    quantity_values: Float[np.ndarray, "T+1 q"]

    evaluated: Int[np.ndarray, " e"]
    training_loss: Float[np.ndarray, " e"]
    validation_loss: Float[np.ndarray, " e"]
    validation_error: Float[np.ndarray, " e"]
    steps_above: Int[np.ndarray, " e"]

    tops: tuple[int, ...]
    quantities: tuple[str, ...]
    best: int
    initial_critical_learning_rate: float
    converged: bool
    diverged: bool

    turning: Float[np.ndarray, "T+1 s"] | None = None
    batch_break_even_rate: Float[np.ndarray, " T"] | None = None
    whole_break_even_rate: Float[np.ndarray, " T"] | None = None

    def __post_init__(self) -> None:
        """NaN in the columns that files written before they existed do not have."""
        unknown = {"turning": self.splits.shape[:2]}
        unknown |= dict.fromkeys(("batch_break_even_rate", "whole_break_even_rate"), self.learning_rate.shape)
        for name, shape in unknown.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.full(shape, np.nan))

    def __len__(self) -> int:
        """Steps taken."""
        return len(self.learning_rate)

    @property
    def iteration(self) -> Int[np.ndarray, " states"]:
        """The numbers of the states: how many steps were taken before each."""
        return np.arange(len(self) + 1)

    @property
    def rate_at_states(self) -> Float[np.ndarray, " states"]:
        """The rate of the step from each state; for the last state, from which there is none, the rate before."""
        last = self.learning_rate[-1:] if len(self) else [np.nan]
        return np.append(self.learning_rate, last)

    @property
    def measured(self) -> int:
        """How many states can have all measurements: all of them, but for the last one of a training that diverged."""
        return len(self) + 1 - self.diverged

    @property
    def exceeds(self) -> Bool[np.ndarray, " T"]:
        """The steps with eta > eta_crit(X_batch)."""
        return self.learning_rate > self.batch_critical_learning_rate

    @property
    def catapults(self) -> int:
        """As the paper counts them: the steps above until the best evaluation; until the end where there is none."""
        if self.best >= 0:
            return int(self.steps_above[self.best])
        return int(steps_above(self.learning_rate, self.batch_critical_learning_rate)[-1])

    def split(self, top: int) -> tuple[Float[np.ndarray, " states"], Float[np.ndarray, " states"]]:
        """``L_<=s`` and ``L_>s`` at the states for s = ``top``, one of ``tops``. Raises ``ValueError`` for another."""
        if top not in self.tops:
            raise ValueError(f"top = {top!r}: allowed are {', '.join(map(str, self.tops))}")
        losses = self.splits[:, self.tops.index(top)]
        return losses[:, 0], losses[:, 1]

    def turned(self, top: int, start: int, end: int) -> float:
        """How much of the change of ``L_>s`` from one state with a split to a later one comes from the turning of the
        eigenvectors; the rest is what the steps change while these are held fixed. NaN where a state between them
        lacks it."""
        split = np.isfinite(self.splits[:, 0, 0])
        between = self.turning[start + 1 : end + 1, self.tops.index(top)][split[start + 1 : end + 1]]
        return float(between.sum()) if split[start] and split[end] and len(between) else np.nan

    @property
    def loss_top(self) -> Float[np.ndarray, " states"]:
        """``L_<=s`` at the states for the largest of ``tops``."""
        return self.split(self.tops[-1])[0]

    @property
    def loss_rest(self) -> Float[np.ndarray, " states"]:
        """``L_>s`` at the states for the largest of ``tops``."""
        return self.split(self.tops[-1])[1]

    def quantity(self, name: str) -> Float[np.ndarray, " states"]:
        """A person's own quantity at the states, one of ``quantities``. Raises ``ValueError`` for another."""
        if name not in self.quantities:
            allowed = f"allowed are {', '.join(self.quantities)}" if self.quantities else "the training measured none"
            raise ValueError(f"name = {name!r}: {allowed}")
        return self.quantity_values[:, self.quantities.index(name)]
