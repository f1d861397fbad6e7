"""When SGD is stable in the mean square: thresholds from the tangent kernel, and batch sharpness.

Under ``mean((f - y)^2)`` a step on a batch B of b samples changes the residual r = f - y, to first order, by
``-2 eta / b K_.B r_B``. For a fixed kernel K (n, n) this is linear in r. With A = 2 eta / n K the second moment
``M = E[r r^T]`` follows exactly

    M' = (1 - A) M (1 - A) + rho A (n diag(M) - M) A,

where diag(M) keeps the diagonal alone, and rho is what sampling adds (:func:`sampling_noise`): 1 / b for independent
draws, (n - b) / (b (n - 1)) for batches of different samples, about 1 / b - 1 / n.

Let the eigenvectors of K be *delocalised*, spread so evenly over the samples that ``u_i^T diag(M) u_i`` is tr(M) / n
for each of them. Then the parts ``p_i = u_i^T M u_i`` follow, with a_i = 2 eta lambda_i / n,

    p_i' = ((1 - a_i)^2 - rho a_i^2) p_i + rho a_i^2 sum_j p_j.

The matrix of this map has no negative entry. So all p_i fall to zero iff there are positive p with p' < p, which is so
iff

    S = rho sum_i x_i / (1 - (1 - rho) x_i) < 1   and   (1 - rho) x_i < 1 for every i,   with x_i = eta lambda_i / n,

the fraction of the critical rate that eta is for the i-th eigendirection. The n or so terms of small x_i give
``rho eta tr(K) / n``, the threshold by the trace. With many samples and small rho S is
(1/b - 1/n) sum_i x_i / (1 - x_i); Agarwala and Pennington (2024, arXiv:2404.19261) have a norm of this kind, whose
threshold is 1, for the stochastic edge of stability. Of a single sample, rho = 1, S is eta tr(K) / n.

Everything here is for networks with one output.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .checks import whole_number
from .precision import full_precision
from .tangent.loss import residual_of

_GROWTH_STEPS = 20_000  # of the map of the second moment, at most
_SETTLED = 1e-10  # relative change of the growth from one step to the next


def sampling_noise(n: int, batch_size: int, replacement: bool = True) -> float:
    """rho: the variance of the mean over a batch, in units of that of one sample.

    1 / b for ``replacement``, independent draws; (n - b) / (b (n - 1)) for batches of different samples, 0 for all.

    Raises ``ValueError`` for a batch without samples or, without replacement, of more than ``n``.
    """
    whole_number(1, n=n)
    whole_number(1, float("inf") if replacement else n, batch_size=batch_size)
    return 1 / batch_size if replacement else (n - batch_size) / (batch_size * max(n - 1, 1))


def mean_square(
    eigenvalues: Float[Tensor, " n"], learning_rate: float, batch_size: int, replacement: bool = True
) -> float:
    """S of this module: SGD on a fixed kernel with delocalised eigenvectors is stable in the mean square iff S < 1.

    - ``eigenvalues``: all those of the tangent kernel K of n samples, in any order; rounding below zero counts as zero.
    - ``learning_rate``: eta.
    - ``batch_size``, ``replacement``: as in :func:`catapults.sgd.stochastic_gradient_descent`.

    Infinite where (1 - rho) eta lambda_1 / n is 1 or more: there a direction grows by itself. Raises
    ``ValueError`` for eigenvalues that are not finite, and as :func:`sampling_noise`.
    """
    values = _finite(eigenvalues, "eigenvalues").clamp(min=0)
    rho = sampling_noise(len(values), batch_size, replacement)
    x = _rate(learning_rate) * values / len(values)
    left = 1 - (1 - rho) * x
    return float("inf") if left.min() <= 0 else rho * (x / left).sum().item()


def by_trace(trace: float, n: int, learning_rate: float, batch_size: int, replacement: bool = True) -> float:
    """rho eta tr(K) / n, which is below 1 for a rate that is stable by the trace alone: S with all x_i small.

    Never larger than :func:`mean_square`, and the same for batches of one sample drawn with replacement.
    """
    return sampling_noise(n, batch_size, replacement) * _rate(learning_rate) * trace / n


def second_moment_growth(
    kernel: Float[Tensor, "n n"], learning_rate: float, batch_size: int, replacement: bool = True
) -> float:
    """By which factor ``E[r r^T]`` grows with a step in the long run, for a fixed kernel: exact, with any eigenvectors.

    The spectral radius of the map of this module, by power iteration in double precision: four products of (n, n)
    matrices a step, so for some hundred samples. Mean-square stable is a growth below 1.

    Raises ``ValueError`` for a kernel that is not finite or not square, and as :func:`sampling_noise`; ``RuntimeError``
    where the growth does not settle.
    """
    if kernel.dim() != 2 or len(kernel) != kernel.shape[1]:
        raise ValueError(f"kernel: shape {tuple(kernel.shape)}; allowed is (n, n)")
    n = len(kernel)
    A = _finite(kernel, "kernel") * (2 * _rate(learning_rate) / n)
    rho = sampling_noise(n, batch_size, replacement)
    M, growth = torch.eye(n, dtype=A.dtype) / n, float("nan")
    for _ in range(_GROWTH_STEPS):
        M, before = moment_after_step(M, A, rho), growth
        growth = M.trace().item()
        if growth == 0 or abs(growth - before) <= _SETTLED * growth:
            return growth
        M /= growth
    raise RuntimeError(f"kernel: the growth has not settled after {_GROWTH_STEPS} steps; it is about {growth:.6g}")


def moment_after_step(M: Float[Tensor, "n n"], A: Float[Tensor, "n n"], rho: float) -> Float[Tensor, "n n"]:
    """``E[r r^T]`` after a step from ``M``; ``A`` is 2 eta / n K, and ``rho`` as in :func:`sampling_noise`."""
    kept = M - A @ M
    noise = torch.diag(len(M) * M.diagonal()) - M
    return kept - kept @ A + rho * (A @ noise @ A)


def batch_sharpness(kernel: Float[Tensor, "n n"], residual: Float[Tensor, " m"], batches: Int[Tensor, "k b"]) -> float:
    """Mean over batches of ``g^T H g / ||g||^2``, the curvature of a batch's loss along its own gradient g.

    In the Gauss-Newton form, H = 2 / b J_B^T J_B, this is ``2 / b r_B^T K_BB^2 r_B / r_B^T K_BB r_B``: twice the mean
    of 1 / eta*_B, the rate at which a step leaves its batch's loss alone. In units of the Hessian, as 2 / eta, to which
    Andreyev and Beneventano (2024, arXiv:2412.20553) find that it rises.

    - ``kernel``, ``residual``: K and f - y of the whole set.
    - ``batches``: the samples of each.

    Batches with zero gradient are left out; NaN where all are. Raises ``ValueError`` for shapes that do not fit.
    """
    if kernel.shape != (len(residual), len(residual)) or batches.dim() != 2:
        shapes = f"{tuple(kernel.shape)}, {tuple(residual.shape)}, {tuple(batches.shape)}"
        raise ValueError(f"kernel, residual, batches: shapes {shapes}; allowed are (n, n), (n,), (k, b)")
    K, r = kernel[batches[:, :, None], batches[:, None, :]].double(), residual[batches].double()
    Kr = torch.einsum("kij,kj->ki", K, r)
    squares, products = Kr.square().sum(1), (r * Kr).sum(1)
    there = products > 0
    return 2 / batches.shape[1] * (squares[there] / products[there]).mean().item()


def batch_sharpness_by_hessian(
    model: nn.Module, inputs: Float[Tensor, "n ..."], targets: Float[Tensor, " n"], batches: Int[Tensor, "k b"]
) -> float:
    """The same with the whole Hessian of each batch's loss, by differentiating its gradient: any network, two backward
    passes a batch. Batches with zero gradient are left out; NaN where all are."""
    parameters, found = [p for p in model.parameters() if p.requires_grad], []
    for batch in batches:
        with full_precision(), torch.enable_grad():
            loss = residual_of(model(inputs[batch]), targets[batch]).square().mean()
            gradient = torch.autograd.grad(loss, parameters, create_graph=True)
            fixed = [g.detach() for g in gradient]
            along = sum((g * v).sum() for g, v in zip(gradient, fixed, strict=True))
            curved = torch.autograd.grad(along, parameters, materialize_grads=True)
        norm = _dot(fixed, fixed)
        if norm > 0:
            found.append(_dot(fixed, curved) / norm)
    return sum(found) / len(found) if found else float("nan")


def critical_rates_exceeded(kernel: Float[Tensor, "n n"], learning_rate: float, batches: Int[Tensor, "k b"]) -> float:
    """The share of batches with eta > eta_crit(X_batch) = b / ||K_BB||, the paper's criterion for a step."""
    norms = torch.linalg.eigvalsh(kernel[batches[:, :, None], batches[:, None, :]].double())[:, -1]
    return (_rate(learning_rate) * norms > batches.shape[1]).double().mean().item()


def _dot(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    return sum((a.double() * b.double()).sum().item() for a, b in zip(some, others, strict=True))


def _finite(values: Tensor, name: str) -> Tensor:
    if not torch.isfinite(values).all():
        raise ValueError(f"{name}: holds values that are not finite; allowed are finite ones")
    return values.double()


def _rate(learning_rate: float) -> float:
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate = {learning_rate!r}: allowed are finite numbers above 0")
    return learning_rate
