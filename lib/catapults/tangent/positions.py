"""Layers that are applied at several positions of a sample."""

import math
from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from .blocks import add_gram, lower_blocks, slices
from .parts import LayerPart, added

BLOCK = 2**25  # numbers in one block of per-sample gradients or of position products (128 MiB in float32)
IN_CACHE = 2**22  # the same where blocks stay in a CPU's cache: 2**21 to 2**23 are equally fast
COLUMNS = 288  # of unfolded images at a time, on a CPU: 144 to 576 are equally fast


class ManyPositions(LayerPart):
    """A layer applied at several positions of a sample: a convolution, or a linear layer on tokens.

    Chooses between the Gram matrix of per-sample weight gradients and the sum over pairs of positions by their work.
    """

    @abstractmethod
    def _sizes(self) -> tuple[int, int, int]:
        """Outputs and inputs of the weight as a matrix, and positions of a sample."""

    @abstractmethod
    def _unfolds(self) -> bool:
        """Whether the layer is a product with the weight at each position of :meth:`_unfolded`."""

    @abstractmethod
    def _unfolded(self, A: Tensor) -> Tensor:
        """What the weight is multiplied with at each position, (n, P, inputs)."""

    @abstractmethod
    def _derivatives_by_position(self) -> Tensor:
        """D as (n, c, P, outputs)."""

    def kernel_and_vjp(
        self, kernel: Tensor, cotangent: Tensor | None, add_to: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        names = self._names
        if "bias" in names:
            add_gram(kernel, self._summed_over_positions().flatten(0, 1))
        if "weight" in names and not self._by_positions():
            weight_gradient = self.D.new_empty(self._sizes()[:2])
            for rows, columns, per_sample in self._per_sample_gradients():
                add_gram(kernel, per_sample, self.scale**2)
                if cotangent is not None:
                    part = weight_gradient[rows, columns]
                    part.copy_((cotangent.flatten() @ per_sample).view_as(part))
            if cotangent is None:
                return {}
            gradient = {names["weight"]: weight_gradient.mul_(self.scale).view_as(self.module.weight)}
            if "bias" in names:
                gradient[names["bias"]] = self._bias_gradient(self.pulled_back(cotangent))
            return added(add_to, gradient)
        if "weight" in names:
            self._add_kernel_by_positions(kernel)
        return {} if cotangent is None else self.vjp(cotangent, add_to)

    def _by_positions(self) -> bool:
        """Whether the sum over pairs of positions, and the gradient apart from it, is less work."""
        n, c = self.D.shape[:2]
        outputs, inputs, positions = self._sizes()
        by_gradients = n * c * outputs * inputs * (positions + n * c / 2)
        by_positions = (n * positions) ** 2 / 2 * (inputs + c * c * outputs) + n * positions * outputs * inputs
        return self._unfolds() and by_positions < by_gradients

    def _add_kernel_by_positions(self, kernel: Tensor) -> None:
        A, D = self._unfolded(self.A), self._derivatives_by_position()  # (n, P, inputs), (n, c, P, outputs)
        n, c, P, _ = D.shape
        of_samples = kernel.view(n, c, n, c)
        for rows, columns in lower_blocks(n, max(1, math.isqrt(self._block() // 8) // (c * P))):
            inner = self._inner_products(A[rows], A[columns])
            outer = D[rows].flatten(0, 2) @ D[columns].flatten(0, 2).T
            products = outer.view(-1, c, P, columns.stop - columns.start, c, P)
            products *= inner.view(-1, 1, P, columns.stop - columns.start, 1, P)
            of_samples[rows, :, columns] += products.sum((2, 5)).mul_(self.scale**2)

    def _inner_products(self, A: Tensor, others: Tensor) -> Tensor:
        """Between all positions of some samples and of others, (n P, n' P)."""
        return A.flatten(0, 1) @ others.flatten(0, 1).T

    def _block(self) -> int:
        return min(BLOCK, IN_CACHE) if self.D.device.type == "cpu" else BLOCK

    def _per_sample_gradients(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Weight gradients of every output of every sample, (n c, parameters), of a block of the weight at a time."""
        return self._gradients_by_unfolding()

    def _gradients_by_unfolding(self) -> Iterator[tuple[slice, slice, Tensor]]:
        n, c = self.D.shape[:2]
        outputs, inputs, positions = self._sizes()
        D = self._derivatives_by_position().transpose(2, 3)
        channels = self.A.shape[self.channel_axis]
        width = inputs // channels
        step = max(1, COLUMNS // width) if self.A.device.type == "cpu" else channels
        for of_channels in slices(channels, step):
            A = self.A.narrow(self.channel_axis, of_channels.start, of_channels.stop - of_channels.start)
            columns = slice(of_channels.start * width, of_channels.stop * width)
            size = columns.stop - columns.start
            row = n * c * size
            at_once = n * positions * size <= 2 * self._block()
            unfolded = self._unfolded(A) if at_once else None
            for rows in slices(outputs, max(1, min(2 * self._block(), max(self._block(), 16 * row)) // row)):
                if at_once:
                    per_sample = torch.bmm(D[:, :, rows].flatten(1, 2), unfolded)
                else:
                    per_sample = D.new_empty(n, c * (rows.stop - rows.start), size)
                    for some in slices(n, max(1, self._block() // 4 // (positions * size))):
                        per_sample[some] = torch.bmm(D[some, :, rows].flatten(1, 2), self._unfolded(A[some]))
                yield rows, columns, per_sample.view(n * c, -1)
