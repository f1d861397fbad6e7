"""Convolutions."""

import math
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional as F

from . import positions as at_positions
from .blocks import slices
from .positions import ManyPositions

_WEIGHT_GRADIENT = {1: nn.grad.conv1d_weight, 2: nn.grad.conv2d_weight, 3: nn.grad.conv3d_weight}
_SAMPLES_AT_A_TIME = 8  # in a grouped weight gradient: 4 to 16 are equally fast, more is slower
_FEW_POSITIONS = 128  # up to which batched products of unfolded images beat grouped weight gradients


class ConvolutionPart(ManyPositions):
    """A convolution of any number of axes, stride, dilation, groups and padding."""

    channel_axis = 1

    @classmethod
    def of(cls, name: str, module: nn.Module, A: Tensor, D: Tensor) -> "ConvolutionPart":
        if module.padding_mode != "zeros":
            A = F.pad(A, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        elif isinstance(module.padding, str):
            A = F.pad(A, module._reversed_padding_repeated_twice)
        return cls(name, module, A, D)

    def _sizes(self) -> tuple[int, int, int]:
        return self.module.weight.shape[0], self.module.weight[0].numel(), math.prod(self.D.shape[3:])

    def _options(self) -> dict:
        padded = self.module.padding_mode != "zeros" or isinstance(self.module.padding, str)
        padding = 0 if padded else self.module.padding
        return {"stride": self.module.stride, "dilation": self.module.dilation, "padding": padding}

    def _unfolds(self) -> bool:
        return self.module.groups == 1 and self.A.dim() == 4

    def _unfolded(self, A: Tensor) -> Tensor:
        return F.unfold(A, self.module.kernel_size, **self._options()).transpose(1, 2)

    def _derivatives_by_position(self) -> Tensor:
        return self.D.flatten(3).transpose(2, 3)

    def _per_sample_gradients(self) -> Iterator[tuple[slice, slice, Tensor]]:
        outputs, inputs, positions = self._sizes()
        if self._unfolds() and positions <= _FEW_POSITIONS:
            yield from self._gradients_by_unfolding()
            return
        n, c = self.D.shape[:2]
        size = outputs if self.module.groups > 1 else max(1, at_positions.BLOCK // (n * c * inputs))
        for rows in slices(outputs, size):
            yield rows, slice(0, inputs), self._gradients_by_groups(rows)

    def _gradients_by_groups(self, block: slice) -> Tensor:
        """One grouped weight gradient serves several samples: each is a group of channels of one large image."""
        n, c = self.D.shape[:2]
        outputs = block.stop - block.start
        gradient = _WEIGHT_GRADIENT[self.A.dim() - 2]
        shape = self.module.weight.shape[1:]
        result = self.D.new_empty(n * c, outputs * shape.numel())
        chunk = max(1, _SAMPLES_AT_A_TIME // c)
        for start in range(0, n, chunk):
            D = self.D[start : start + chunk, :, block].flatten(0, 1)
            a = self.A[start : start + chunk]
            a = a if c == 1 else a.repeat_interleave(c, 0)
            m = len(D)
            rows = gradient(
                a.reshape(1, -1, *a.shape[2:]),
                (m * outputs, *shape),
                D.reshape(1, -1, *D.shape[2:]),
                groups=m * self.module.groups,
                **self._options(),
            )
            result[start * c : start * c + m] = rows.view(m, -1)
        return result

    def _applied(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolution = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[self.A.dim() - 2]
        return convolution(self.A, weight, bias, groups=self.module.groups, **self._options())

    def _weight_gradient(self, weighted: Tensor) -> Tensor:
        gradient = _WEIGHT_GRADIENT[self.A.dim() - 2]
        weight = self.module.weight
        return gradient(self.A, weight.shape, weighted, groups=self.module.groups, **self._options()) * self.scale
