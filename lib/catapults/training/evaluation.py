"""How well a model does on a set of samples."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ..data import Split
from ..precision import full_precision
from ..tangent.loss import residual_of

_AT_ONCE = 256  # samples in a forward pass: what it keeps of them stays in a CPU's cache


def mean_squared_error(model: nn.Module, split: Split) -> float:
    """The loss of eq. (1) on a set."""
    return residual_of(predictions(model, split.inputs), split.targets).square().mean().item()


def performance(model: nn.Module, split: Split, classes: int | None) -> tuple[float, float]:
    """The loss on a set, and the fraction of its samples whose class is wrong: NaN for regression (``None``).

    A single output stands for two classes: the nearer of the two values that the targets have. Raises ``ValueError``
    where they have but one.
    """
    outputs = predictions(model, split.inputs)
    loss = residual_of(outputs, split.targets).square().mean().item()
    if classes is None:
        return loss, math.nan
    if outputs[0].numel() == 1:
        targets = split.targets.flatten()
        low, high = targets.min(), targets.max()
        if low == high:
            raise ValueError(f"split: its targets are all {low:g}; allowed are targets of two classes, both of them")
        middle = (low + high) / 2
        return loss, ((outputs.flatten() > middle) != (targets > middle)).double().mean().item()
    return loss, (outputs.argmax(1) != split.targets.argmax(1)).double().mean().item()


def predictions(model: nn.Module, inputs: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """The outputs, some samples at a time."""
    with full_precision(), torch.inference_mode():
        return torch.cat([model(part) for part in inputs.split(_AT_ONCE)])
