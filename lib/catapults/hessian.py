"""The critical learning rate without the tangent kernel's approximation: ``2 / lambda_max`` of the loss's Hessian.

Section 2 and appendix A of the paper: ``H = 2/n J^T J + 2/n sum_i (f_i - y_i) d^2 f_i``. The first term has the
kernel's eigenvalues times ``2/n`` and the eigenvectors ``J^T u_i``, so that Lanczos iteration started from ``J^T u_1``
converges in a few Hessian-vector products.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .eigenspace import top_eigenpairs
from .precision import full_precision
from .tangent import Linearization, linearize


@dataclass(frozen=True)
class TopEigenpair:
    """The Hessian's largest eigenvalue, its eigenvector (all parameters flattened), and the products it took."""

    value: float
    vector: Float[Tensor, " p"]
    products: int


def critical_learning_rate(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Float[Tensor, "n ..."],
    start: Float[Tensor, " p"] | None = None,
    tolerance: float = 1e-4,
) -> float:
    """``2 / lambda_max(H)`` of the MSE at the model's weights (section 2); infinite where no curvature is positive.

    ``start``, ``tolerance`` and the errors are those of :func:`top_eigenpair`.
    """
    value = top_eigenpair(model, inputs, targets, start, tolerance).value
    return 2 / value if value > 0 else math.inf


def top_eigenpair(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Float[Tensor, "n ..."],
    start: Float[Tensor, " p"] | None = None,
    tolerance: float = 1e-4,
    max_products: int = 200,
) -> TopEigenpair:
    """Largest eigenvalue of the Hessian of ``mean((f - y)^2)`` over the trainable parameters, by Lanczos iteration.

    ``start`` is any vector of all parameters flattened, by default :func:`kernel_direction` of the top eigenvector.
    The iteration stops when an eigenvalue lies within ``tolerance``, relatively, of the estimate.

    Raises ``ValueError`` for a start of another size or with entries that are not finite, and ``RuntimeError`` when
    ``max_products`` do not suffice.
    """
    if start is None:
        linearization = linearize(model, inputs)
        kernel = linearization.kernel() if linearization.kernel_fits() else linearization
        start = kernel_direction(model, linearization, top_eigenpairs(kernel, 1).vectors[:, -1])
    parameters = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.numel() for p in parameters)
    if start.shape != (size,):
        raise ValueError(f"start: shape {tuple(start.shape)}; allowed is ({size},), one entry a trainable parameter")

    if not torch.isfinite(start).all():
        raise ValueError("start: has entries that are not finite; allowed are finite ones")
    if not start.any():  # the kernel is zero, the Hessian need not be
        start = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(start)

    with full_precision(), torch.enable_grad():
        outputs = model(inputs)
        loss = (outputs - targets.reshape(outputs.shape)).square().mean()
        gradient = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)

    def product(vector: Tensor) -> Tensor:
        pieces = [
            piece.view_as(p) for piece, p in zip(vector.split([p.numel() for p in parameters]), parameters, strict=True)
        ]
        with full_precision():
            result = torch.autograd.grad(gradient, parameters, pieces, retain_graph=True, materialize_grads=True)
        return torch.cat([r.flatten() for r in result])

    basis = [start / start.norm()]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    for products in range(1, max_products + 1):
        image = product(basis[-1])
        diagonal.append(torch.dot(image, basis[-1]).item())
        for _ in range(2):  # twice is enough for orthogonality to working precision
            for vector in basis:
                image = image - torch.dot(image, vector) * vector
        norm = image.norm().item()
        values, vectors = torch.linalg.eigh(_tridiagonal(diagonal, off_diagonal))
        residual = norm * abs(vectors[-1, -1].item())
        scale = values.abs().max().item()
        if residual <= tolerance * scale or products == size:
            vector = sum(c * v for c, v in zip(vectors[:, -1].tolist(), basis, strict=True))
            return TopEigenpair(values[-1].item(), vector, products)
        off_diagonal.append(norm)
        basis.append(image / norm)
    raise RuntimeError(f"max_products = {max_products}: not enough for a tolerance of {tolerance}; allowed is more")


def _tridiagonal(diagonal: list[float], off_diagonal: list[float]) -> Float[Tensor, "k k"]:
    off = torch.tensor(off_diagonal, dtype=torch.float64)
    return torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)


def kernel_direction(
    model: nn.Module, linearization: Linearization, eigenvector: Float[Tensor, " nc"]
) -> Float[Tensor, " p"]:
    """``J^T u``, the eigenvector of J^T J that belongs to the kernel's eigenvector u, all parameters flattened."""
    direction = linearization.vjp(eigenvector.view_as(linearization.outputs))
    return torch.cat([direction[name].flatten() for name, p in model.named_parameters() if p.requires_grad])
