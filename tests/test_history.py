import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from catapults.catapult import steps_above
from catapults.history import History


def made(T=3, **changes):
    """A history of T steps in which little was measured."""
    nan = np.full(T + 1, np.nan)
    columns = {
        "learning_rate": np.full(T, 0.5),
        "batches": np.zeros((T, 0), np.int64),
        "batch_loss": np.ones(T),
        "batch_loss_after": np.ones(T),
        "batch_critical_learning_rate": np.array([0.6, np.nan, 0.4, 0.4])[:T],
        "batch_hessian_critical_learning_rate": nan[:T],
        **{
            name: nan
            for name in (
                "loss",
                "kernel_norm",
                "critical_learning_rate",
                "hessian_critical_learning_rate",
                "unstable_directions",
            )
        },
        "splits": np.arange(4.0 * (T + 1)).reshape(T + 1, 2, 2),
        "seconds": np.ones(T + 1),
        "quantity_values": np.stack([nan, np.arange(T + 1.0)], 1),
        "evaluated": np.array([0, 2]),
        **{name: np.zeros(2) for name in ("training_loss", "validation_loss", "validation_error")},
        "steps_above": np.array([0, 7]),
        "tops": (1, 3),
        "quantities": ("a", "b"),
        "best": -1,
        "initial_critical_learning_rate": np.nan,
        "converged": False,
        "diverged": False,
    }
    return History(**columns | changes)


def test_views():
    history = made()
    assert len(history) == 3 and history.iteration.tolist() == [0, 1, 2, 3] and history.measured == 4
    assert history.rate_at_states.tolist() == [0.5] * 4 and history.exceeds.tolist() == [False, False, True]
    assert history.split(1)[1].tolist() == [1, 5, 9, 13] and history.split(3)[0].tolist() == [2, 6, 10, 14]
    assert history.loss_top.tolist() == [2, 6, 10, 14] and history.loss_rest.tolist() == [3, 7, 11, 15]
    assert history.quantity("b").tolist() == [0, 1, 2, 3]
    assert made(diverged=True).measured == 3
    with pytest.raises(ValueError, match="top = 2: allowed are 1, 3"):
        history.split(2)
    with pytest.raises(ValueError, match="name = 'c': allowed are a, b"):
        history.quantity("c")
    with pytest.raises(ValueError, match="name = 'c': the training measured none"):
        dataclasses.replace(history, quantities=()).quantity("c")


def test_the_last_rate_is_that_of_the_last_step():
    assert made(learning_rate=np.array([1.0, 2.0, 3.0])).rate_at_states.tolist() == [1, 2, 3, 3]
    assert np.isnan(made(T=0).rate_at_states).tolist() == [True]


def test_catapults_are_counted_until_the_best_evaluation():
    assert made(best=1).catapults == 7 and made(best=0).catapults == 0
    assert made().catapults == 1  # no evaluation: all steps


@pytest.mark.parametrize(
    "critical, counts",
    [
        ([0.4, 0.4, 0.6], [0, 1, 2, 2]),
        ([np.nan, 0.4, np.nan], [0, 0, 1, 2]),  # in between it counts as unchanged
        ([0.4, np.inf, np.nan], [0, 1, 1, 1]),
        ([0.5 - 1e-9, 0.5 - 1e-7, 0.5], [0, 0, 1, 1]),  # by more than rounding
        ([], [0]),
    ],
)
def test_steps_above(critical, counts):
    assert steps_above(np.full(len(critical), 0.5), np.array(critical, float)).tolist() == counts


def test_it_is_plain():
    """So that a file can hold it."""
    for field in dataclasses.fields(History):
        assert isinstance(getattr(made(), field.name), np.ndarray | int | float | tuple | bool | None), field.name


@pytest.mark.parametrize("module", ["history", "schedules", "catapult"])
def test_without_torch(module):
    code = f"import sys, catapults.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
