"""Stochastic gradient descent under the MSE of eq. (1), with the tangent kernel of every batch (section 3.3)."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from . import schedules, tangent
from .checks import whole_number
from .schedules import LearningRate, LearningRates
from .tangent.eigenspace import NotFinite, top_eigenpairs
from .tangent.span import within_span
from .training import DIVERGED, check_finite, check_tops, due, hessian_rate, parts_of_loss, residual_of

_TOLERANCE = 1e-2  # of the Hessian's critical rate, relatively, at most; usually the square of it
_AT_ONCE = 1024  # samples in a forward pass that only the loss is wanted of


@dataclass(frozen=True)
class SGDHistory:
    """A run of T steps. What belongs to the whole training set was measured before each step and after the last one;
    NaN stands where nothing was measured.

    ``learning_rate[t]`` is that of the step from iteration t, ``batches[t]`` its samples. ``batch_loss[t]`` and
    ``batch_loss_after[t]`` are the loss on them before and after that step, ``batch_critical_learning_rate[t]`` is
    b / ||K_batch|| before it, ``batch_hessian_critical_learning_rate[t]`` is 2 / lambda_max of the batch's Hessian.
    """

    learning_rate: Float[np.ndarray, " T"]
    batches: Int[np.ndarray, "T b"]
    batch_loss: Float[np.ndarray, " T"]
    batch_loss_after: Float[np.ndarray, " T"]
    batch_critical_learning_rate: Float[np.ndarray, " T"]
    batch_hessian_critical_learning_rate: Float[np.ndarray, " T"]
    loss: Float[np.ndarray, " T+1"]  # of the whole training set, eq. (1)
    kernel_norm: Float[np.ndarray, " T+1"]  # ||K|| on the whole training set
    critical_learning_rate: Float[np.ndarray, " T+1"]  # n / ||K||
    splits: Float[np.ndarray, "T+1 s 2"]  # L_<=s and L_>s of eq. (2) for each of ``tops``
    tops: tuple[int, ...]
    seconds: float
    diverged: bool
    converged: bool  # whether the loss came below the value at which the run stops

    def __len__(self) -> int:
        """Steps taken."""
        return len(self.learning_rate)

    def split(self, top: int) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
        """L_<=s and L_>s over the iterations for s = ``top``, one of ``tops``."""
        return parts_of_loss(self.splits, self.tops, top)

    @property
    def exceeds(self) -> np.ndarray:
        """The steps with eta > eta_crit(X_batch)."""
        return self.learning_rate > self.batch_critical_learning_rate


def stochastic_gradient_descent(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Float[Tensor, "n ..."],
    learning_rate: int | float | str | LearningRate | LearningRates,
    batch_size: int,
    steps: int,
    *,
    replacement: bool = False,
    seed: int = 0,
    stop_below: float = 0.0,
    top: int | Sequence[int] = 1,
    loss_every: int = 1,
    kernel_every: int | None = 1,
    hessian_every: int | None = None,
    progress: bool = False,
) -> SGDHistory:
    """Mini-batch SGD on ``mean((f - y)^2)``, every batch with its tangent kernel; the model's weights are changed.

    ``learning_rate``: what :func:`catapults.schedules.parse` reads; multiples are of n / ||K|| on the whole training
    set. ``replacement``: every batch is ``batch_size`` independent draws; otherwise the set is shuffled and cut into
    batches, and once more when fewer than a batch are left. ``stop_below``: end when the loss of the training set is
    below. ``top``: as in :func:`catapults.training.gradient_descent`.

    A step costs one forward and one backward pass on the batch, its kernel and critical rate included. The whole set
    is measured besides: its loss every ``loss_every`` steps, a forward pass that also gives ``batch_loss_after``; its
    kernel's norm and the split of the loss every ``kernel_every`` steps; the Hessian of the batch every
    ``hessian_every``, where ``None`` means never. All but the Hessian are measured at the end of the run once more.
    Divergence ends the run early and is recorded. A fully connected network is trained within its inputs' span.

    Raises ``ValueError`` as :func:`catapults.training.gradient_descent`, for a batch without samples or, without
    replacement, larger than the training set, and for a ``stop_below`` that is negative.
    """
    rates = schedules.parse(learning_rate)
    n, m = len(inputs), targets.numel()
    whole_number(1, steps=steps, loss_every=loss_every)
    periods = {"kernel_every": kernel_every, "hessian_every": hessian_every}
    whole_number(1, **{name: period for name, period in periods.items() if period is not None})
    whole_number(0, seed=seed)
    whole_number(1, math.inf if replacement else n, batch_size=batch_size)
    if not 0 <= stop_below < math.inf:
        raise ValueError(f"stop_below = {stop_below!r}: allowed are numbers of at least 0")
    if rates.last >= steps:
        raise ValueError(f"learning_rate = {learning_rate!r}: allowed are changes at iterations below steps = {steps}")
    check_finite(inputs=inputs, targets=targets)
    tops = check_tops(top, m)

    started = time.perf_counter()
    layers = tangent.layers(model, inputs)
    no_graph = bool(layers.chain)  # is needed: a tenth faster on small batches
    draws = batches(n, batch_size, replacement, seed)
    rows: list[tuple[float, ...]] = []
    drawn: list[Tensor] = []
    after: list[float] = []
    eta, initial, diverged, converged = math.nan, math.nan, False, False
    with within_span(model, inputs, layers.chain) as inputs:
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        whole = _WholeSet(model, inputs, targets, layers, tops)
        for iteration in tqdm(range(steps + 1), desc="SGD", disable=None if progress else True, leave=False):
            rate = rates.at(iteration) if iteration < steps else None
            relative = rate is not None and rate.relative
            try:
                last = iteration == steps
                wanted = rates.relative if not rows else relative and rate.current
                if (kernel_every and last) or due(kernel_every, iteration) or wanted:
                    whole.measure_kernel(iteration)
                elif last or iteration % loss_every == 0:
                    whole.measure_loss(iteration)
                if rows:
                    after.append(whole.loss_on(drawn[-1]) if whole.latest == iteration else math.nan)
                if whole.latest == iteration and whole.losses[-1] < stop_below:
                    converged = True
                    if kernel_every:
                        whole.measure_kernel(iteration)
                if converged or last:
                    break
                if not rows:
                    initial = whole.critical.get(0, math.nan)
                if rate is not None:
                    value = rate.absolute(initial, whole.critical.get(iteration, math.nan)) if relative else rate.value
                    eta = value if math.isfinite(value) or not rows else eta  # a network that has died keeps its rate
                if not math.isfinite(eta):
                    raise ValueError(
                        "model: its tangent kernel is zero or not finite, which has no critical learning rate"
                    )
                batch = next(draws)
                x, y = inputs[batch], targets[batch]
                with torch.inference_mode(no_graph):
                    linearization = tangent.linearize(model, x, layers)
                    residual = residual_of(linearization.outputs, y)
                    flat = residual.flatten()
                    loss = flat.dot(flat).item() / len(flat)
                    if not loss <= DIVERGED * max(whole.losses[0], 1.0):
                        raise NotFinite
                exact_rate = math.nan
                if due(hessian_every, iteration):
                    exact_rate = hessian_rate(model, x, y, tolerance=_TOLERANCE, linearization=linearization)
                with torch.inference_mode(no_graph):
                    norm, _ = linearization.norm_and_vjp(residual * (-2 * eta / len(flat)), add_to=parameters)
            except NotFinite:
                if not rows:
                    raise ValueError(
                        "model: at initialisation its outputs or its tangent kernel are not finite"
                    ) from None
                diverged = True
                break
            drawn.append(batch)
            rows.append((eta, loss, tangent.critical_rate(norm, len(flat)), exact_rate))
    after += [math.nan] * (len(rows) - len(after))
    columns = np.array(rows).reshape(len(rows), 4).T
    loss_of_all, norm, critical, splits = whole.columns(len(rows) + 1)
    return SGDHistory(
        learning_rate=columns[0],
        batches=np.array([batch.tolist() for batch in drawn], np.int64).reshape(-1, batch_size),
        batch_loss=columns[1],
        batch_loss_after=np.array(after),
        batch_critical_learning_rate=columns[2],
        batch_hessian_critical_learning_rate=columns[3],
        loss=loss_of_all,
        kernel_norm=norm,
        critical_learning_rate=critical,
        splits=splits,
        tops=tuple(tops),
        seconds=time.perf_counter() - started,
        diverged=diverged,
        converged=converged,
    )


def batches(n: int, size: int, replacement: bool, seed: int) -> Iterator[Int[Tensor, " size"]]:
    """Indices of samples without end, drawn on the CPU; see :func:`stochastic_gradient_descent`."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        if replacement:
            yield from torch.randint(n, (max(1, n // size), size), generator=generator)
        else:
            yield from torch.randperm(n, generator=generator)[: n - n % size].view(-1, size)


class _WholeSet:
    """What is measured on the whole training set, and when."""

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor, layers: tangent.Layers, tops: Sequence[int]):
        self.model, self.inputs, self.targets, self.layers, self.tops = model, inputs, targets, layers, tops
        self.iterations: list[int] = []
        self.losses: list[float] = []
        self.kernels: dict[int, tuple[float, np.ndarray]] = {}  # iteration -> norm, splits
        self.critical: dict[int, float] = {}
        self.residual = targets
        self._pairs, self._fits = None, True

    @property
    def latest(self) -> int:
        """The iteration of the latest loss."""
        return self.iterations[-1] if self.iterations else -1

    def measure_loss(self, iteration: int) -> None:
        with torch.no_grad():
            self._note(iteration, torch.cat([self.model(part) for part in self.inputs.split(_AT_ONCE)]))

    def measure_kernel(self, iteration: int) -> None:
        if iteration in self.kernels:
            return
        linearization = tangent.linearize(self.model, self.inputs, self.layers)
        self._note(iteration, linearization.outputs)
        self._fits = self._fits if self.kernels else linearization.kernel_fits()
        kernel = linearization.kernel() if self._fits else linearization
        pairs = top_eigenpairs(kernel, self.tops[-1], self._pairs and self._pairs.start)
        flat = self.residual.flatten()
        splits = [tangent.split_by_eigenvectors(flat, pairs.vectors[:, -s:]) for s in self.tops]
        self.kernels[iteration] = pairs.values[-1].item(), np.array(splits)
        self.critical[iteration] = tangent.critical_rate(pairs.values[-1].item(), len(flat))
        self._pairs = pairs

    def _note(self, iteration: int, outputs: Tensor) -> None:
        residual = residual_of(outputs, self.targets)
        loss = residual.square().mean().item()
        if not loss <= DIVERGED * max(self.losses[0] if self.losses else loss, 1.0):
            raise NotFinite
        self.residual = residual
        if iteration != self.latest:
            self.iterations.append(iteration)
            self.losses.append(loss)

    def loss_on(self, batch: Tensor) -> float:
        """The loss on some samples, from the latest measurement."""
        return self.residual[batch].square().mean().item()

    def columns(self, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Loss, norm, critical rate and splits over the iterations."""
        loss, norm, critical = (np.full(length, np.nan) for _ in range(3))
        splits = np.full((length, len(self.tops), 2), np.nan)
        loss[self.iterations] = self.losses
        for iteration, (value, parts) in self.kernels.items():
            norm[iteration], splits[iteration], critical[iteration] = value, parts, self.critical[iteration]
        return loss, norm, critical, splits
