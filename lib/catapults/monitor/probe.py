"""What a fixed set of samples says of a training: the kernel's norm, where the residual lies, and the features."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import tangent
from ..agop import agop, alignment, factor
from ..tangent import extended
from ..tangent.eigenspace import top_eigenpairs
from . import losses
from .losses import Loss

_ROWS = 4096  # of the probe's kernel
_INPUTS = 4096  # numbers of one input up to which the AGOP, their square, is formed
_REST = 0.01  # of the AGOP's norm that its kept top eigenvectors may leave


@dataclass(frozen=True)
class Probed:
    """At one state of the weights.

    ``top`` and ``rest``: the parts of ``|n dL/df|^2 / n`` in the top eigenspace of K and outside; for the MSE they are
    four times those of the loss in eq. (2).
    """

    loss: float
    norm: float  # ||K||
    top: float
    rest: float
    alignment: float  # of the AGOP with that of the first measurement; NaN without one


class Probe:
    """Measures on n samples; ``top``: the number of K's eigenvectors that span its top eigenspace.

    Raises ``ValueError`` for fewer than two samples, and for a ``top`` that is not below their number.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, top: int) -> None:
        if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor) or len(inputs) != len(targets):
            raise ValueError("probe: allowed is a pair of tensors, inputs and targets, of as many samples")
        if not 1 <= top < len(inputs):
            raise ValueError(f"top = {top!r}: allowed are whole numbers from 1 to {len(inputs) - 1}, below the probe's")
        self._inputs, self._targets, self._top = inputs, targets, top
        self._first: Tensor | None = None

    def __call__(self, model: nn.Module, loss: Loss) -> Probed:
        """In evaluation mode, so that batch norm and dropout do not mix or draw; the mode is restored."""
        training = {module: module.training for module in model.modules()}
        model.eval()
        try:
            return self._measured(model, loss)
        finally:
            for module, mode in training.items():
                module.training = mode

    def _measured(self, model: nn.Module, loss: Loss) -> Probed:
        linearization = extended.linearize(model, self._inputs)
        if len(linearization) > _ROWS:
            raise ValueError(
                f"probe: {len(linearization)} outputs of all samples; allowed are {_ROWS}, such as by fewer samples"
            )
        value, gradient, _ = losses.value_and_gradient(loss, linearization.outputs, self._targets)
        pairs = top_eigenpairs(linearization.kernel(), self._top)
        n = len(self._inputs)
        top, rest = tangent.split_by_eigenvectors(n * gradient.detach().flatten(), pairs.vectors[:, -self._top :])
        return Probed(value.item(), pairs.values[-1].item(), top, rest, self._alignment(model))

    def _alignment(self, model: nn.Module) -> float:
        if not self._inputs.is_floating_point() or self._inputs[0].numel() > _INPUTS:
            return float("nan")
        G = agop(model, self._inputs)
        if not torch.isfinite(G).all() or not G.abs().max() > 0:
            return float("nan")
        if self._first is None:
            self._first = factor(G, _REST)
        return alignment(G, self._first @ self._first.T)
