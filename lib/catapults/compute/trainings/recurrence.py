"""SGD that watches whether it is stable."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ... import sgd, stability
from ...data import Split, Task
from ...devices import device as find_device
from ...experiments.recurrence import Recurred, Recurrence
from ...tangent import Linearization, critical_learning_rate, linearize
from ...tangent.eigenspace import NotFinite
from ...training import Point, Quantity, performance
from .networks import start

BATCHES = 400  # that are drawn for the criteria: the standard error of a share is 2.5 % at most
_PRODUCTS = 3  # with the kernel: each leaves a share lambda_2 / lambda_1 of what is not the top eigenvector
_CRITERIA = ("exact_norm", "trace", "mean_square", "sharpness", "exceeded")


def compute(experiment: Recurrence, task: Task, needed: tuple[Any, ...], device: str, **options: Any) -> Recurred:
    e, s = experiment, start(experiment, task, device)
    eta = e.multiple * critical_learning_rate(linearize(s.model, s.inputs).kernel(), e.n_train)
    criteria = Criteria(eta, e)
    quantities = [Quantity("norm", lambda point: norm(point.linearization) / e.n_train, e.norm_every)]
    quantities += [Quantity(name, criteria.reader(name), e.criteria_every) for name in _CRITERIA]
    history = sgd.stochastic_gradient_descent(
        s.model, s.inputs, s.targets, eta, e.batch_size, e.steps, replacement=e.replacement, seed=e.seed,
        stop_below=e.stop_below, loss_every=e.loss_every, kernel_every=None, quantities=quantities, **options,
    )  # fmt: skip
    place = find_device(device)
    test = Split(task.test.inputs.to(place), task.test.targets.to(place))
    measured = np.flatnonzero(np.isfinite(history.quantity("trace")))
    return Recurred(
        steps=len(history),
        learning_rate=eta,
        steps_above=int(history.exceeds.sum()),
        loss=history.loss[:: e.loss_every].astype(np.float32),
        norm=history.quantity("norm")[:: e.norm_every].astype(np.float32),
        measured=measured,
        **{name: history.quantity(name)[measured] for name in _CRITERIA},
        converged=history.converged,
        diverged=history.diverged,
        test_loss=math.nan if history.diverged else performance(s.model, test, None)[0],
        test_variance=test.targets.double().var(0, correction=0).item(),
        source=s.source,
        parameters=s.parameters,
    )


def norm(linearization: Linearization) -> float:
    """||K|| without the kernel, by products with a vector, ones at first: as good as exact where the top eigenvector
    has one sign and the next eigenvalue is far below, as in ReLU networks."""
    v = torch.ones(len(linearization), 1, dtype=linearization.dtype, device=linearization.device)
    value = math.nan
    for _ in range(_PRODUCTS):
        product = linearization @ v
        value = (product.square().sum() / (v * product).sum()).item()
        v = product / product.norm()
    return value


class Criteria:
    """All that belongs to one kernel, computed once a state."""

    def __init__(self, eta: float, experiment: Recurrence):
        self._eta, self._e = eta, experiment
        self._point: Point | None = None
        self._values: dict[str, float] = {}

    def reader(self, name: str) -> Callable[[Point], float]:
        """One of them, as a :class:`catapults.training.Quantity` takes it."""
        return lambda point: self._at(point)[name]

    def _at(self, point: Point) -> dict[str, float]:
        if point is not self._point:
            self._point, self._values = point, self._measured(point.linearization.kernel(), point.residual)
        return self._values

    def _measured(self, kernel: Float[Tensor, "n n"], residual: Float[Tensor, "n ..."]) -> dict[str, float]:
        if not torch.isfinite(kernel).all():
            raise NotFinite
        e, n, eta = self._e, len(kernel), self._eta
        kernel, residual = kernel.cpu(), residual.flatten().cpu()
        values = torch.linalg.eigvalsh(kernel)
        generator = torch.Generator().manual_seed(e.seed)
        batches = torch.randint(n, (BATCHES, e.batch_size), generator=generator)
        return {
            "exact_norm": values[-1].item() / n,
            "trace": kernel.trace().item() / n,
            "mean_square": stability.mean_square(values, eta, e.batch_size, e.replacement),
            "sharpness": stability.batch_sharpness(kernel, residual, batches) * eta / 2,
            "exceeded": stability.critical_rates_exceeded(kernel, eta, batches),
        }
