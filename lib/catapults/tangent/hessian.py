"""The critical learning rate without the tangent kernel's approximation: ``2 / lambda_max`` of the loss's Hessian.

Section 2 and appendix A of the paper: ``H = 2/n J^T J + 2/n sum_i (f_i - y_i) d^2 f_i``. The first term has the
kernel's eigenvalues times ``2/n`` and the eigenvectors ``J^T u_i``, so that Lanczos iteration started from ``J^T u_1``
converges in a few Hessian-vector products. Those come from the chain rule written out
(:mod:`catapults.tangent.factored`) for a fully connected network with more parameters than its samples need, and from
differentiating the gradient for all others.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..checks import whole_number
from ..precision import full_precision
from . import factored
from .calls import nodes_behind
from .eigenspace import NotFinite, top_eigenpairs
from .factored import FactoredHessian
from .linearization import Linearization, linearize
from .loss import residual_of
from .trial import refuse_unsuitable
from .undisturbed import undisturbed

_PRODUCTS = 200  # with the Hessian, at most


@dataclass(frozen=True)
class TopEigenpair:
    """The Hessian's largest eigenvalue and its eigenvector."""

    value: float
    vector: Float[Tensor, " p"]  # all parameters flattened
    products: int  # with the Hessian, that it took
    converged: bool = True  # whether the value is within the tolerance


def critical_learning_rate(
    model: nn.Module,
    inputs: Shaped[Tensor, "n ..."],
    targets: Shaped[Tensor, "n ..."],
    start: Float[Tensor, " p"] | None = None,
    tolerance: float = 1e-4,
    linearization: Linearization | None = None,
) -> float:
    """``2 / lambda_max(H)`` of the MSE at the model's weights (section 2); infinite where no curvature is positive.

    Parameters, warning and errors are those of :func:`top_eigenpair`.
    """
    value = _top_eigenpair(model, inputs, targets, start, tolerance, _PRODUCTS, linearization).value
    return 2 / value if value > 0 else math.inf


def top_eigenpair(
    model: nn.Module,
    inputs: Shaped[Tensor, "n ..."],
    targets: Shaped[Tensor, "n ..."],
    start: Float[Tensor, " p"] | None = None,
    tolerance: float = 1e-4,
    max_products: int = _PRODUCTS,
    linearization: Linearization | None = None,
) -> TopEigenpair:
    """Largest eigenvalue of the Hessian of ``mean((f - y)^2)`` over the trainable parameters, by Lanczos iteration.

    - ``inputs``, ``targets``: n samples; targets of any real type, as :func:`catapults.tangent.residual_of` takes them.
    - ``start``: any vector of all parameters flattened; by default ``J^T u`` with the kernel's top eigenvector u.
    - ``tolerance``: the iteration stops when an eigenvalue lies within it, relatively, of the estimate.
    - ``max_products``: with the Hessian.
    - ``linearization``: the model's on these inputs, where it is known already; it saves the trial run.

    Where ``max_products`` do not suffice, the best estimate is returned with a ``RuntimeWarning``: it is too small, and
    the critical rate too large.

    Raises ``ValueError`` as :func:`catapults.tangent.tangent_kernel`, for targets of another number, a start of another
    size or with entries that are not finite, and for a model that cannot be differentiated twice; its subclass
    :class:`catapults.tangent.eigenspace.NotFinite` where kernel or Hessian are not finite.
    """
    whole_number(1, max_products=max_products)
    return _top_eigenpair(model, inputs, targets, start, tolerance, max_products, linearization)


def _top_eigenpair(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    start: Tensor | None,
    tolerance: float,
    max_products: int,
    linearization: Linearization | None,
) -> TopEigenpair:
    with undisturbed(model):
        operator, first = _operator_and_start(model, inputs, targets, start, linearization)
        value, vector, products, converged = _lanczos(operator, first, tolerance, max_products)
        vector = operator.vector(vector)
    if not converged:  # the same words each time, so that Python's own filter shows them once
        warnings.warn(
            f"Hessian: max_products = {max_products} do not suffice for a tolerance of {tolerance:g}; "
            "the largest eigenvalue found so far is taken",
            RuntimeWarning,
            stacklevel=3,  # where a public function was called
        )
    return TopEigenpair(value, vector, products, converged)


class _Graph:
    """The Hessian's products by differentiating the gradient; its vectors as they are. Compare `FactoredHessian`."""

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor):
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.size = sum(p.numel() for p in self._parameters)
        self.dtype = reduce(torch.promote_types, map(_precise, self._parameters))
        with _twice_differentiable(model), full_precision(), torch.enable_grad():
            outputs = model(inputs.clone() if inputs.is_inference() else inputs)
            self._outputs = outputs.to(self.dtype)
            loss = residual_of(self._outputs, targets).square().mean()
            self._gradient = [torch.zeros_like(p) for p in self._parameters]
            if loss.requires_grad:
                with _explained():
                    self._gradient = torch.autograd.grad(
                        loss, self._parameters, create_graph=True, materialize_grads=True
                    )
                _refuse_once_differentiable(self._gradient)

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
        """Of no parameter depends a value without a graph, such as the gradient of a bias of a linear model."""
        pairs = [(v, c.to(v)) for v, c in zip(values, cotangents, strict=True) if v.requires_grad]
        result = [torch.zeros_like(p) for p in self._parameters]
        if pairs:
            with full_precision(), _explained():
                values, cotangents = zip(*pairs, strict=True)
                result = torch.autograd.grad(
                    values, self._parameters, cotangents, retain_graph=True, materialize_grads=True
                )
        return torch.cat([r.flatten() for r in result]).to(self.dtype)


@contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Run layers by operations that have a second derivative: neither fused attention, nor cuDNN's recurrent layers,
    nor gradients of embeddings that are sparse tensors, have one."""
    modules = list(model.modules())
    sparse = [module for module in modules if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse]
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules)
    for module in sparse:
        module.sparse = False
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext():
            yield
    finally:
        for module in sparse:
            module.sparse = True


@contextmanager
def _explained() -> Iterator[None]:
    """A ``ValueError`` where an operation of the model cannot be differentiated twice."""
    try:
        yield
    except RuntimeError as error:
        if "derivative" not in str(error) and "double backward" not in str(error):
            raise
        raise _not_twice(str(error)) from error


def _refuse_once_differentiable(gradient: Sequence[Tensor]) -> None:
    """Behind such a function, marked by a node of the graph, torch takes the gradient for a constant without a word."""
    if any(node.name() == "torch::autograd::Error" for node in nodes_behind(*gradient)):
        raise _not_twice("it has a function that is marked as once_differentiable")


def _not_twice(why: str) -> ValueError:
    return ValueError(f"model: cannot be differentiated twice ({why}); allowed are operations that can")


def _precise(tensor: Tensor) -> torch.dtype:
    """Single precision at least: iterations do not converge in less."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _operator_and_start(
    model: nn.Module, inputs: Tensor, targets: Tensor, start: Tensor | None, linearization: Linearization | None
) -> tuple[_Graph | FactoredHessian, Tensor]:
    """The Hessian in the form that suits the model, and where to start."""
    if start is not None:
        if linearization is None:
            refuse_unsuitable(model, inputs)
        graph = _Graph(model, inputs, targets)
        if start.shape != (graph.size,):
            raise ValueError(
                f"start: shape {tuple(start.shape)}; allowed is ({graph.size},), one entry a trainable parameter"
            )
        if not torch.isfinite(start).all():
            raise ValueError("start: has entries that are not finite; allowed are finite ones")
        return graph, start.to(inputs.device, graph.dtype)
    linearization = linearization or linearize(model, inputs)
    kernel = linearization.kernel() if linearization.kernel_fits() else linearization
    try:
        u = top_eigenpairs(kernel, 1).vectors[:, -1]
    except RuntimeError:  # a kernel that is not formed, without convergence; any other start takes more products
        u = linearization.outputs.new_ones(len(linearization))
    u = u.view(len(inputs), -1)
    if factored.applies(model, linearization):
        operator = FactoredHessian(model, linearization, targets)
    else:
        operator = _Graph(model, inputs, targets)
    return operator, operator.along(u)


def _lanczos(
    operator: _Graph | FactoredHessian, start: Tensor, tolerance: float, max_products: int = _PRODUCTS
) -> tuple[float, Tensor, int, bool]:
    """Largest eigenvalue, eigenvector, the products that it took, and whether they sufficed.

    In the inner product ``<q, metric(q')>``. Raises :class:`NotFinite`.
    """
    dual = operator.metric(start)
    if not torch.dot(start, dual) > 0:  # the kernel is zero, the Hessian need not be
        start = torch.randn(len(start), generator=torch.Generator().manual_seed(0)).to(start)
        dual = operator.metric(start)
    norm = _length(start, dual)
    if norm == 0:  # no direction changes the gradient
        return 0.0, start, 0, True
    basis, duals = [start / norm], [dual / norm]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    for products in range(1, max_products + 1):
        image = operator.product(duals[-1])
        diagonal.append(torch.dot(image, duals[-1]).item())
        if not math.isfinite(diagonal[-1]):
            raise NotFinite("model: its Hessian is not finite; allowed are weights, inputs and targets that give such")
        for _ in range(2):  # twice is enough for orthogonality to working precision
            for vector, dual in zip(basis, duals, strict=True):
                image.sub_(vector, alpha=torch.dot(image, dual).item())
        dual = operator.metric(image)
        norm = _length(image, dual)
        values, vectors = torch.linalg.eigh(_tridiagonal(diagonal, off_diagonal))
        residual = norm * abs(vectors[-1, -1].item())
        scale = values.abs().max().item()
        converged = residual <= tolerance * scale or products == operator.size
        if converged or products == max_products:
            vector = sum(c * v for c, v in zip(vectors[:, -1].tolist(), basis, strict=True))
            return values[-1].item(), vector, products, converged
        off_diagonal.append(norm)
        basis.append(image / norm)
        duals.append(dual / norm)
    raise AssertionError("max_products is at least 1")


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
