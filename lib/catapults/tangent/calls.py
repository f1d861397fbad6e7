"""A model's outputs, and the calls of its layers in one forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ..models import NTKConv2d, NTKLinear

LINEAR = (nn.Linear, NTKLinear)
CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d, NTKConv2d)


@dataclass(frozen=True)
class Call:
    """One call of a layer: its input and the place of its output in the graph."""

    name: str
    inputs: Tensor
    version: int
    edge: GradientEdge
    sample_first: bool


@contextmanager
def captured(modules: dict[str, nn.Module]) -> Iterator[list[Call]]:
    """Record every call of the modules; outputs as places in the graph, which later in-place layers do not change."""
    calls: list[Call] = []

    def recorder(name: str) -> Callable:
        def record(module: nn.Module, arguments: tuple, named: dict, output: Tensor) -> None:
            if output.requires_grad:
                (inputs,) = (*arguments, *named.values())
                batched = inputs.dim() >= 2 if type(module) in LINEAR else inputs.dim() == module.weight.dim()
                calls.append(Call(name, inputs.detach(), inputs._version, get_gradient_edge(output), batched))

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


def flat_outputs(outputs: Tensor, n: int) -> Float[Tensor, "n c"]:
    """The model's outputs for n samples as a matrix. Raises ``ValueError`` unless they are a tensor (n, ...)."""
    if not isinstance(outputs, Tensor) or outputs.dim() == 0 or len(outputs) != n:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"model: its output for {n} samples is {shape}; allowed is a tensor of shape ({n}, ...)")
    return outputs.reshape(n, -1)
