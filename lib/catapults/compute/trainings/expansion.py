"""Gradient descent of the models beside a network."""

from typing import Any

import numpy as np

from ... import training
from ...data import Task
from ...expansion import expansion, frozen_gates
from ...experiments.expansion import Expanded, ExpandedDescent
from .networks import start


def compute(
    experiment: ExpandedDescent, task: Task, needed: tuple[Any, ...], device: str, progress: bool = False, **_: Any
) -> Expanded:
    """Without checkpoints: each of the trainings is short."""
    e = experiment
    s = start(e, task, device)
    loss, norm = np.full((2, len(e.multiples), e.steps + 1), np.nan)
    diverged = []
    for row, multiple in enumerate(e.multiples):
        model = frozen_gates(s.model) if e.model == "frozen gates" else expansion(s.model, _ORDER[e.model])
        rate = f"{multiple:g} eta_crit"
        history = training.gradient_descent(model, s.inputs, s.targets, rate, e.steps, 1, progress=progress)
        states = len(history) + 1
        loss[row, :states], norm[row, :states] = history.loss, history.kernel_norm
        diverged.append(history.diverged)
    return Expanded(loss, norm, tuple(diverged), s.source, s.parameters, s.outputs)


_ORDER = {"linear": 1, "quadratic": 2}
