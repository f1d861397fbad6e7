"""TEMPORARY until the loop is merged."""

import numpy as np

from ...history import History


def new(h):
    n = np.zeros(0)
    if hasattr(h, "steps"):
        T = len(h.steps) - 1
        a = lambda k: np.array([getattr(s, k) for s in h.steps], float)
        return History(
            a("learning_rate")[:T],
            np.zeros((T, 0), int),
            a("loss")[:T],
            np.full(T, np.nan),
            a("critical_learning_rate")[:T],
            np.full(T, np.nan),
            a("loss"),
            a("kernel_norm"),
            a("critical_learning_rate"),
            a("hessian_critical_learning_rate"),
            a("unstable_directions"),
            h.splits,
            a("seconds"),
            n.astype(int),
            n,
            n,
            n,
            n.astype(int),
            h.tops,
            -1,
            float(a("critical_learning_rate")[0]),
            h.diverged,
            False,
        )
    if hasattr(h, "batches"):
        T = len(h.learning_rate)
        return History(
            h.learning_rate,
            h.batches,
            h.batch_loss,
            h.batch_loss_after,
            h.batch_critical_learning_rate,
            h.batch_hessian_critical_learning_rate,
            h.loss,
            h.kernel_norm,
            h.critical_learning_rate,
            np.full(T + 1, np.nan),
            np.full(T + 1, np.nan),
            h.splits,
            np.full(T + 1, np.nan),
            n.astype(int),
            n,
            n,
            n,
            n.astype(int),
            h.tops,
            -1,
            float(h.critical_learning_rate[0]),
            h.diverged,
            h.converged,
        )
    T = len(h.learning_rate)
    x = np.full(T + 1, np.nan)
    return History(
        h.learning_rate,
        np.zeros((T, 0), int),
        h.batch_loss,
        np.full(T, np.nan),
        np.full(T, np.nan),
        np.full(T, np.nan),
        x,
        x,
        x,
        x,
        x,
        np.zeros((T + 1, 0, 2)),
        x,
        h.iterations,
        h.training_loss,
        h.validation_loss,
        h.validation_error,
        h.steps_above,
        (),
        h.best,
        h.initial_critical_learning_rate,
        h.diverged,
        h.converged,
    )
