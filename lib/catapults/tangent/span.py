"""A network that begins with a linear layer sees its inputs' span only: n samples are n numbers each.

With an orthonormal basis Q of the span, ``W x = (W Q) (Q^T x)``, and a gradient step changes W within the span. So the
network with weights W Q on inputs ``Q^T x`` has the same outputs, kernel and eigenvalues of the Hessian at every step
of a training, but for rounding. Its first layer is smaller where inputs are images and the samples are few.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..precision import full_precision


@contextmanager
def within_span(
    model: nn.Module, inputs: Float[Tensor, "n ..."], chain: Sequence[str]
) -> Iterator[Float[Tensor, "n ..."]]:
    """Inside, the first layer works in coordinates of the inputs' span, and the inputs are given in these.

    Afterwards the model is again one of the original inputs, trained as it was inside. ``chain`` names the model's
    modules in their order, as :class:`catapults.tangent.Layers` does. Where it is empty, does not begin with a linear
    layer, or the inputs have at most as many entries as there are samples, nothing is changed.
    """
    modules = [module for module in map(model.get_submodule, chain) if not isinstance(module, nn.Flatten)]
    if not modules or not isinstance(modules[0], nn.Linear) or modules[0].in_features <= len(inputs):
        yield inputs
        return
    first, weight = modules[0], modules[0].weight
    with full_precision(), torch.no_grad():
        basis = torch.linalg.qr(inputs.flatten(1).T.double().cpu()).Q.to(inputs)
        first.weight = nn.Parameter(weight @ basis, weight.requires_grad)
        before = first.weight.clone()
        coordinates = inputs.flatten(1) @ basis
    try:
        yield coordinates
    finally:
        with full_precision(), torch.no_grad():
            if weight.requires_grad:
                weight += (first.weight - before) @ basis.T
        first.weight = weight
