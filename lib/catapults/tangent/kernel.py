"""The tangent kernel and the critical learning rate (section 2 of the paper)."""

import math

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from .eigenspace import Kernel, top_eigenpairs
from .linearization import linearize


def tangent_kernel(model: nn.Module, inputs: Shaped[Tensor, "n ..."]) -> Float[Tensor, "nc nc"]:
    """Empirical tangent kernel K of definition 1 on ``inputs``, over the parameters that require a gradient.

    A model with c outputs gives an (n c, n c) matrix, sample-major: row ``i c + k`` belongs to output k of sample i.

    The model is left as it was: parameters, buffers, whatever its modules hold, and the random numbers to come.

    Raises ``ValueError`` when the model mixes samples (batch norm in training mode), is random (dropout in training
    mode), overwrites its inputs or parameters, has no trainable parameter, or when there is no input; ``TypeError`` for
    inputs that are no tensor.
    """
    return linearize(model, inputs).kernel()


def critical_learning_rate(kernel: Kernel, n: int) -> float:
    """``n / lambda_max(K)``, the paper's approximation of the largest rate at which GD descends (section 2).

    It belongs to the loss ``1/n ||f - y||^2``; with c outputs and the loss averaged over them pass ``n * c``.
    A kernel of zeros has an infinite critical rate.

    Raises ``ValueError`` for a kernel with entries that are not finite.
    """
    return critical_rate(top_eigenpairs(kernel, 1).values[-1].item(), n)


def critical_rate(norm: float, n: int) -> float:
    """:func:`critical_learning_rate` where the kernel's norm is known already."""
    return n / norm if norm > 0 else math.inf
