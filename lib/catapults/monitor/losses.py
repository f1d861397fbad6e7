"""The Hessian of a loss in the network's outputs: what a loss adds to the tangent kernel's place in the curvature."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Loss = Callable[[Any, Any], Tensor]  # of outputs and targets, a scalar that is differentiable twice in the outputs

_ROUNDING = 1e-4  # relative to the largest entry: what rounding may change in a product with the Hessian


class Mixes(ValueError):
    """A loss in which samples are not apart from one another, so that its Hessian is not block by block."""


def value_and_gradient(loss: Loss, outputs: Tensor, targets: Any) -> tuple[Tensor, Tensor, Tensor]:
    """L, dL/df with a graph of its own, and the f that it depends on. Raises ``ValueError`` where L is no scalar."""
    f = outputs.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(f, targets)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss: returns {found}; allowed is one real number, such as with reduction='mean'")
        if not value.requires_grad:
            raise ValueError("loss: its value has no gradient by the outputs; allowed are losses that have one")
        (gradient,) = torch.autograd.grad(value.reshape(()), f, create_graph=True)
    return value.detach(), gradient, f


def product(gradient: Tensor, f: Tensor, vector: Tensor) -> Tensor:
    """``d^2L/df^2`` times a vector in the outputs' shape; zero where the gradient does not depend on them."""
    if not gradient.requires_grad:
        return torch.zeros_like(f)
    (image,) = torch.autograd.grad(gradient, f, vector, retain_graph=True, allow_unused=True)
    return torch.zeros_like(f) if image is None else image


def blocks(gradient: Float[Tensor, "n ..."], f: Float[Tensor, "n ..."]) -> Float[Tensor, "n c c"]:
    """``d^2L/df_i^2`` of each sample i, for a loss that is a sum or a mean over samples: c products.

    Raises :class:`Mixes` for any other loss, found out by the product with a random vector.
    """
    c = f[0].numel()
    columns = []
    for k in range(c):
        vector = torch.zeros_like(f)
        vector.view(len(f), c)[:, k] = 1
        columns.append(product(gradient, f, vector).reshape(len(f), c))
    H = torch.stack(columns, 2)
    random = torch.randn(f.shape, generator=torch.Generator().manual_seed(0)).to(f)
    apart = (H @ random.reshape(len(f), c, 1)).reshape(f.shape)
    difference = (product(gradient, f, random) - apart).abs().max()
    if difference > _ROUNDING * apart.abs().max() and difference > 0:
        raise Mixes("loss: depends on samples jointly; allowed are sums and means over samples")
    return H


def roots(H: Float[Tensor, "n c c"]) -> Float[Tensor, "n c c"]:
    """The symmetric square root of each block. Raises ``ValueError`` where one is not positive semi-definite."""
    if H.shape[1] == 1:
        values, vectors = H[:, 0], torch.ones_like(H)
    else:
        values, vectors = torch.linalg.eigh((H + H.mT) / 2)
    if values.min() < -_ROUNDING * values.abs().max():
        raise not_convex()
    return (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT


def not_convex() -> ValueError:
    return ValueError(
        "loss: is not convex in the outputs, so that it has no Gauss-Newton matrix; allowed are convex losses, "
        "or matrix='hessian'"
    )
