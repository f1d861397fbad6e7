"""The part of one layer in a linearization: what it adds to the kernel, to J^T v and to J w."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerPart(ABC):
    """A layer ``z = scale * W a + b`` at P positions of each sample: A is its input, D = df/dz.

    A has shape (n, ...), D has shape (n, c, ...), where ``...`` is as in the module's own input and output.
    """

    name: str
    module: nn.Module
    A: Tensor
    D: Tensor

    @property
    @abstractmethod
    def channel_axis(self) -> int:
        """The axis of the module's input and output that holds their channels or features."""

    @abstractmethod
    def kernel_and_vjp(
        self, kernel: Tensor, cotangent: Tensor | None, add_to: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """Add to the kernel (n c, n c), below its diagonal; J^T v by parameter name for a cotangent (n, c), if any."""

    @abstractmethod
    def _applied(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer on A with other parameters."""

    @abstractmethod
    def _weight_gradient(self, weighted: Tensor) -> Tensor:
        """By the weight, for derivatives by the layer's outputs."""

    @property
    def scale(self) -> float:
        return scale_of(self.module)

    @cached_property
    def _names(self) -> dict[str, str]:
        prefix = f"{self.name}." if self.name else ""
        return {key: prefix + key for key in own_trainable(self.module)}

    def vjp(self, cotangent: Tensor, add_to: dict[str, Tensor] | None) -> dict[str, Tensor]:
        weighted = self.pulled_back(cotangent)
        gradient = {"weight": self._weight_gradient, "bias": self._bias_gradient}
        return added(add_to, {name: gradient[key](weighted) for key, name in self._names.items()})

    def jvp(self, direction: dict[str, Tensor]) -> Tensor:
        """(n, c): the layer applied with the direction as its parameters, then carried on by D."""
        names = self._names
        given = {key: direction[name].to(self.D) for key, name in names.items()}
        weight = given["weight"] * self.scale if "weight" in given else torch.zeros_like(self.module.weight).to(self.D)
        change = self._applied(weight, given.get("bias"))
        return torch.einsum("ncz,nz->nc", self.D.flatten(2), change.flatten(1))

    def pulled_back(self, cotangent: Tensor) -> Tensor:
        """``J_z^T v`` for the layer's outputs z, (n, ...): with the loss's derivatives by f those by z."""
        weights = cotangent.reshape(*cotangent.shape, *[1] * (self.D.dim() - 2))
        return self.D[:, 0] * weights[:, 0] if self.D.shape[1] == 1 else (self.D * weights).sum(1)

    def _bias_gradient(self, weighted: Tensor) -> Tensor:
        return weighted.sum([axis for axis in range(weighted.dim()) if axis != self.channel_axis])

    def _summed_over_positions(self) -> Tensor:
        """df/db, (n, c, channels)."""
        return self.D.sum([axis for axis in range(2, self.D.dim()) if axis != self.channel_axis + 1])


def added(add_to: dict[str, Tensor] | None, gradient: dict[str, Tensor]) -> dict[str, Tensor]:
    return gradient if add_to is None else {name: add_to[name].add_(g) for name, g in gradient.items()}


def own_trainable(module: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in module._parameters.items() if p is not None and p.requires_grad}


def scale_of(layer: nn.Module) -> float:
    """That of the NTK parameterisation; 1 for PyTorch's own layers."""
    return getattr(layer, "scale", 1.0)
