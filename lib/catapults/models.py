"""The networks of the paper, as ordinary ``torch.nn.Module``s (appendix F).

In NTK parameterisation (Jacot et al., 2018) every weight is drawn from N(0, 1) and a layer with ``fan_in`` inputs
computes ``gain / sqrt(fan_in) * W x + b``. In PyTorch's default parameterisation the layers are ``torch.nn.Linear`` and
``torch.nn.Conv2d`` as PyTorch initialises them.

The paper writes no gain and unit biases. Neither fits the critical rates it quotes: an output bias of unit scale alone
adds 1 to every entry of the tangent kernel, which forces a critical learning rate of at most 1. Both are therefore
options here, with no biases and no gain by default.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Parameterization = Literal["ntk", "pytorch"]


class NTKLinear(nn.Linear):
    """``scale * W x + b`` with ``scale = gain / sqrt(in_features)`` and all parameters drawn from N(0, 1)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False, gain: float = 1.0):
        self.scale = gain / math.sqrt(in_features)
        super().__init__(in_features, out_features, bias)

    def reset_parameters(self) -> None:
        _standard_normal(self)

    def forward(self, inputs: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        outputs = F.linear(inputs, self.weight) * self.scale
        return outputs if self.bias is None else outputs + self.bias


class NTKConv2d(nn.Conv2d):
    """Convolution with ``scale = gain / sqrt(in_channels * kernel_size^2)`` and all parameters drawn from N(0, 1)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, gain: float = 1.0, **options):
        """``options`` are those of ``torch.nn.Conv2d``; no bias unless ``bias=True``."""
        options.setdefault("bias", False)
        self.scale = gain / math.sqrt(in_channels // options.get("groups", 1) * kernel_size**2)
        super().__init__(in_channels, out_channels, kernel_size, **options)

    def reset_parameters(self) -> None:
        _standard_normal(self)

    def forward(self, inputs: Float[Tensor, "n in_channels h w"]) -> Float[Tensor, "n out_channels h2 w2"]:
        return self._conv_forward(inputs, self.weight * self.scale, self.bias)


def _standard_normal(layer: nn.Module) -> None:
    for parameter in layer.parameters(recurse=False):
        nn.init.normal_(parameter)


def fcn(
    in_features: int,
    width: int,
    depth: int,
    out_features: int = 1,
    *,
    gain: float = 1.0,
    bias: bool = False,
    parameterization: Parameterization = "ntk",
) -> nn.Sequential:
    """Fully connected ReLU network with ``depth`` weight layers, ``depth - 1`` of them hidden, of ``width`` neurons.

    Inputs of shape (n, ...) are flattened to (n, in_features); outputs have shape (n, out_features).

    ``gain`` multiplies the hidden layers that follow a ReLU, so neither the first nor the linear output layer;
    ``sqrt(2)`` makes up for the half that a ReLU removes and gives critical rates near those the paper quotes.

    Raises ``ValueError`` for a size below 1, a depth below 2, a gain that is not positive, an unknown parameterisation.
    """
    _check(in_features=in_features, width=width, out_features=out_features)
    _check(at_least=2, depth=depth)
    linear, _ = _layers(parameterization, bias, gain)
    sizes = [in_features] + [width] * (depth - 1)
    layers: list[nn.Module] = [nn.Flatten()]
    for index, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layers += [linear(fan_in, fan_out, gain=gain if index else 1.0), nn.ReLU()]
    return nn.Sequential(*layers, linear(width, out_features, gain=1.0))


def cnn(
    in_channels: int,
    image_size: int,
    channels: int,
    depth: int = 5,
    out_features: int = 1,
    *,
    gain: float = 1.0,
    bias: bool = False,
    parameterization: Parameterization = "ntk",
) -> nn.Sequential:
    """Convolutional ReLU network of ``depth`` weight layers: 3x3 convolutions with padding 1, then one linear layer.

    Inputs have shape (n, in_channels, image_size, image_size) and keep their resolution up to the last layer, before
    which they are flattened (appendix F.1); outputs have shape (n, out_features).

    ``gain`` and the errors are those of :func:`fcn`.
    """
    _check(in_channels=in_channels, image_size=image_size, channels=channels, out_features=out_features)
    _check(at_least=2, depth=depth)
    linear, convolution = _layers(parameterization, bias, gain)
    sizes = [in_channels] + [channels] * (depth - 1)
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layers += [convolution(fan_in, fan_out, gain=gain if index else 1.0), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), linear(channels * image_size**2, out_features, gain=1.0))


def _layers(parameterization: str, bias: bool, gain: float) -> tuple[Callable, Callable]:
    """Constructors of a linear and of a 3x3 convolutional layer, each with an own gain."""
    if not 0 < gain < math.inf:
        raise ValueError(f"gain = {gain!r}: allowed are positive numbers")
    if parameterization == "ntk":
        return partial(NTKLinear, bias=bias), partial(NTKConv2d, kernel_size=3, padding=1, bias=bias)
    if parameterization == "pytorch":
        if gain != 1.0:
            raise ValueError(f"gain = {gain!r}: PyTorch's default parameterisation has no gain; allowed is 1")
        return (
            lambda fan_in, fan_out, gain: nn.Linear(fan_in, fan_out, bias=bias),
            lambda fan_in, fan_out, gain: nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=bias),
        )
    raise ValueError(f"parameterization = {parameterization!r}: allowed are 'ntk' and 'pytorch'")


def _check(at_least: int = 1, **sizes: int) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < at_least:
            raise ValueError(f"{name} = {size!r}: allowed are whole numbers of at least {at_least}")


def device(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises ``ValueError`` when the device is unknown or not there.
    """
    there = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    there = [*there[:1], *(["mps"] if torch.backends.mps.is_available() else []), "cpu", *there[1:]]
    if name == "auto":
        return torch.device(there[0])
    if name == "cuda" and "cuda:0" in there:
        return torch.device("cuda:0")
    if name not in there:
        raise ValueError(f"device = {name!r}: allowed on this machine are {', '.join(['auto', *there])}")
    return torch.device(name)
