"""A model's outputs, and the calls of its layers in one forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from ..models import NTKConv2d, NTKLinear

LINEAR = (nn.Linear, NTKLinear)
CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d, NTKConv2d)
EMBEDDING = (nn.Embedding,)


@dataclass(frozen=True)
class Call:
    """One call of a layer: its input and the place of its output in the graph."""

    name: str
    inputs: Tensor
    version: int
    edge: GradientEdge
    shape: torch.Size  # of its output
    sample_first: bool


@contextmanager
def captured(modules: dict[str, nn.Module]) -> Iterator[list[Call]]:
    """Record every call of the modules; outputs as places in the graph, which later in-place layers do not change."""
    calls: list[Call] = []

    def recorder(name: str) -> Callable:
        def record(module: nn.Module, arguments: tuple, named: dict, output: Tensor) -> None:
            if output.requires_grad:
                (inputs,) = (*arguments, *named.values())
                place, first = get_gradient_edge(output), _sample_first(module, inputs)
                calls.append(Call(name, inputs.detach(), inputs._version, place, output.shape, first))

        return record

    handles = [
        module.register_forward_hook(recorder(name), prepend=True, with_kwargs=True)  # before hooks that change outputs
        for name, module in modules.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _sample_first(module: nn.Module, inputs: Tensor) -> bool:
    """Whether the input has as many axes as the layer needs for the first to be that of the samples."""
    if type(module) in CONVOLUTION:
        return inputs.dim() == module.weight.dim()
    return inputs.dim() >= (2 if type(module) in LINEAR else 1)


def nodes_behind(*tensors: Tensor) -> Iterator[Node]:
    """Every operation of the graph that they are computed by, once."""
    seen, stack = set(), [tensor.grad_fn for tensor in tensors]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(following for following, _ in node.next_functions)


def flat_outputs(outputs: Tensor, n: int) -> Float[Tensor, "n c"]:
    """The model's outputs for n samples as a matrix. Raises ``ValueError`` unless they are real, (n, ...)."""
    if not isinstance(outputs, Tensor) or outputs.dim() == 0 or len(outputs) != n:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"model: its output for {n} samples is {shape}; allowed is a tensor of shape ({n}, ...)")
    if not outputs.is_floating_point():
        raise ValueError(f"model: its outputs are {outputs.dtype}; allowed are real floating-point numbers")
    return outputs.reshape(n, -1)
