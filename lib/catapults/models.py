"""The networks of the paper, as ordinary networks of ``torch.nn`` (appendix F).

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

from .checks import whole_number

Parameterization = Literal["ntk", "pytorch"]
Norm = Literal["layer"]


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
    whole_number(1, in_features=in_features, width=width, out_features=out_features)
    whole_number(2, depth=depth)
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
    whole_number(1, in_channels=in_channels, image_size=image_size, channels=channels, out_features=out_features)
    whole_number(2, depth=depth)
    linear, convolution = _layers(parameterization, bias, gain)
    sizes = [in_channels] + [channels] * (depth - 1)
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layers += [convolution(fan_in, fan_out, gain=gain if index else 1.0), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), linear(channels * image_size**2, out_features, gain=1.0))


def wide_resnet(
    in_channels: int,
    image_size: int,
    widen: int,
    depth: int = 10,
    out_features: int = 1,
    *,
    norm: Norm | None = None,
    gain: float = 1.0,
    bias: bool = False,
    parameterization: Parameterization = "ntk",
) -> nn.Sequential:
    """Wide ResNet ``depth``-``widen`` of Zagoruyko and Komodakis (2016), without its batch norm.

    A 3x3 convolution to 16 channels, three groups of ``(depth - 4) / 6`` pre-activation basic blocks with 16, 32 and 64
    times ``widen`` channels, of which the second and the third group halve the resolution, a last ReLU, the average
    over all pixels and a linear layer. Inputs have shape (n, in_channels, image_size, image_size), outputs (n,
    out_features).

    This is our reading of the paper's "standard Wide ResNets 10-10". Batch norm makes the output for a sample depend on
    its batch, so that the kernel is not one of pairs of samples: it is left out or, with ``norm="layer"``, replaced by
    a normalisation over all channels and pixels of a sample, without parameters. The paper quotes a critical rate of
    1.5 on CIFAR-10 (Fig. 15): 128 images give 0.8 to 1.6 over three seeds with ``gain=sqrt(2)`` and no norm, 1.1 to 1.3
    with ``norm="layer"``, but 14 to 21 with neither, and 8 times as much without a norm where every sum of two branches
    is divided by ``sqrt(2)``; so sums are plain.

    ``gain`` is that of :func:`fcn`; convolutions on the shortcuts have it too. A norm undoes it where ``widen > 1``.

    Raises ``ValueError`` as :func:`fcn`, and for a depth other than 10, 16, 22, ..., an image size that is no multiple
    of 4 and an unknown norm.
    """
    whole_number(1, in_channels=in_channels, image_size=image_size, widen=widen, out_features=out_features)
    whole_number(10, depth=depth)
    if depth % 6 != 4:
        raise ValueError(f"depth = {depth}: allowed are 6 b + 4 for b blocks a group (10, 16, 22, ...)")
    if image_size % 4:
        raise ValueError(f"image_size = {image_size}: allowed are multiples of 4, as the resolution is halved twice")
    if norm not in (None, "layer"):
        raise ValueError(f"norm = {norm!r}: allowed are None and 'layer'")
    linear, convolution = _layers(parameterization, bias, gain)
    layers: list[nn.Module] = [convolution(in_channels, 16, gain=1.0)]
    fan_in = 16
    for channels, group_stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
        strides = [group_stride] + [1] * ((depth - 4) // 6 - 1)
        for stride in strides:
            layers.append(_WideBlock(fan_in, channels, stride, norm, partial(convolution, gain=gain)))
            fan_in = channels
    last = linear(fan_in, out_features, gain=1.0)
    return nn.Sequential(*layers, *_norm_and_relu(norm, fan_in), nn.AvgPool2d(image_size // 4), nn.Flatten(), last)


class _WideBlock(nn.Module):
    """Pre-activation basic block; a shortcut that changes the shape is a 1x1 convolution of the same activations."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, norm: Norm | None, convolution: Callable):
        super().__init__()
        self.activation = nn.Sequential(*_norm_and_relu(norm, fan_in))
        self.branch = nn.Sequential(
            convolution(fan_in, fan_out, stride=stride), *_norm_and_relu(norm, fan_out), convolution(fan_out, fan_out)
        )
        self.shortcut = None
        if fan_in != fan_out or stride != 1:
            self.shortcut = convolution(fan_in, fan_out, stride=stride, kernel_size=1, padding=0)

    def forward(self, inputs: Float[Tensor, "n fan_in h w"]) -> Float[Tensor, "n fan_out h2 w2"]:
        active = self.activation(inputs)
        return self.branch(active) + (inputs if self.shortcut is None else self.shortcut(active))


def myrtle(
    in_channels: int,
    image_size: int,
    channels: int,
    out_features: int = 10,
    *,
    gain: float = 1.0,
    bias: bool = False,
    parameterization: Parameterization = "ntk",
) -> nn.Sequential:
    """Myrtle-5 of Page (2018), in the form of Shankar et al. (2020), "Neural kernels without tangents", no batch norm.

    Two 3x3 convolutions, average pooling by 2, one, pooling by 2, one, the average over all pixels, and a linear layer;
    a ReLU after each convolution. The average is three poolings by 2 of the 8x8 pixels that are left of 32x32. Inputs
    have shape (n, in_channels, image_size, image_size), outputs (n, out_features).

    ``gain`` and the errors are those of :func:`fcn`; besides, the image size has to be a multiple of 4.
    """
    whole_number(1, in_channels=in_channels, image_size=image_size, channels=channels, out_features=out_features)
    if image_size % 4:
        raise ValueError(f"image_size = {image_size}: allowed are multiples of 4, as the resolution is halved twice")
    linear, convolution = _layers(parameterization, bias, gain)

    def block(fan_in: int, gain: float = gain) -> list[nn.Module]:
        return [convolution(fan_in, channels, gain=gain), nn.ReLU()]

    return nn.Sequential(
        *block(in_channels, gain=1.0),
        *block(channels),
        nn.AvgPool2d(2),
        *block(channels),
        nn.AvgPool2d(2),
        *block(channels),
        nn.AvgPool2d(image_size // 4),
        nn.Flatten(),
        linear(channels, out_features, gain=1.0),
    )


def vit(
    in_channels: int,
    image_size: int,
    width: int,
    depth: int = 4,
    out_features: int = 1,
    *,
    patch: int = 4,
    heads: int = 4,
    gain: float = 1.0,
    bias: bool = False,
    parameterization: Parameterization = "ntk",
) -> nn.Sequential:
    """Vision transformer of Dosovitskiy et al. (2021) with ``depth`` blocks on patches of ``patch`` x ``patch`` pixels.

    An embedding of the patches to ``width`` features plus one of their positions, pre-norm blocks of ``heads``-headed
    self-attention and of a two-layer network with ``4 width`` hidden neurons, a last layer norm, the average over
    all patches and a linear layer. Inputs have shape (n, in_channels, image_size, image_size), outputs (n,
    out_features).

    This is our reading of the paper's "standard ViT-4". As everywhere in the paper the activation is a ReLU, no GELU.
    The average makes a class token unnecessary (Beyer et al., 2022). In NTK parameterisation all linear layers are
    scaled as in :func:`fcn`, products of queries and keys by ``1 / sqrt(width / heads)``, and positions are drawn from
    N(0, 1); in PyTorch's, positions are from N(0, 0.02^2). Layer norms start as the identity and are trained.

    The paper trains with a rate of 0.2 (Fig. 7). Over three seeds, widths from 64 to 512, patches of 2 to 16 pixels and
    a gain of 1 or ``sqrt(2)``, 128 images of CIFAR-2 give critical rates of 0.09 to 0.31; nearly four times as much
    where layer norms are not trained, and below 0.005 in PyTorch's parameterisation.

    ``gain`` multiplies the layers that follow a ReLU. Raises ``ValueError`` as :func:`fcn`, for a depth below 1, for
    an image size that is no multiple of ``patch`` and a width that is none of ``heads``.
    """
    whole_number(1, in_channels=in_channels, image_size=image_size, width=width, depth=depth, out_features=out_features)
    whole_number(1, patch=patch, heads=heads)
    if image_size % patch:
        raise ValueError(f"image_size = {image_size}: allowed are multiples of patch = {patch}")
    if width % heads:
        raise ValueError(f"width = {width}: allowed are multiples of heads = {heads}")
    linear, convolution = _layers(parameterization, bias, gain)
    return nn.Sequential(
        convolution(in_channels, width, gain=1.0, kernel_size=patch, stride=patch, padding=0),
        _Tokens((image_size // patch) ** 2, width, 1.0 if parameterization == "ntk" else 0.02),
        *(_TransformerBlock(width, heads, linear, gain) for _ in range(depth)),
        nn.LayerNorm(width),
        _Average(),
        linear(width, out_features, gain=1.0),
    )


class _Tokens(nn.Module):
    """Pixels of feature maps as a sequence, with an embedding of their positions added."""

    def __init__(self, tokens: int, width: int, deviation: float):
        super().__init__()
        self.positions = nn.Parameter(deviation * torch.randn(tokens, width))

    def forward(self, inputs: Float[Tensor, "n width h w"]) -> Float[Tensor, "n tokens width"]:
        return inputs.flatten(2).transpose(1, 2) + self.positions


class _TransformerBlock(nn.Module):
    """Pre-norm: attention, then two layers for each token, each added to its input."""

    def __init__(self, width: int, heads: int, linear: Callable, gain: float):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (linear(width, width, gain=1.0) for _ in range(4))
        self.each = nn.Sequential(
            nn.LayerNorm(width), linear(width, 4 * width, gain=1.0), nn.ReLU(), linear(4 * width, width, gain=gain)
        )

    def forward(self, inputs: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens width"]:
        inputs = inputs + self._attention(self.norm(inputs))
        return inputs + self.each(inputs)

    def _attention(self, inputs: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens width"]:
        query, key, value = (
            layer(inputs).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class _Average(nn.Module):
    """Over all tokens."""

    def forward(self, inputs: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n width"]:
        return inputs.mean(1)


def _norm_and_relu(norm: Norm | None, channels: int) -> list[nn.Module]:
    return [*([nn.GroupNorm(1, channels, affine=False)] if norm else []), nn.ReLU()]


def _layers(parameterization: str, bias: bool, gain: float) -> tuple[Callable, Callable]:
    """Constructors of a linear and of a convolutional layer, 3x3 unless told otherwise, each with an own gain."""
    if not 0 < gain < math.inf:
        raise ValueError(f"gain = {gain!r}: allowed are positive numbers")
    if parameterization == "ntk":
        return partial(NTKLinear, bias=bias), partial(NTKConv2d, kernel_size=3, padding=1, bias=bias)
    if parameterization == "pytorch":
        if gain != 1.0:
            raise ValueError(f"gain = {gain!r}: PyTorch's default parameterisation has no gain; allowed is 1")
        return (
            lambda fan_in, fan_out, gain: nn.Linear(fan_in, fan_out, bias=bias),
            lambda fan_in, fan_out, gain, kernel_size=3, padding=1, **options: nn.Conv2d(
                fan_in, fan_out, kernel_size, padding=padding, bias=bias, **options
            ),
        )
    raise ValueError(f"parameterization = {parameterization!r}: allowed are 'ntk' and 'pytorch'")
