"""Gradient descent that measures the kernel at every step."""

from typing import Any

from ... import training
from ...data import Task
from ...experiments.descent import GradientDescent, Measured, Restart
from .networks import start


def compute(
    experiment: GradientDescent | Restart, task: Task, needed: tuple[Any, ...], device: str, **options: Any
) -> Measured:
    if isinstance(experiment, Restart):
        descent, (before,) = experiment.of, needed
        rate, steps, hessian_every = float(before.history.learning_rate[-1]), experiment.steps, None
    else:
        descent, rate, steps = experiment, experiment.learning_rate, experiment.steps
        hessian_every = experiment.hessian_every or steps + 1
    s = start(descent, task, device)
    history = training.gradient_descent(
        s.model, s.inputs, s.targets, rate, steps, descent.top, hessian_every, **options
    )
    return Measured(history, s.source, s.parameters, s.outputs, s.input_norms.numpy())
