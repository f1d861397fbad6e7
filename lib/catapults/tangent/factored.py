"""The Hessian of a fully connected ReLU network on few samples: its products by the chain rule, its vectors in factors.

With a layer's inputs ``a`` and the loss's derivatives ``delta`` with respect to its outputs, both for n samples, the
gradient for its weights is ``s delta^T a``. Along any direction in the space of parameters it changes by
``s (X^T a + delta^T Y)``, where X and Y are the changes of delta and of a. So the Hessian's range consists of such
vectors. They are kept as their factors X and Y: n times the layers' widths, where the weights are widths squared.

Let S take a direction V of the weights to ``x = s a V^T`` and ``y = s delta V`` in every layer, and let M take these,
in one forward and one backward pass, to the X and Y that they cause. Then the Hessian is ``S^T M S``. The vectors
``S^T q`` have the inner products ``<q, G q'>`` with ``G = S S^T``, which needs products between samples only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ..precision import full_precision
from .linear import LinearPart
from .linearization import Linearization
from .loss import residual_of


@dataclass(frozen=True)
class _Layer:
    """A linear layer ``z = scale * W a + b``; ``gate`` is the derivative of a by the outputs of the layer before."""

    part: LinearPart
    delta: Float[Tensor, "n fan_out"]
    gate: Float[Tensor, "n fan_in"] | float

    @property
    def a(self) -> Float[Tensor, "n fan_in"]:
        return self.part.A

    @property
    def weight(self) -> Float[Tensor, "fan_out fan_in"]:
        return self.part.module.weight

    @property
    def s(self) -> float:
        """The scale in S: a weight that is not trained has no direction."""
        return self.part.scale if self.weight.requires_grad else 0.0

    @property
    def has_trained_bias(self) -> bool:
        bias = self.part.module.bias
        return bias is not None and bias.requires_grad

    @cached_property
    def inner(self) -> Float[Tensor, "n n"]:
        """What G makes of X in this layer; a bias is a weight of an input that is always 1."""
        return self.s**2 * (self.a @ self.a.T) + float(self.has_trained_bias)

    @cached_property
    def outer(self) -> Float[Tensor, "n n"]:
        return self.s**2 * (self.delta @ self.delta.T)


class FactoredHessian:
    """``S^T M S``, the Hessian of ``mean((f - y)^2)`` over the trainable parameters.

    ``linearization`` is that of a model for which :func:`applies`. Factors q are flat: first X of every layer, then Y
    of all but the first one, whose inputs do not change.
    """

    def __init__(self, model: nn.Module, linearization: Linearization, targets: Shaped[Tensor, "n ..."]):
        residual = residual_of(linearization.outputs, targets)
        self._curvature = 2 / residual.numel()  # of the loss in each output
        chain = linearization.layers.chain
        self._layers = []
        for part in linearization.parts:
            before = model.get_submodule(chain[chain.index(part.name) - 1])
            gate = part.A.sign() if isinstance(before, nn.ReLU) else 1.0
            self._layers.append(_Layer(part, part.pulled_back(self._curvature * residual), gate))
        self._shapes = [layer.delta.shape for layer in self._layers] + [layer.a.shape for layer in self._layers[1:]]

    @property
    def size(self) -> int:
        """Numbers in q."""
        return sum(shape.numel() for shape in self._shapes)

    def along(self, cotangent: Float[Tensor, "n c"]) -> Float[Tensor, " q"]:
        """q of ``J^T v``."""
        X = [layer.part.pulled_back(cotangent) for layer in self._layers]
        return _joined(X, [torch.zeros_like(layer.a) for layer in self._layers[1:]])

    def metric(self, q: Float[Tensor, " q"]) -> Float[Tensor, " q"]:
        """``G q``: x and y of the vector ``S^T q``."""
        X, Y = self._parts(q)
        with full_precision(), torch.no_grad():
            x = [layer.inner @ X_of for layer, X_of in zip(self._layers, X, strict=True)]
            y = []
            for layer, X_of, Y_of, x_of in zip(self._layers[1:], X[1:], Y, x[1:], strict=True):
                x_of.addmm_(layer.a @ Y_of.T, layer.delta, alpha=layer.s**2)
                y.append((layer.outer @ Y_of).addmm_(layer.delta @ X_of.T, layer.a, alpha=layer.s**2))
        return _joined(x, y)

    def product(self, xy: Float[Tensor, " q"]) -> Float[Tensor, " q"]:
        """``M (x, y)``: with ``G q`` the factors of the Hessian's product with ``S^T q``."""
        x, y = self._parts(xy)
        with full_precision(), torch.no_grad():
            change, Y = x[0], []  # of a layer's outputs, and of the next one's inputs
            for layer, x_of in zip(self._layers[1:], x[1:], strict=True):
                Y.append(change * layer.gate)
                change = torch.addmm(x_of, Y[-1], layer.weight.T, alpha=layer.part.scale)
            X = [self._curvature * change]
            for layer, y_of in zip(self._layers[:0:-1], y[::-1], strict=True):
                X.append(torch.addmm(y_of, X[-1], layer.weight, alpha=layer.part.scale).mul_(layer.gate))
        return _joined(X[::-1], Y)

    def vector(self, q: Float[Tensor, " q"]) -> Float[Tensor, " p"]:
        """``S^T q`` over all trainable parameters, flattened, in the model's order."""
        X, Y = self._parts(q)
        Y = [torch.zeros_like(self._layers[0].a), *Y]
        pieces = []
        with full_precision(), torch.no_grad():
            for layer, X_of, Y_of in zip(self._layers, X, Y, strict=True):
                if layer.s:
                    pieces.append(layer.s * (X_of.T @ layer.a + layer.delta.T @ Y_of).flatten())
                if layer.has_trained_bias:
                    pieces.append(X_of.sum(0))
        return torch.cat(pieces)

    def _parts(self, q: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        pieces = q.split([shape.numel() for shape in self._shapes])
        parts = [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        return parts[: len(self._layers)], parts[len(self._layers) :]


def applies(model: nn.Module, linearization: Linearization) -> bool:
    """Whether the model is fully connected, trained from some layer to the last, with more parameters than factors."""
    parts = linearization.parts
    linear = [name for name in linearization.layers.chain if isinstance(model.get_submodule(name), nn.Linear)]
    if [part.name for part in parts] != linear[-len(parts) :] or linearization.dtype.itemsize < 4:
        return False  # iterations do not converge in half precision
    factors = sum(part.A.numel() + part.D[:, 0].numel() for part in parts)
    return factors < sum(p.numel() for p in model.parameters() if p.requires_grad)


def _joined(*parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for some in parts for tensor in some])
