"""SGD that measures the kernel of every batch."""

from typing import Any

from ... import sgd
from ...data import Task
from ...experiments.descent import Measured
from ...experiments.stochastic import StochasticDescent
from .networks import start


class NothingToTrain(ValueError):
    """The loss is below the goal before the first step."""


def compute(
    experiment: StochasticDescent, task: Task, needed: tuple[Any, ...], device: str, **options: Any
) -> Measured:
    e = experiment
    s = start(e, task, device)
    if not e.train_last_layer:
        list(s.model.modules())[-1].requires_grad_(False)
    history = sgd.stochastic_gradient_descent(
        s.model,
        s.inputs,
        s.targets,
        e.learning_rate,
        e.batch_size,
        e.steps,
        replacement=e.replacement,
        seed=e.seed,
        stop_below=e.stop_below,
        top=e.top,
        loss_every=e.loss_every,
        kernel_every=e.kernel_every,
        hessian_every=e.hessian_every,
        break_even_every=e.break_even_every,
        **options,
    )
    if not len(history.learning_rate):
        here = f"stop_below = {e.stop_below!r}: the loss is {history.loss[0]:.3g} before the first step"
        raise NothingToTrain(f"{here}; allowed is less than that")
    return Measured(history, s.source, s.parameters, s.outputs, s.input_norms.numpy())
