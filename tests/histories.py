"""Histories made by hand, and results of experiments with them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from catapults.compute import Results
from catapults.compute.sweep import Outcome
from catapults.experiments import Experiment
from catapults.experiments.descent import Measured
from catapults.history import History

MADE = {
    "drawn": "0" * 12,
    "modules": {"training/loop.py": "0" * 12},
    "versions": {"torch": "2.13.0", "numpy": "2.4.6", "scipy": "1.17.1", "python": "3.11.7", "catapults": "0.1.0"},
    "commit": "abc1234",
    "device": "cpu (1 thread, x86_64)",
    "date": "2026-11-20 12:00 UTC",
    "seconds": 1.5,
    "memory": 300,
}


def history(loss, learning_rate=1.0, *, tops=(1,), kind=np.float64, **columns) -> History:
    """A training with this loss at its states. ``columns``: others, as values for all steps or states or one each;
    NaN without. ``kind``: of all numbers; the record holds ``float32``."""
    loss = np.array(loss, kind)
    t = len(loss) - 1

    def column(name: str, length: int, value: Any = np.nan) -> np.ndarray:
        return np.array(np.broadcast_to(np.array(columns.pop(name, value), kind), length))

    steps = ["batch_loss", "batch_loss_after", "batch_critical_learning_rate", "batch_hessian_critical_learning_rate"]
    states = [
        "kernel_norm",
        "critical_learning_rate",
        "hessian_critical_learning_rate",
        "unstable_directions",
        "seconds",
    ]
    evaluations = ["training_loss", "validation_loss", "validation_error"]
    return History(
        loss=loss,
        learning_rate=np.array(np.broadcast_to(np.array(learning_rate, kind), t)),
        batches=np.array(columns.pop("batches", np.zeros((t, 0))), int),
        **{name: column(name, t) for name in steps},
        **{name: column(name, t + 1) for name in states},
        splits=np.array(columns.pop("splits", np.full((t + 1, len(tops), 2), np.nan)), kind),
        quantity_values=np.zeros((t + 1, 0), kind),
        evaluated=np.zeros(0, int),
        **{name: np.zeros(0, kind) for name in evaluations},
        steps_above=np.zeros(0, int),
        tops=tuple(tops),
        quantities=(),
        best=-1,
        initial_critical_learning_rate=float("nan"),
        **{"converged": False, "diverged": False} | columns,
    )


def measured(of: History, outputs: int = 1) -> Measured:
    """The result of an experiment with this history."""
    return Measured(of, "Made by hand.", 1000, outputs, np.ones(16))


def made(found: Iterable[tuple[Experiment, Any]], **changed: Any) -> Results:
    """Results as :func:`catapults.compute.obtain` gives them, stored earlier. ``changed``: fields of all outcomes."""
    outcomes = [Outcome(experiment, result, MADE, **changed) for experiment, result in found]
    return Results({outcome.experiment.key: outcome for outcome in outcomes})
