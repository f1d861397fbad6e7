"""Gradient descent under the MSE of eq. (1), measured at every step."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from . import schedules, tangent
from .checks import whole_number
from .schedules import LearningRate, LearningRates
from .tangent import hessian
from .tangent.eigenspace import NotFinite, top_eigenpairs

DIVERGED = 1e6  # times the initial loss, or 1 if that is larger: far above every catapult's peak


@dataclass(frozen=True)
class Step:
    """What is measured at the weights before update ``iteration``; after the last update once more."""

    iteration: int
    loss: float  # eq. (1)
    splits: tuple[tuple[float, float], ...]  # L_<=s and L_>s of eq. (2) for each s of the history
    kernel_norm: float  # ||K||, the largest eigenvalue
    critical_learning_rate: float  # n / ||K||
    hessian_critical_learning_rate: float  # 2 / lambda_max(H); NaN where it was not measured
    unstable_directions: int  # eigendirections with eta > n / lambda_i
    learning_rate: float
    seconds: float  # of the whole step, measurements included


class History:
    """The steps of a run; every field of :class:`Step` is an array over the iterations."""

    def __init__(self, steps: list[Step], diverged: bool, tops: Sequence[int]):
        self.steps = steps
        self.diverged = diverged
        self.tops = tuple(tops)

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in Step.__dataclass_fields__:
            raise AttributeError(f"History has no {name!r}; allowed are {', '.join(Step.__dataclass_fields__)}")
        return np.array([getattr(step, name) for step in self.steps])

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def measured(self) -> int:
        """How many steps have all measurements: all of them, but for the last one of a run that diverged."""
        return len(self) - self.diverged

    def split(self, top: int) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
        """L_<=s and L_>s over the iterations for s = ``top``, one of ``tops``."""
        return parts_of_loss(self.splits, self.tops, top)

    @property
    def loss_top(self) -> Float[np.ndarray, " t"]:
        """L_<=s over the iterations for the largest of ``tops``."""
        return self.split(self.tops[-1])[0]

    @property
    def loss_rest(self) -> Float[np.ndarray, " t"]:
        """L_>s over the iterations for the largest of ``tops``."""
        return self.split(self.tops[-1])[1]


def gradient_descent(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Float[Tensor, "n ..."],
    learning_rate: int | float | str | LearningRate | LearningRates,
    steps: int,
    top: int | Sequence[int] = 5,
    hessian_every: int | None = None,
    progress: bool = False,
) -> History:
    """Full-batch gradient descent on ``mean((f - y)^2)``, measured at every step; the model's weights are changed.

    ``learning_rate``: what :func:`catapults.schedules.parse` reads. ``top``: the dimension s of the top
    eigenspace in which the loss is split, or several in ascending order. ``hessian_every``: measure the Hessian's
    critical rate every that many iterations, which costs several steps' time each.

    Every step costs one forward and one backward pass, the tangent kernel included. A kernel that does not fit in
    memory is not formed: its top eigenspace comes from products with vectors. Divergence ends the run early and is
    recorded: the last step then holds the loss that was reached (or infinity) and NaN for what has no meaning.

    Raises ``ValueError`` for a rate that is not positive or is set after the last step, steps or ``hessian_every``
    below 1, ``top`` outside 1 ... n c - 1, targets whose number differs from the outputs', inputs or targets that are
    not finite, and models whose tangent kernel does not exist, is not finite or, where the rate is a multiple, is zero.
    """
    schedule = schedules.parse(learning_rate)
    whole_number(1, steps=steps)
    if hessian_every is not None:
        whole_number(1, hessian_every=hessian_every)
    if schedule.last >= steps:
        raise ValueError(f"learning_rate = {learning_rate!r}: allowed are changes at iterations below steps = {steps}")
    check_finite(inputs=inputs, targets=targets)
    tops = check_tops(top, targets.numel())

    layers = tangent.layers(model, inputs)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    record: list[Step] = []
    m, eta, pairs, fits = targets.numel(), math.nan, None, True
    for iteration in tqdm(range(steps + 1), desc="gradient descent", disable=None if progress else True, leave=False):
        started = time.perf_counter()
        linearization = tangent.linearize(model, inputs, layers)
        residual = residual_of(linearization.outputs, targets)
        loss = residual.square().mean().item()
        rate, exact, last = schedule.at(iteration), due(hessian_every, iteration), iteration == steps
        if rate and not rate.relative:
            eta = rate.value
        if not record and not math.isfinite(loss):
            raise ValueError("model: at initialisation its outputs are not finite")
        try:
            if not loss <= DIVERGED * max(record[0].loss if record else loss, 1.0):
                raise NotFinite
            fits = fits if record else linearization.kernel_fits()
            measure_first = not record or exact or last or not fits or (rate is not None and rate.relative)
            if measure_first:
                kernel = linearization.kernel() if fits else linearization
            else:
                kernel, _ = linearization.kernel_and_vjp(residual * (-2 * eta / m), add_to=parameters)
            pairs = top_eigenpairs(kernel, tops[-1], pairs and pairs.start)
            critical = tangent.critical_rate(pairs.values[-1].item(), m)
            if rate and rate.relative and (math.isfinite(critical) or not record):  # a dead network keeps its rate
                eta = rate.absolute(record[0].critical_learning_rate if record else critical, critical)
            if not math.isfinite(eta):
                raise ValueError("model: its tangent kernel is zero or not finite, which has no critical learning rate")
            if pairs.values[0] * eta > m:
                pairs = top_eigenpairs(kernel, 2 * len(pairs.values), pairs.start, above=m / eta)
        except NotFinite:
            if not record:
                raise ValueError("model: at initialisation its tangent kernel is not finite") from None
            record.append(_diverged(iteration, loss, len(tops), eta, time.perf_counter() - started))
            return History(record, True, tops)
        hessian_critical = math.nan
        if exact:
            start = hessian.kernel_direction(model, linearization, pairs.vectors[:, -1])
            hessian_critical = hessian_rate(model, inputs, targets, start)
        if measure_first and not last:
            linearization.vjp(residual * (-2 * eta / m), add_to=parameters)
        flat = residual.flatten()
        record.append(
            Step(
                iteration=iteration,
                loss=loss,
                splits=tuple(tangent.split_by_eigenvectors(flat, pairs.vectors[:, -s:]) for s in tops),
                kernel_norm=pairs.values[-1].item(),
                critical_learning_rate=critical,
                hessian_critical_learning_rate=hessian_critical,
                unstable_directions=int((pairs.values * eta > m).sum()),
                learning_rate=eta,
                seconds=time.perf_counter() - started,
            )
        )
        del kernel, linearization  # before those of the next step are formed
    return History(record, False, tops)


def parts_of_loss(
    splits: Float[np.ndarray, "t s 2"], tops: Sequence[int], top: int
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """Those of ``splits`` that belong to ``top``, one of ``tops``. Raises ``ValueError`` for another."""
    if top not in tops:
        raise ValueError(f"top = {top!r}: allowed are {', '.join(map(str, tops))}")
    losses = splits[:, tops.index(top)]
    return losses[:, 0], losses[:, 1]


def check_finite(**tensors: Tensor) -> None:
    """Raise ``ValueError`` for the first tensor, passed by the name of its parameter, that is not finite."""
    for name, values in tensors.items():
        if not torch.isfinite(values).all():
            raise ValueError(f"{name}: holds values that are not finite; allowed are finite ones")


def check_tops(top: int | Sequence[int], m: int) -> list[int]:
    """Dimensions of top eigenspaces of a kernel of m rows, as a list. Raises ``ValueError``."""
    tops = list(top) if isinstance(top, Sequence) else [top]
    for dimension in tops:
        whole_number(1, top=dimension)
    if not tops or sorted(set(tops)) != tops or tops[-1] >= m:
        raise ValueError(f"top = {top!r}: allowed are whole numbers from 1 to {m - 1}, ascending")
    return tops


def hessian_rate(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    start: Tensor | None = None,
    tolerance: float = 1e-4,
    linearization: tangent.Linearization | None = None,
) -> float:
    """The Hessian's critical rate; NaN without convergence or finite gradients: a measurement does not end a run."""
    try:
        return hessian.critical_learning_rate(model, inputs, targets, start, tolerance, linearization)
    except (RuntimeError, ValueError):
        return math.nan


def due(period: int | None, iteration: int) -> bool:
    """Whether an iteration is one of those with a measurement every ``period``, where ``None`` means never."""
    return period is not None and iteration % period == 0


def residual_of(outputs: Float[Tensor, "n ..."], targets: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """f - y in the outputs' shape. Raises ``ValueError`` unless there are as many targets."""
    if outputs.numel() != targets.numel() or len(outputs) != len(targets):
        raise ValueError(
            f"targets: shape {tuple(targets.shape)}; allowed is as many a sample as outputs, {tuple(outputs.shape)}"
        )
    return outputs - targets.reshape(outputs.shape)


def _diverged(iteration: int, loss: float, tops: int, eta: float, seconds: float) -> Step:
    nan = math.nan
    loss = loss if math.isfinite(loss) else math.inf
    return Step(iteration, loss, ((nan, nan),) * tops, nan, nan, nan, 0, eta, seconds)
