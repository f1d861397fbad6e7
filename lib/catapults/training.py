"""Gradient descent under the MSE of eq. (1), measured at every step."""

import math
import re
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from . import tangent

DIVERGED = 1e6  # times the initial loss, or 1 if that is larger: far above every catapult's peak


@dataclass(frozen=True)
class LearningRate:
    """A rate given absolutely, or as a multiple of the critical learning rate at initialisation."""

    value: float
    relative: bool = False

    @classmethod
    def parse(cls, given: "float | str | LearningRate") -> "LearningRate":
        """Read ``6``, ``"6"`` or ``"1.67 eta_crit"``.

        Raises ``ValueError`` for anything else and for numbers that are not positive and finite.
        """
        if isinstance(given, LearningRate):
            return given
        match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(?:\*?\s*(eta_crit))?\s*", str(given), re.IGNORECASE)
        try:
            value = float(match[1])
        except (TypeError, ValueError):
            value = math.nan
        if isinstance(given, bool) or not (0 < value < math.inf):
            raise ValueError(
                f"learning_rate = {given!r}: allowed are a positive number, or a multiple of the critical learning "
                'rate at initialisation such as "1.67 eta_crit"'
            )
        return cls(value, match[2] is not None)

    def __str__(self) -> str:
        return f"{self.value:g} eta_crit" if self.relative else f"{self.value:g}"


@dataclass(frozen=True)
class Step:
    """What is measured at the weights before update ``iteration``; after the last update once more."""

    iteration: int
    loss: float  # eq. (1)
    loss_top: float  # L_<=s of eq. (2)
    loss_rest: float  # L_>s of eq. (2)
    kernel_norm: float  # ||K||, the largest eigenvalue
    critical_learning_rate: float  # n / ||K||
    unstable_directions: int  # eigendirections with eta > n / lambda_i
    learning_rate: float
    seconds: float  # of the whole step, measurements included


class History:
    """The steps of a run; every field of :class:`Step` is an array over the iterations."""

    def __init__(self, steps: list[Step], diverged: bool, top: int):
        self.steps = steps
        self.diverged = diverged
        self.top = top

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in Step.__dataclass_fields__:
            raise AttributeError(f"History has no {name!r}; allowed are {', '.join(Step.__dataclass_fields__)}")
        return np.array([getattr(step, name) for step in self.steps])

    def __len__(self) -> int:
        return len(self.steps)


def gradient_descent(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Float[Tensor, "n ..."],
    learning_rate: float | str | LearningRate,
    steps: int,
    top: int = 5,
    progress: bool = False,
) -> History:
    """Full-batch gradient descent with a constant rate on ``mean((f - y)^2)``; the model's weights are changed.

    Every step costs one forward and one backward pass, the tangent kernel included. Divergence ends the run early and
    is recorded: the last step then holds the loss that was reached (or infinity) and NaN for what has no meaning.

    Raises ``ValueError`` for a rate that is not positive, steps below 1, ``top`` outside 1 ... n c - 1, targets whose
    number differs from the outputs', inputs or targets that are not finite, and models whose tangent kernel does not
    exist, is zero or is not finite.
    """
    rate = LearningRate.parse(learning_rate)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps = {steps!r}: allowed are whole numbers of at least 1")
    for name, values in (("inputs", inputs), ("targets", targets)):
        if not torch.isfinite(values).all():
            raise ValueError(f"{name}: holds values that are not finite; allowed are finite ones")
    if not 1 <= top < targets.numel():
        raise ValueError(f"top = {top!r}: allowed are whole numbers from 1 to {targets.numel() - 1}")

    layers = tangent.layers(model, inputs)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    record: list[Step] = []
    eta = rate.value
    for iteration in tqdm(range(steps + 1), desc="gradient descent", disable=None if progress else True, leave=False):
        started = time.perf_counter()
        linearization = tangent.linearize(model, inputs, layers)
        residual = _residual(linearization.outputs, targets)
        loss = residual.square().mean().item()
        m = residual.numel()
        kernel = None
        if iteration == 0:
            if rate.relative and math.isfinite(loss):  # the rate comes from the kernel, the step from the rate
                kernel = linearization.kernel()
                eta *= tangent.critical_learning_rate(kernel, m)
            if not math.isfinite(loss * eta):
                raise ValueError("model: at initialisation its outputs are not finite, or its tangent kernel is zero")
        if not loss <= DIVERGED * max(record[0].loss if record else loss, 1.0):
            record.append(_diverged(iteration, loss, eta, time.perf_counter() - started))
            return History(record, True, top)

        cotangent = residual * (-2 * eta / m) if iteration < steps else None
        if kernel is None:
            kernel, _ = linearization.kernel_and_vjp(cotangent, add_to=parameters)
        else:
            linearization.vjp(cotangent, add_to=parameters)
        if not torch.isfinite(kernel).all():
            if not record:
                raise ValueError("model: at initialisation its tangent kernel is not finite")
            record.append(_diverged(iteration, loss, eta, time.perf_counter() - started))
            return History(record, True, top)
        eigenvalues, eigenvectors = tangent.spectrum(kernel)
        loss_top, loss_rest = tangent.split_by_eigenvectors(residual.flatten(), eigenvectors, top)
        norm = eigenvalues[-1].item()
        record.append(
            Step(
                iteration=iteration,
                loss=loss,
                loss_top=loss_top,
                loss_rest=loss_rest,
                kernel_norm=norm,
                critical_learning_rate=m / norm if norm > 0 else math.inf,
                unstable_directions=int((eigenvalues * eta > m).sum()),
                learning_rate=eta,
                seconds=time.perf_counter() - started,
            )
        )
    return History(record, False, top)


def _residual(outputs: Float[Tensor, "n ..."], targets: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    if outputs.numel() != targets.numel() or len(outputs) != len(targets):
        raise ValueError(
            f"targets: shape {tuple(targets.shape)}; allowed is as many a sample as outputs, {tuple(outputs.shape)}"
        )
    return outputs - targets.reshape(outputs.shape)


def _diverged(iteration: int, loss: float, eta: float, seconds: float) -> Step:
    nan = math.nan
    loss = loss if math.isfinite(loss) else math.inf
    return Step(iteration, loss, nan, nan, nan, nan, 0, eta, seconds)
