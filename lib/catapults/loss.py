"""The residual f - y, of which eq. (1) is the mean square."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def residual_of(outputs: Float[Tensor, "n ..."], targets: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """f - y in the outputs' shape. Raises ``ValueError`` unless there are as many targets, and for complex ones."""
    if outputs.numel() != targets.numel() or len(outputs) != len(targets):
        raise ValueError(
            f"targets: shape {tuple(targets.shape)}; allowed is as many a sample as outputs, {tuple(outputs.shape)}"
        )
    if targets.dtype != outputs.dtype:
        targets = as_numbers(targets, outputs)
    return outputs - targets.reshape(outputs.shape)


def as_numbers(targets: Shaped[Tensor, "n ..."], outputs: Float[Tensor, "..."]) -> Float[Tensor, "n ..."]:
    """Targets in the precision of the outputs, but at least in single: whole numbers, truth values, other floats."""
    if targets.is_complex():
        raise ValueError(f"targets: {targets.dtype}; allowed are real numbers")
    return targets.to(torch.promote_types(outputs.dtype, torch.float32))
