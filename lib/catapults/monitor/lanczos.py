"""The largest eigenvalue of a symmetric matrix that is known by its products, to within a percent."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..tangent.eigenspace import NotFinite

_LEAST = 2  # products: one says nothing of its error


@dataclass(frozen=True)
class Largest:
    """The eigenvalue, algebraically the largest, with its vector, and the products that it took."""

    value: float
    vector: Float[Tensor, " p"]
    products: int
    converged: bool


def largest(
    product: Callable[[Tensor], Tensor], start: Float[Tensor, " p"], tolerance: float, max_products: int
) -> Largest:
    """By Lanczos iteration with full reorthogonalisation.

    With the residual r of the top Ritz vector and the gap g to the next Ritz value, the Ritz value is off by at most r,
    and by about ``r^2 / g`` as soon as r is smaller than g. The iteration stops when the smaller of both is below
    ``tolerance`` times the value, and needs far fewer products than the vector would.

    Raises :class:`catapults.tangent.eigenspace.NotFinite` for products that are not.
    """
    basis, diagonal, off_diagonal = [start / start.norm()], [], []
    at_most = min(max_products, len(start))
    for products in range(1, at_most + 1):
        image = product(basis[-1])
        diagonal.append(torch.dot(image, basis[-1]).item())
        for _ in range(2):  # twice is enough for orthogonality to working precision
            for vector in basis:
                image = image.sub(vector, alpha=torch.dot(image, vector).item())
        length = image.norm().item()
        T = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        T += torch.diag(torch.tensor(off_diagonal, dtype=torch.float64), -1)
        if not torch.isfinite(T).all():
            raise NotFinite(
                "model: its curvature is not finite; allowed are weights and batches that give a finite one"
            )
        values, vectors = torch.linalg.eigh(T)
        value, residual = values[-1].item(), length * abs(vectors[-1, -1].item())
        gap = value - values[-2].item() if products > 1 else 0.0
        error = residual**2 / gap if residual < gap else residual
        exhausted = length <= 1e-6 * values.abs().max().item()
        converged = exhausted or products == len(start) or (products >= _LEAST and error <= tolerance * abs(value))
        if converged or products == at_most:
            vector = sum(c * v for c, v in zip(vectors[:, -1].tolist(), basis, strict=True))
            return Largest(value, vector, products, converged)
        off_diagonal.append(length)
        basis.append(image / length)
    raise AssertionError("max_products is at least 1")
