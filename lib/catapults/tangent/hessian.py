"""The critical learning rate without the tangent kernel's approximation: ``2 / lambda_max`` of the loss's Hessian.

Section 2 and appendix A of the paper: ``H = 2/n J^T J + 2/n sum_i (f_i - y_i) d^2 f_i``. The first term has the
kernel's eigenvalues times ``2/n`` and the eigenvectors ``J^T u_i``, so that Lanczos iteration started from ``J^T u_1``
converges in a few Hessian-vector products. Those come from the chain rule written out
(:mod:`catapults.tangent.factored`) for a fully connected network with more parameters than its samples need, and from
differentiating the gradient for all others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..precision import full_precision
from . import factored
from .eigenspace import top_eigenpairs
from .factored import FactoredHessian
from .linearization import Linearization, linearize


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
    linearization: Linearization | None = None,
) -> float:
    """``2 / lambda_max(H)`` of the MSE at the model's weights (section 2); infinite where no curvature is positive.

    The parameters and the errors are those of :func:`top_eigenpair`.
    """
    value = _lanczos(*_operator_and_start(model, inputs, targets, start, linearization), tolerance)[0]
    return 2 / value if value > 0 else math.inf


def top_eigenpair(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Float[Tensor, "n ..."],
    start: Float[Tensor, " p"] | None = None,
    tolerance: float = 1e-4,
    max_products: int = 200,
    linearization: Linearization | None = None,
) -> TopEigenpair:
    """Largest eigenvalue of the Hessian of ``mean((f - y)^2)`` over the trainable parameters, by Lanczos iteration.

    ``start`` is any vector of all parameters flattened, by default ``J^T u`` with the kernel's top eigenvector u.
    ``linearization`` is the model's on these inputs, where it is known already. The iteration stops when an eigenvalue
    lies within ``tolerance``, relatively, of the estimate.

    Raises ``ValueError`` for a start of another size or with entries that are not finite, and ``RuntimeError`` when
    ``max_products`` do not suffice.
    """
    operator, first = _operator_and_start(model, inputs, targets, start, linearization)
    value, vector, products = _lanczos(operator, first, tolerance, max_products)
    return TopEigenpair(value, operator.vector(vector), products)


class _Graph:
    """The Hessian's products by differentiating the gradient; its vectors as they are. Compare `FactoredHessian`."""

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor):
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.size = sum(p.numel() for p in self._parameters)
        with full_precision(), torch.enable_grad():
            self._outputs = model(inputs)
            loss = (self._outputs - targets.reshape(self._outputs.shape)).square().mean()
            self._gradient = torch.autograd.grad(loss, self._parameters, create_graph=True, materialize_grads=True)

    def along(self, cotangent: Tensor) -> Tensor:
        return self._pulled_back([self._outputs], [cotangent.view_as(self._outputs)])

    def metric(self, vector: Tensor) -> Tensor:
        return vector

    def product(self, vector: Tensor) -> Tensor:
        pieces = vector.split([p.numel() for p in self._parameters])
        pieces = [piece.view_as(p) for piece, p in zip(pieces, self._parameters, strict=True)]
        return self._pulled_back(self._gradient, pieces)

    def vector(self, vector: Tensor) -> Tensor:
        return vector

    def _pulled_back(self, values: Sequence[Tensor], cotangents: Sequence[Tensor]) -> Tensor:
        with full_precision():
            result = torch.autograd.grad(
                values, self._parameters, cotangents, retain_graph=True, materialize_grads=True
            )
        return torch.cat([r.flatten() for r in result])


def _operator_and_start(
    model: nn.Module, inputs: Tensor, targets: Tensor, start: Tensor | None, linearization: Linearization | None
) -> tuple[_Graph | FactoredHessian, Tensor]:
    """The Hessian in the form that suits the model, and where to start."""
    if start is not None:
        graph = _Graph(model, inputs, targets)
        if start.shape != (graph.size,):
            raise ValueError(
                f"start: shape {tuple(start.shape)}; allowed is ({graph.size},), one entry a trainable parameter"
            )
        if not torch.isfinite(start).all():
            raise ValueError("start: has entries that are not finite; allowed are finite ones")
        return graph, start
    linearization = linearization or linearize(model, inputs)
    kernel = linearization.kernel() if linearization.kernel_fits() else linearization
    u = top_eigenpairs(kernel, 1).vectors[:, -1].view(len(inputs), -1)
    if factored.applies(model, linearization):
        operator = FactoredHessian(model, linearization, targets)
    else:
        operator = _Graph(model, inputs, targets)
    return operator, operator.along(u)


def _lanczos(
    operator: _Graph | FactoredHessian, start: Tensor, tolerance: float, max_products: int = 200
) -> tuple[float, Tensor, int]:
    """Largest eigenvalue, eigenvector, and the products that it took; in the inner product ``<q, metric(q')>``."""
    dual = operator.metric(start)
    if not torch.dot(start, dual) > 0:  # the kernel is zero, the Hessian need not be
        start = torch.randn(len(start), generator=torch.Generator().manual_seed(0)).to(start)
        dual = operator.metric(start)
    norm = _length(start, dual)
    if norm == 0:  # no direction changes the gradient
        return 0.0, start, 0
    basis, duals = [start / norm], [dual / norm]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    for products in range(1, max_products + 1):
        image = operator.product(duals[-1])
        diagonal.append(torch.dot(image, duals[-1]).item())
        for _ in range(2):  # twice is enough for orthogonality to working precision
            for vector, dual in zip(basis, duals, strict=True):
                image.sub_(vector, alpha=torch.dot(image, dual).item())
        dual = operator.metric(image)
        norm = _length(image, dual)
        values, vectors = torch.linalg.eigh(_tridiagonal(diagonal, off_diagonal))
        residual = norm * abs(vectors[-1, -1].item())
        scale = values.abs().max().item()
        if residual <= tolerance * scale or products == operator.size:
            vector = sum(c * v for c, v in zip(vectors[:, -1].tolist(), basis, strict=True))
            return values[-1].item(), vector, products
        off_diagonal.append(norm)
        basis.append(image / norm)
        duals.append(dual / norm)
    raise RuntimeError(f"max_products = {max_products}: not enough for a tolerance of {tolerance}; allowed is more")


def _length(vector: Tensor, dual: Tensor) -> float:
    return math.sqrt(max(torch.dot(vector, dual).item(), 0.0))


def _tridiagonal(diagonal: list[float], off_diagonal: list[float]) -> Float[Tensor, "k k"]:
    off = torch.tensor(off_diagonal, dtype=torch.float64)
    return torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)


def kernel_direction(
    model: nn.Module, linearization: Linearization, eigenvector: Float[Tensor, " nc"]
) -> Float[Tensor, " p"]:
    """``J^T u``, the eigenvector of J^T J that belongs to the kernel's eigenvector u, all parameters flattened."""
    direction = linearization.vjp(eigenvector.view_as(linearization.outputs))
    return torch.cat([direction[name].flatten() for name, p in model.named_parameters() if p.requires_grad])
