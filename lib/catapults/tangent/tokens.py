"""A linear layer that is applied to every token of a sample."""

import math

from torch import Tensor
from torch.nn import functional as F

from .positions import ManyPositions


class TokensPart(ManyPositions):
    """A linear layer on inputs (n, ..., in_features)."""

    @property
    def channel_axis(self) -> int:
        return self.D.dim() - 2

    def _sizes(self) -> tuple[int, int, int]:
        return self.D.shape[-1], self.A.shape[-1], math.prod(self.A.shape[1:-1])

    def _unfolds(self) -> bool:
        return True

    def _unfolded(self, A: Tensor) -> Tensor:
        return A.flatten(1, -2)

    def _derivatives_by_position(self) -> Tensor:
        return self.D.flatten(2, -2)

    def _applied(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self.A, weight, bias)

    def _weight_gradient(self, weighted: Tensor) -> Tensor:
        return (weighted * self.scale).flatten(0, -2).T @ self.A.flatten(0, -2)
