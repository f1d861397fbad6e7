"""Steps of plain gradient descent without autograd, for linear layers and ReLUs with one output."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..precision import full_precision
from .chain import values_along
from .loss import residual_of
from .parts import scale_of
from .trial import Layers

_SIDE = 200  # samples of a large batch at a time: what the layers keep of them stays in a CPU's cache


@dataclass(frozen=True)
class _Link:
    """A module of the chain with its trained parameters, or with what is to be added to them: both transposed."""

    module: nn.Module
    weight: Tensor | None  # (inputs, outputs)
    bias: Tensor | None
    linear: bool

    @classmethod
    def of(cls, module: nn.Module) -> "_Link":
        trained = {name: p.data for name, p in module.named_parameters() if p.requires_grad}
        weight = trained["weight"].t() if "weight" in trained else None
        return cls(module, weight, trained.get("bias"), isinstance(module, nn.Linear))

    def zeros(self) -> "_Link":
        weight, bias = (None if p is None else p.new_zeros(p.shape) for p in (self.weight, self.bias))
        return _Link(self.module, weight, bias, self.linear)

    @property
    def trained(self) -> bool:
        return self.weight is not None or self.bias is not None


class ChainDescent:
    """The modules of ``layers.chain``, the last of which has a single output."""

    def __init__(self, model: nn.Module, layers: Layers) -> None:
        self._links = [_Link.of(model.get_submodule(name)) for name in layers.chain]
        self._lowest = next(index for index, link in enumerate(self._links) if link.trained)

    def step(self, inputs: Float[Tensor, "n ..."], targets: Float[Tensor, " n"], eta: float) -> float:
        """Change the weights by ``-eta dL/dw`` for L of eq. (1), whose value before the step is returned.

        A large batch goes through the network in parts, whose gradients are summed first.
        """
        small = len(inputs) <= _SIDE
        with full_precision(), torch.inference_mode():
            sums = self._links if small else [link.zeros() for link in self._links]
            loss = 0.0
            for x, y in zip(inputs.split(_SIDE), targets.split(_SIDE), strict=True):
                values = values_along((link.module for link in self._links), x)
                residual = residual_of(values[-1], y)
                loss += residual.square().sum().item()
                waiting = self._backward(values, residual * (-2 * eta / len(targets)), sums, small)
                del values  # whose memory, still in the cache, the next part takes
            if not small:
                for index, columns in waiting.items():
                    for change in (sums[index].weight, sums[index].bias):
                        if change is not None:
                            change.mul_(columns)
                for link, change in zip(self._links, sums, strict=True):
                    for p, of_p in ((link.weight, change.weight), (link.bias, change.bias)):
                        if p is not None:
                            p.add_(of_p)
        return loss / len(targets)

    def _backward(
        self, values: list[Tensor], v: Float[Tensor, "n 1"], sums: list[_Link], small: bool
    ) -> dict[int, Float[Tensor, " outputs"]]:
        """Add J^T v to the sums, but for the factors of their columns that are returned.

        Below the last ReLUs df/dz is their ``slopes``, 0 or 1, times ``columns``, the same for all samples. In a large
        batch these wait until the samples are summed: beside the layers' products each pass over as many numbers costs.
        """
        slopes, columns, waiting = None, v.new_ones(1, 1), {}  # df/dz; None stands for ones
        for index in range(len(self._links) - 1, self._lowest - 1, -1):
            link, entering = self._links[index], values[index]
            if not link.linear:
                slope = values[index + 1].sign_()  # which the layer above has used
                slopes = slope if slopes is None else slopes.mul_(slope)
                continue
            if small and slopes is not None and columns is not None:
                slopes, columns = slopes.mul_(columns), None
            weight, below = link.module.weight, (None, None)
            if index > self._lowest:  # before the weight changes
                if slopes is None:
                    below = None, columns @ weight
                else:
                    below = slopes @ (weight if columns is None else weight * columns.T), None
            scale, sum_ = scale_of(link.module), sums[index]
            if link.weight is not None:
                factors = (entering.T @ v, columns) if slopes is None else ((entering * v).T, slopes)
                sum_.weight.addmm_(*factors, alpha=scale)
            if link.bias is not None:
                sum_.bias.add_(v.sum() * columns[0] if slopes is None else (v.T @ slopes)[0])
            if slopes is not None and columns is not None:
                waiting[index] = columns[0]
            v, (slopes, columns) = v * scale, below
        return waiting
