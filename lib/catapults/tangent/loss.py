"""The residual of the loss of eq. (1), and the split of the loss by eigenspaces of the kernel, eq. (2)."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..checks import whole_number
from .eigenspace import Kernel, top_eigenpairs


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


def split_loss(residual: Float[Tensor, " *shape"], kernel: Kernel, top: int) -> tuple[float, float]:
    """The two parts of the MSE in eq. (2): in the top-``top`` eigenspace of the kernel, and in the rest.

    ``residual`` holds f - y, shape (n,) or (n, c). The parts add up to ``(residual**2).mean()``.

    Raises ``ValueError`` unless 1 <= top < m and the residual has m entries, and for a kernel that is not finite.
    """
    if residual.numel() != len(kernel):
        raise ValueError(f"residual: {residual.numel()} entries for a kernel of {len(kernel)} rows; allowed: as many")
    whole_number(1, len(kernel) - 1, top=top)
    return split_by_eigenvectors(residual.flatten(), top_eigenpairs(kernel, top).vectors[:, -top:])


def split_by_eigenvectors(residual: Float[Tensor, " m"], top_vectors: Float[Tensor, "m top"]) -> tuple[float, float]:
    """:func:`split_loss` where an orthonormal basis of the top eigenspace is known already."""
    residual = residual.to(top_vectors)
    components = top_vectors.T @ residual
    rest = residual - top_vectors @ components
    return components.square().sum().item() / len(residual), rest.square().sum().item() / len(residual)
