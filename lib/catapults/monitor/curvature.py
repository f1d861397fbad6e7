"""The sharpness of a batch's loss: the largest eigenvalue of its Gauss-Newton matrix, or of its Hessian.

With J = df/dw on the batch and H_f = d^2L/df^2, the Gauss-Newton matrix is ``G = J^T H_f J``; for the MSE, where
``H_f = 2/n``, its largest eigenvalue is ``2/n ||K||``. For few outputs of a model whose samples do not mix it is that
of ``H_f^1/2 K H_f^1/2``, from the tangent kernel K. Everything else takes products ``G v`` or ``H v`` by autograd, and
Lanczos iteration, which starts at the eigenvector of the measurement before.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..precision import full_precision
from ..tangent import extended
from ..tangent.eigenspace import NotFinite, largest_eigenvalue, top_eigenpairs
from ..tangent.hessian import _explained, _refuse_once_differentiable, _twice_differentiable
from ..tangent.undisturbed import RandomState, undisturbed
from . import losses
from .lanczos import largest
from .losses import Loss
from .thresholds import Threshold

Matrix = Literal["gauss-newton", "hessian"]
Batch = tuple[Any, Any]  # inputs and targets
Forward = Callable[[nn.Module, Any], Tensor]

_ROWS, _OUTPUTS = 2048, 16  # of a kernel that is formed: c backward passes, and an eigenvalue of an (n c, n c) matrix
_SMALL = 512  # rows up to which all eigenvalues cost next to nothing
_NOISE = 0.1  # beside the start: a start that is an eigenvector would stay one, though it be no longer the top one


@dataclass(frozen=True)
class Sharpness:
    """The largest eigenvalue of ``D^1/2 (G + W) D^1/2`` (:class:`.thresholds.Threshold`)."""

    value: float
    loss: float  # on the batch, before the step
    products: int  # with the matrix; 0 where the tangent kernel was formed
    converged: bool = True


class Curvature:
    """Measures the sharpness of batches without a trace in model, gradients, or random numbers to come.

    - ``loss``: of outputs and targets, one number; convex in the outputs for ``matrix="gauss-newton"``.
    - ``forward``: ``forward(model, inputs)`` gives the outputs; by default ``model(inputs)``.
    - ``tolerance``: relative, of the eigenvalue by Lanczos iteration (:mod:`.lanczos`).
    - ``max_products``: of it, at most.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        matrix: Matrix = "gauss-newton",
        forward: Forward | None = None,
        tolerance: float = 1e-2,
        max_products: int = 60,
    ) -> None:
        self._model, self._loss, self._matrix, self._forward = model, loss, matrix, forward
        self._tolerance, self._max_products = tolerance, max_products
        self._plans: dict[Any, extended.Plan | None] = {}
        self._vector: Tensor | None = None

    def __call__(self, batches: Sequence[Batch], step: Threshold) -> Sharpness:
        """Of the mean of the loss over batches of equal weight, for the parameters that the step changes.

        Raises ``ValueError`` for parameters in half precision, a loss that is not one number, or not convex, and a
        model that cannot be differentiated twice; its subclass :class:`catapults.tangent.eigenspace.NotFinite` where
        the curvature is not.
        """
        if half := [p.dtype for p in step.parameters if p.dtype.itemsize < 4]:
            raise ValueError(f"model: has parameters of {half[0]}; allowed are float32 and float64, as under autocast")
        random = RandomState(step.parameters[0].device)
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]  # batch norm changes them unversioned
        try:
            plan = self._plan(batches, step) if step.uniform and len(batches) == 1 else None
            if plan is not None:
                try:
                    return self._structured(*batches[0], plan, step)
                except losses.Mixes:
                    self._plans = dict.fromkeys(self._plans)
            return self._by_products(batches, step)
        finally:
            random.restore()
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)

    def _plan(self, batches: Sequence[Batch], step: Threshold) -> extended.Plan | None:
        """How the kernel is formed, where it is to be; found out once for each kind of batch."""
        (inputs, _), trained = batches[0], [p for p in self._model.parameters() if p.requires_grad]
        if self._matrix != "gauss-newton" or self._forward is not None or not isinstance(inputs, Tensor):
            return None
        if not inputs.dim() or {id(p) for p in trained} != {id(p) for p in step.parameters}:
            return None
        key = (*(module.training for module in self._model.modules()), *map(id, trained), inputs.shape, inputs.dtype)
        if key not in self._plans:
            self._plans[key] = None
            try:
                plan = extended.layers(self._model, inputs)
                with undisturbed(self._model), torch.no_grad():
                    outputs = self._model(inputs)[:1].numel()
            except (ValueError, TypeError):  # such as batch norm in training mode: its samples have no kernel
                return None
            if outputs <= _OUTPUTS and outputs * len(inputs) <= _ROWS:
                self._plans[key] = plan
        return self._plans[key]

    def _structured(self, inputs: Tensor, targets: Any, plan: extended.Plan, step: Threshold) -> Sharpness:
        linearization = extended.linearize(self._model, inputs, plan)
        value, gradient, f = losses.value_and_gradient(self._loss, linearization.outputs, targets)
        R = losses.roots(losses.blocks(gradient, f))
        n, c = R.shape[:2]
        K = linearization.kernel().view(n, c, n, c)
        with full_precision(), torch.no_grad():
            M = torch.einsum("iab,ibjc,jcd->iajd", R, K, R) if c > 1 else K * R.view(n, 1, 1, 1) * R.view(n, 1)
        M = M.reshape(n * c, n * c)
        top = largest_eigenvalue(M) if len(M) <= _SMALL else top_eigenpairs(M, 1).values[-1].item()
        return Sharpness(step.D[0] * (top + step.decay[0]), value.item(), 0)

    def _by_products(self, batches: Sequence[Batch], step: Threshold) -> Sharpness:
        build = _GaussNewton if self._matrix == "gauss-newton" else _Hessian
        with undisturbed(self._model), _twice_differentiable(self._model), full_precision(), torch.enable_grad():
            with _explained():
                parts = [build(self._model, self._loss, self._forward, step.parameters, *batch) for batch in batches]
            matrix = _Scaled(parts, step)
            start = self._vector if self._vector is not None and len(self._vector) == matrix.size else None
            with _explained():
                top = largest(matrix.product, matrix.start(start), self._tolerance, self._max_products)
        if self._matrix == "gauss-newton" and top.value < 0:
            raise losses.not_convex()
        self._vector = top.vector
        return Sharpness(top.value, sum(part.value for part in parts) / len(parts), top.products, top.converged)


class _GaussNewton:
    """``v -> J^T H_f J v``; J v is the derivative of J^T u by u, so that any model will do that trains by autograd."""

    def __init__(
        self, model: nn.Module, loss: Loss, forward: Forward | None, parameters: list[nn.Parameter], *batch: Any
    ) -> None:
        inputs, targets = batch
        self._parameters = parameters
        self._outputs = forward(model, inputs) if forward else model(inputs)
        if not isinstance(self._outputs, Tensor):
            kind = type(self._outputs).__name__
            raise ValueError(f"model: its output is a {kind}; allowed is a tensor, or forward=… that picks one out")
        value, self._by_outputs, self._f = losses.value_and_gradient(loss, self._outputs, targets)
        self.value = value.item()
        self._u = torch.zeros_like(self._outputs, requires_grad=True)
        self._pulled_back = torch.autograd.grad(
            self._outputs, parameters, self._u, create_graph=True, materialize_grads=True
        )
        _refuse_once_differentiable(self._pulled_back)

    def gradient(self) -> Sequence[Tensor]:
        return self._back(self._by_outputs.detach())

    def product(self, vector: Sequence[Tensor]) -> Sequence[Tensor]:
        pairs = [(g, v) for g, v in zip(self._pulled_back, vector, strict=True) if g.requires_grad]
        if not pairs:
            return [torch.zeros_like(p) for p in self._parameters]
        along, v = zip(*pairs, strict=True)
        (forward,) = torch.autograd.grad(along, self._u, v, retain_graph=True, materialize_grads=True)
        return self._back(losses.product(self._by_outputs, self._f, forward))

    def _back(self, cotangent: Tensor) -> Sequence[Tensor]:
        return torch.autograd.grad(
            self._outputs, self._parameters, cotangent, retain_graph=True, materialize_grads=True
        )


class _Hessian:
    """``v -> H v`` by differentiating the gradient."""

    def __init__(
        self, model: nn.Module, loss: Loss, forward: Forward | None, parameters: list[nn.Parameter], *batch: Any
    ) -> None:
        inputs, targets = batch
        self._parameters = parameters
        value = loss(forward(model, inputs) if forward else model(inputs), targets)
        self.value = value.item()
        self._gradient = torch.autograd.grad(value.reshape(()), parameters, create_graph=True, materialize_grads=True)
        _refuse_once_differentiable(self._gradient)

    def gradient(self) -> list[Tensor]:
        return [g.detach() for g in self._gradient]

    def product(self, vector: Sequence[Tensor]) -> Sequence[Tensor]:
        pairs = [(g, v) for g, v in zip(self._gradient, vector, strict=True) if g.requires_grad]
        if not pairs:
            return [torch.zeros_like(p) for p in self._parameters]
        gradient, v = zip(*pairs, strict=True)
        return torch.autograd.grad(gradient, self._parameters, v, retain_graph=True, materialize_grads=True)


class _Scaled:
    """``D^1/2 (mean of the parts + W) D^1/2`` on flat vectors, for Lanczos iteration."""

    def __init__(self, parts: Sequence[_GaussNewton | _Hessian], step: Threshold) -> None:
        self._parts, self._step = parts, step
        self._roots = [d.sqrt() if isinstance(d, Tensor) else math.sqrt(d) for d in step.D]
        self.size = sum(p.numel() for p in step.parameters)
        self._dtype = reduce(torch.promote_types, (p.dtype for p in step.parameters))

    def start(self, before: Tensor | None) -> Float[Tensor, " p"]:
        """The eigenvector before or the gradient, along which the loss is curved more than along most, with noise."""
        if before is None:
            gradients = [part.gradient() for part in self._parts]
            before = self._flat([r * sum(g) for r, g in zip(self._roots, zip(*gradients, strict=True), strict=True)])
        if not torch.isfinite(before).all():
            raise NotFinite("model: its gradient is not finite; allowed are weights, inputs and targets that give one")
        noise = torch.randn(self.size, generator=torch.Generator().manual_seed(0)).to(before)
        norm = before.norm()
        return before / norm + _NOISE * noise / noise.norm() if norm > 0 else noise

    def product(self, vector: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
        pieces = vector.split([p.numel() for p in self._step.parameters])
        shaped = [v.view_as(p).to(p) for v, p in zip(pieces, self._step.parameters, strict=True)]
        scaled = [r * v for r, v in zip(self._roots, shaped, strict=True)]
        images = [part.product(scaled) for part in self._parts]
        return self._flat(
            [
                r * (sum(image) / len(images) + w * v)
                for r, image, w, v in zip(self._roots, zip(*images, strict=True), self._step.decay, scaled, strict=True)
            ]
        )

    def _flat(self, pieces: Sequence[Tensor]) -> Float[Tensor, " p"]:
        return torch.cat([piece.detach().flatten().to(self._dtype) for piece in pieces])
