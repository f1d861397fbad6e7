"""Fully connected ReLU networks: chains of modules, whose forward and backward passes are written out.

For small batches autograd's book-keeping is most of a step.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..precision import full_precision
from .calls import LINEAR
from .linear import LinearPart
from .parts import scale_of


def chain_of(model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
    """The names of a fully connected ReLU network's modules in their order; none for any other model."""
    names = {module: name for name, module in model.named_modules()}
    if any(module._forward_hooks or module._forward_pre_hooks for module in names):
        return ()
    order, stack = [], [model]
    while stack:
        module = stack.pop()
        if type(module) is nn.Sequential:
            stack.extend(reversed(module))
        else:
            order.append(module)
    flat = inputs.dim() == 2 or (type(order[0]) is nn.Flatten and order[0].start_dim == 1 and order[0].end_dim == -1)
    simple = all(type(module) in (*LINEAR, nn.ReLU) for module in order[type(order[0]) is nn.Flatten :])
    used_once = len(set(order)) == len(order)
    ends = type(order[-1]) in LINEAR
    return tuple(names[module] for module in order) if flat and simple and used_once and ends else ()


def linearized_chain(
    model: nn.Module, inputs: Tensor, chain: Sequence[str], structured: Sequence[str]
) -> tuple[Float[Tensor, "n c"], list[LinearPart]]:
    """The outputs of a ``chain`` and the parts of its trained layers, ``structured``, by the chain rule."""
    modules = attrgetter(*chain)(model) if len(chain) > 1 else (model.get_submodule(*chain),)
    parts = []
    with full_precision(), torch.no_grad():
        values = values_along(modules, inputs.detach())
        n, c = values[-1].shape
        D = torch.eye(c, dtype=values[-1].dtype, device=inputs.device)  # the same for all samples at first
        backwards = zip(reversed(chain), reversed(modules), reversed(values[:-1]), reversed(values), strict=False)
        while len(parts) < len(structured):
            name, module, A, output = next(backwards)
            if type(module) is nn.ReLU:
                slope = output.sign()[:, None]
                D = D.mul_(slope) if D.dim() == 3 else slope.mul_(D) if c == 1 else slope * D
                continue
            if name in structured:
                parts.append(LinearPart(name, module, A, D.expand(n, c, -1)))
            if len(parts) < len(structured):
                D = (D @ module.weight).mul_(scale_of(module))
    return values[-1], parts[::-1]


def values_along(modules: Iterable[nn.Module], inputs: Tensor) -> list[Tensor]:
    """What enters each module of a chain, and its output; ReLUs overwrite what a linear layer has given.

    They are what the modules' ``forward`` gives, to the last bit, without copies.
    """
    values, own = [inputs], False  # own: nothing else needs the latest value
    for module in modules:
        value, linear = values[-1], type(module) in LINEAR
        if linear:
            value = F.linear(value, module.weight).mul_(scale_of(module))
            value = value if module.bias is None else value.add_(module.bias)
        elif own:
            value = value.relu_()
        else:
            value = module.forward(value)
        values.append(value)
        own = linear
    return values
