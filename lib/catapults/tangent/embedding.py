"""Embeddings."""

import math

from torch import Tensor
from torch.nn import functional as F

from .positions import ManyPositions


class EmbeddingPart(ManyPositions):
    """Rows of a table, looked up at each position: A holds their numbers, (n, ...).

    Per-sample gradients are as large as the table, and zero but for few rows. Pairs of positions need none: they count
    where both look up the same row, ``sum_pq [A_ip = A_jq] D_ip . D_jq``.
    """

    @property
    def channel_axis(self) -> int:
        return self.D.dim() - 2

    def _by_positions(self) -> bool:
        return True

    def _sizes(self) -> tuple[int, int, int]:
        return self.D.shape[-1], len(self.module.weight), math.prod(self.A.shape[1:])

    def _unfolds(self) -> bool:
        return True

    def _unfolded(self, A: Tensor) -> Tensor:
        return A.flatten(1) if A.dim() > 1 else A[:, None]

    def _derivatives_by_position(self) -> Tensor:
        return self.D.flatten(2, -2) if self.D.dim() > 3 else self.D[:, :, None]

    def _inner_products(self, A: Tensor, others: Tensor) -> Tensor:
        rows = A.flatten()[:, None]
        same = rows == others.flatten()
        return (same if self.module.padding_idx is None else same & (rows != self.module.padding_idx)).to(self.D.dtype)

    def _applied(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = F.embedding(self.A, weight)
        return rows if self.module.padding_idx is None else rows * (self.module.padding_idx != self.A)[..., None]

    def _weight_gradient(self, weighted: Tensor) -> Tensor:
        table = weighted.new_zeros(self.module.weight.shape)
        table.index_add_(0, self.A.flatten(), weighted.reshape(-1, weighted.shape[-1]))
        if self.module.padding_idx is not None:
            table[self.module.padding_idx] = 0  # which torch does not train
        return table
