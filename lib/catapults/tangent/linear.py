"""A linear layer that is applied once to each sample."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from . import blocks
from .parts import LayerPart, added


@dataclass(frozen=True)
class LinearPart(LayerPart):
    """One position: the kernel is ``scale^2 (A A^T) * (D D^T)``."""

    channel_axis = 1

    def kernel_and_vjp(
        self, kernel: Tensor, cotangent: Tensor | None, add_to: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        n, c = self.D.shape[:2]
        if c == 1 and n <= blocks.SIDE:
            self._add_block(kernel, self.A, self.A, self.D, self.D)
        else:
            of_samples = kernel.view(n, c, n, c)
            for rows, columns in blocks.lower_blocks(n, max(1, blocks.SIDE // c)):
                block = of_samples[rows, :, columns]
                self._add_block(block, self.A[rows], self.A[columns], self.D[rows], self.D[columns])
        return {} if cotangent is None else self.vjp(cotangent, add_to)

    def _add_block(self, block: Tensor, A: Tensor, others_A: Tensor, D: Tensor, others_D: Tensor) -> None:
        rows = D.flatten(0, 1)
        outer = rows @ (rows if others_D is D else others_D.flatten(0, 1)).T
        outer = outer if block.dim() == 2 else outer.view(block.shape)
        if "weight" not in self._names:
            block += outer
            return
        inner = A @ others_A.T
        inner = inner if block.dim() == 2 else inner[:, None, :, None]
        block.addcmul_(outer, inner, value=self.scale**2)
        if "bias" in self._names:
            block += outer

    def _applied(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self.A, weight, bias)

    def _weight_gradient(self, weighted: Tensor) -> Tensor:
        return (weighted * self.scale).T @ self.A

    def vjp(self, cotangent: Tensor, add_to: dict[str, Tensor] | None) -> dict[str, Tensor]:
        names = self._names
        if add_to is None or "weight" not in names:
            return super().vjp(cotangent, add_to)
        weight = add_to[names["weight"]]
        if weight.dtype != self.D.dtype:
            return super().vjp(cotangent, add_to)
        if self.D.shape[1] == 1 and "bias" not in names:
            return {names["weight"]: weight.addmm_(self.D.squeeze(1).T, self.A * cotangent, alpha=self.scale)}
        weighted = self.pulled_back(cotangent)
        weight.addmm_(weighted.T, self.A, alpha=self.scale)
        bias = added(add_to, {names["bias"]: self._bias_gradient(weighted)}) if "bias" in names else {}
        return {names["weight"]: weight} | bias
