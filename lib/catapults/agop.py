"""The average gradient outer product of a network, and its alignment with that of the true function (section 4)."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from .precision import full_precision
from .tangent.blocks import add_gram, mirrored
from .tangent.calls import flat_outputs
from .tangent.trial import refuse_unsuitable
from .tangent.undisturbed import undisturbed

_NUMBERS = 2**24  # of input gradients at a time (64 MiB in float32)
_SAMPLES = 1024  # at a time, at most: what a forward and backward pass keeps grows with them


def agop(model: nn.Module, inputs: Shaped[Tensor, "n ..."]) -> Float[Tensor, "d d"]:
    """The AGOP of eq. (5): the mean of ``J(x)^T J(x)`` over the inputs, d numbers each when flattened.

    J(x), of shape (c, d), is the Jacobian of the model's outputs by its inputs; for one output it is the gradient.
    It costs one forward and one backward pass (c backward ones) and d^2 numbers, some samples at a time.

    Raises ``ValueError`` when there is no input, when inputs are not of a floating-point type or outputs not
    differentiable in them, and when the model mixes samples (batch norm in training mode) or is random (dropout in
    training mode).
    """
    if isinstance(inputs, Tensor) and not (len(inputs) and inputs.is_floating_point()):
        found = f"shape {tuple(inputs.shape)}, {inputs.dtype}"
        raise ValueError(f"inputs: {found}; allowed is at least one sample, of a floating-point type")
    refuse_unsuitable(model, inputs)
    d = inputs[0].numel()
    with undisturbed(model), full_precision(), torch.enable_grad():
        total = inputs.new_zeros(d, d)
        for part in inputs.detach().split(max(1, min(_SAMPLES, _NUMBERS // d))):
            x = part.clone().requires_grad_()
            by_output = flat_outputs(model(x), len(x)).sum(0).split(1)
            for index, output in enumerate(by_output):
                gradient = _gradient(output, x, retain=index + 1 < len(by_output))
                add_gram(total, gradient.reshape(len(x), d).T, 1 / len(inputs))
        return mirrored(total)


def _gradient(output: Float[Tensor, "1"], x: Float[Tensor, "n ..."], retain: bool) -> Float[Tensor, "n ..."]:
    gradient = None
    if output.requires_grad:
        (gradient,) = torch.autograd.grad(output, x, retain_graph=retain, allow_unused=True)
    if gradient is None:
        raise ValueError("model: its outputs are not differentiable in its inputs; allowed are outputs that are")
    return gradient


def factor(G: Float[Tensor, "d d"], rest: float) -> Float[Tensor, "d r"]:
    """V of the smallest rank r with ``||G - V V^T|| <= rest ||G||`` in the Frobenius norm, from G's top eigenvectors.

    The angle between ``V V^T`` and G is then at most ``arcsin(rest)``, so that an alignment with either differs by no
    more than ``rest``. Raises ``ValueError`` for a G that is zero, not finite or not positive semi-definite.
    """
    values, vectors = torch.linalg.eigh(G.detach().cpu().double()) if torch.isfinite(G).all() else (G.new_zeros(1), G)
    if not values[-1] > 0 or values[0] < -1e-4 * values[-1]:
        raise ValueError("G: allowed are finite positive semi-definite matrices that are not zero")
    left = values.square().cumsum(0).sqrt()  # of the norm, without the eigenvalues above
    values, vectors = (kept[..., left > rest * left[-1]] for kept in (values, vectors))
    return (vectors * values.clamp(min=0).sqrt()).to(G.dtype)


def alignment(G: Shaped[Tensor, "..."], G_star: Shaped[Tensor, "..."]) -> float:
    """Cosine of the angle between two (d, d) matrices, eq. (6): from 0 to 1 for positive semi-definite ones.

    NaN where one of them is zero or not finite. Raises ``ValueError`` for different shapes.
    """
    if G.shape != G_star.shape or G.dim() != 2:
        raise ValueError(f"G, G_star: shapes {tuple(G.shape)} and {tuple(G_star.shape)}; allowed are two equal (d, d)")
    a, b = (_unit(matrix) for matrix in (G, G_star))
    return max(-1.0, min(1.0, cosine)) if math.isfinite(cosine := (a * b).sum().item()) else math.nan


def _unit(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Of Frobenius norm 1, in float64; scaled before it is squared, so that no number is too small or too large."""
    matrix = matrix.detach().cpu().double()
    scaled = matrix / matrix.abs().max()
    return scaled / scaled.square().sum().sqrt()
