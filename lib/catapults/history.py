"""What a training measured."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class History:
    learning_rate: np.ndarray
    batches: np.ndarray
    batch_loss: np.ndarray
    batch_loss_after: np.ndarray
    batch_critical_learning_rate: np.ndarray
    batch_hessian_critical_learning_rate: np.ndarray
    loss: np.ndarray
    kernel_norm: np.ndarray
    critical_learning_rate: np.ndarray
    hessian_critical_learning_rate: np.ndarray
    unstable_directions: np.ndarray
    splits: np.ndarray
    seconds: np.ndarray
    evaluated: np.ndarray
    training_loss: np.ndarray
    validation_loss: np.ndarray
    validation_error: np.ndarray
    steps_above: np.ndarray
    tops: tuple[int, ...]
    best: int
    initial_critical_learning_rate: float
    diverged: bool
    converged: bool

    def __len__(self):
        return len(self.learning_rate)

    @property
    def iteration(self):
        return np.arange(len(self.loss))

    @property
    def measured(self):
        return len(self.loss) - self.diverged

    def split(self, top):
        losses = self.splits[:, self.tops.index(top)]
        return losses[:, 0], losses[:, 1]

    @property
    def loss_top(self):
        return self.split(self.tops[-1])[0]

    @property
    def loss_rest(self):
        return self.split(self.tops[-1])[1]

    @property
    def exceeds(self):
        return self.learning_rate > self.batch_critical_learning_rate

    @property
    def rate_at_states(self):
        return np.append(self.learning_rate, self.learning_rate[-1:])

    @property
    def catapults(self):
        return int(self.steps_above[self.best])
