"""A symmetric matrix in blocks of its lower triangle."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

SIDE = 512  # rows of a block of the kernel: 256 to 1280 are equally fast


def slices(size: int, step: int) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def lower_blocks(size: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the blocks that cover the lower triangle of a (size, size) matrix."""
    for rows in slices(size, side):
        for columns in slices(rows.stop, side):
            yield rows, columns


def add_gram(kernel: Float[Tensor, "m m"], vectors: Float[Tensor, "m p"], scale: float = 1.0) -> None:
    """Add ``scale * vectors vectors^T`` to the lower triangle of the kernel, in place: in strips, narrow on a CPU."""
    side = min(SIDE, 64 if len(kernel) <= 256 else 128) if kernel.device.type == "cpu" else SIDE
    for rows in slices(len(kernel), side):
        kernel[rows, : rows.stop].addmm_(vectors[rows], vectors[: rows.stop].T, alpha=scale)


def mirrored(kernel: Float[Tensor, "m m"]) -> Float[Tensor, "m m"]:
    """The kernel, in place, with its lower triangle also above the diagonal: exactly symmetric."""
    for rows, columns in lower_blocks(len(kernel), SIDE):
        block = kernel[rows, columns]
        if rows == columns:
            block.copy_(block.tril() + block.tril(-1).T)
        else:
            kernel[columns, rows] = block.T
    return kernel
