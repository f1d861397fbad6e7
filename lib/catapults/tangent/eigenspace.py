"""The top eigenspace of a tangent kernel, followed along a run by warm-started subspace iteration."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

_SMALL = 512  # rows up to which a full eigendecomposition costs next to nothing beside the kernel
_TOLERANCE = (
    1e-3  # of a residual ||K u - lambda u||, relative to the gap below the top eigenspace: its angle to the truth
)
_ROUNDING = 30  # times machine precision times ||K||: what no residual gets below
_EXTRA = 5  # vectors beyond those asked for
_EXTRA_UNFORMED = 1  # the same where each costs passes through the network
_NOISE = 0.1  # in the scout
_STALLED = (
    1e-2  # residual beside ||K|| of an iteration that ran out of numbers: values too large or too small for the type
)
_WIDEST = 6  # times the vectors wanted: a wider basis is cut back to the best vectors in it
_EXPANSIONS = 300  # of the basis by products with the kernel, before it is given up: networks' kernels took 2 to 13
_HALF = (torch.float16, torch.bfloat16)  # which LAPACK does not know


class NotFinite(ValueError):
    """A kernel has entries that are not finite."""


@runtime_checkable
class Kernel(Protocol):
    """A symmetric positive semi-definite matrix: a tensor (m, m), or anything else that multiplies tensors (m, b)."""

    dtype: torch.dtype
    device: torch.device

    def __len__(self) -> int: ...

    def __matmul__(self, vectors: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Eigenpairs:
    """The largest eigenvalues, ascending, and their orthonormal eigenvectors as columns."""

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "m k"]
    start: Float[Tensor, "m b"] | None = None  # from which to search the eigenpairs of a similar kernel


def top_eigenpairs(
    kernel: Kernel, top: int, start: Float[Tensor, "m b"] | None = None, above: float = math.inf
) -> Eigenpairs:
    """At least ``top`` of the kernel's largest eigenvalues, and all that are larger than ``above``.

    A small kernel is decomposed as a whole. For a large one the space that ``start`` spans (random by default; else
    that of a similar kernel's eigenpairs, such as the step's before) is expanded by products with the kernel, until
    each residual is less than a thousandth of the gap between the eigenvalues asked for and the next one, or rounding.

    Should that take too long, or ask for more than a quarter of all, the large kernel too is decomposed as a whole.

    Raises :class:`NotFinite` for a kernel with entries that are not, and ``RuntimeError`` where it should be decomposed
    as a whole and is known only by its products.
    """
    if isinstance(kernel, Tensor) and kernel.dtype in _HALF:
        kernel = kernel.float()
    m = len(kernel)
    while m > max(_SMALL, 4 * top):
        pairs = _subspace_iteration(kernel, top, start)
        if pairs is None:
            break
        if pairs.values[0] <= above:
            return pairs
        top, start = 2 * top, pairs.start
    if not isinstance(kernel, Tensor):
        if m > _SMALL:
            raise RuntimeError(
                f"top = {top}: a kernel of {m} rows that is not formed allows fewer, or did not converge"
            )
        kernel = kernel @ torch.eye(m, dtype=kernel.dtype, device=kernel.device)
    return spectrum(kernel)


def spectrum(kernel: Float[Tensor, "m m"]) -> Eigenpairs:
    """All eigenpairs of a symmetric matrix. Raises :class:`NotFinite`."""
    _check_finite(kernel)
    pairs = _decomposed(torch.linalg.eigh, kernel.cpu() if kernel.device.type == "mps" else kernel)  # MPS has none
    return Eigenpairs(*(part.to(kernel) for part in pairs))


def _decomposed(solver: Callable, kernel: Float[Tensor, "m m"]) -> Any:
    """In double precision where LAPACK does not converge in single: with many rows of zeros it can fail."""
    kernel = kernel.float() if kernel.dtype in _HALF else kernel
    try:
        return solver(kernel)
    except torch.linalg.LinAlgError:
        return solver(kernel.cpu().double())


def largest_eigenvalue(kernel: Float[Tensor, "m m"]) -> float:
    """Of a small symmetric matrix, of which the lower triangle is read. Raises :class:`NotFinite`."""
    try:
        value = _decomposed(torch.linalg.eigvalsh, kernel.cpu())[-1].item()
    except torch.linalg.LinAlgError:
        value = math.nan
    if not math.isfinite(value):
        raise NotFinite("kernel: has entries that are not finite; allowed are finite ones")
    return value


def _subspace_iteration(kernel: Kernel, top: int, start: Tensor | None) -> Eigenpairs | None:
    """Rayleigh-Ritz in a basis that grows by the residuals of its best vectors, and is cut back to these when large.

    Goes on in float64 where rounding hides the gap. An eigenvalue that grows outside of the space that is followed is
    found by a scout: a vector multiplied by the kernel once in each search, never quite free of noise.
    ``None`` without convergence.
    """
    extra = _EXTRA if isinstance(kernel, Tensor) else _EXTRA_UNFORMED
    width = top + extra + 1  # the last one is a scout: it looks for what the others miss
    noise = torch.randn(len(kernel), width, generator=torch.Generator().manual_seed(0)).to(kernel.device, kernel.dtype)
    basis = _orthonormal(noise if start is None else torch.cat([start[:, -width:], noise], 1)[:, :width])
    images = kernel @ basis
    _check_finite(images)
    for expansion in range(_EXPANSIONS):
        values, coordinates = torch.linalg.eigh(_small(basis.T @ images).tril())
        values, coordinates = values[-width:].to(basis), coordinates[:, -width:].to(basis)
        vectors, images_of_vectors = basis @ coordinates, images @ coordinates
        residuals = images_of_vectors - vectors * values
        norms, tolerances = _norms(residuals), _TOLERANCE * (values - values[-top - 1])
        wanting = norms > tolerances.clamp(min=_ROUNDING * torch.finfo(basis.dtype).eps * values[-1].abs().item())
        if wanting[-top:].any() or expansion == 0:
            wanting |= expansion == 0
            if basis.shape[1] > _WIDEST * width:
                basis, images = vectors, images_of_vectors
            directions = _orthonormal(residuals[:, wanting], basis)
            if directions.shape[1]:
                basis = torch.cat([basis, directions], 1)
                images = torch.cat([images, _product(kernel, directions)], 1)
                continue
        if (norms > tolerances)[-top:].any() and basis.dtype == torch.float32 and _has_float64(kernel):
            basis = _orthonormal(vectors.double())
            images = _product(kernel, basis)
            continue
        if not norms[-top:].max() <= _STALLED * values[-1].abs():
            return None
        values, vectors = values.to(kernel.dtype), vectors.to(kernel.dtype)
        scout = _direction(images_of_vectors[:, :1].to(noise)) + _NOISE * _direction(noise[:, :1])
        return Eigenpairs(values[-top:], vectors[:, -top:], torch.cat([_direction(scout), vectors[:, 1:]], 1))
    return None


def _direction(vector: Float[Tensor, "m 1"]) -> Float[Tensor, "m 1"]:
    norm = _norms(vector)
    return vector / norm if norm > 0 else vector


def _norms(vectors: Float[Tensor, "m b"]) -> Float[Tensor, " b"]:
    """Of each column, where its squares may be too small or too large for the type."""
    largest = vectors.abs().amax(0)
    return (vectors / largest.where(largest > 0, 1)).norm(dim=0) * largest


def _has_float64(kernel: Kernel) -> bool:
    return isinstance(kernel, Tensor) and kernel.device.type != "mps"


def _product(kernel: Kernel, vectors: Float[Tensor, "m b"]) -> Float[Tensor, "m b"]:
    """K V in the precision of the vectors, some rows of the kernel at a time where that is not its own."""
    if vectors.dtype == kernel.dtype:
        return kernel @ vectors
    return torch.cat([rows.to(vectors.dtype) @ vectors for rows in kernel.split(_SMALL)])


def _orthonormal(vectors: Float[Tensor, "m b"], to: Float[Tensor, "m q"] | None = None) -> Float[Tensor, "m k"]:
    """An orthonormal basis of the vectors' span, orthogonal ``to`` other orthonormal vectors; k <= b.

    Through the small Gram matrix, twice, so that all large products run on any device. Dropped is what rounding may
    have made: a vector of which less than ``10 eps`` is left outside of ``to``, where each entry of the difference has
    lost all of its digits, and a direction in which the Gram matrix of unit vectors has less than ``1e3 eps``: rounding
    changes its eigenvalues by up to ``m eps`` at worst, and m is a few hundred to a few thousand.
    """
    eps = torch.finfo(vectors.dtype).eps
    for _ in range(2):
        before = _norms(vectors)
        if to is not None:
            vectors = vectors - to @ (to.T @ vectors)
        norms = _norms(vectors)
        vectors = vectors[:, norms > 10 * eps * before] / norms[norms > 10 * eps * before]
        values, coordinates = torch.linalg.eigh(_small(vectors.T @ vectors))
        kept = values > 1e3 * eps
        vectors = vectors @ (coordinates[:, kept] / values[kept].sqrt()).to(vectors)
    return vectors


def _check_finite(values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise NotFinite("kernel: has entries that are not finite; allowed are finite ones")


def _small(matrix: Tensor) -> Tensor:
    """On the CPU and in float64, where small dense algebra is fast and exact."""
    return matrix.cpu().double()
