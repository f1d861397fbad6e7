"""The largest rate at which an optimiser's step is stable, from the curvature of the loss.

On a quadratic loss with Hessian H, an optimiser that divides the gradient by P and has momentum makes, along each
eigenvector of ``P^-1 (H + W)`` with eigenvalue lambda, a linear recursion in the weights. It converges if the roots of
its characteristic polynomial lie within the unit circle, which the Jury conditions turn into ``rate * lambda < bound``:

- SGD with heavy-ball momentum mu and dampening tau (torch.optim.SGD): ``z^2 - (1 + mu - a) z + mu`` with
  ``a = rate (1 - tau) lambda``: bound ``2 (1 + mu) / (1 - tau)``; 2 without momentum.
- the same with Nesterov's: ``z^2 - (1 + mu) s z + mu s`` with ``s = 1 - rate lambda``: bound
  ``2 (1 + mu) / (1 + 2 mu)``, which is smaller.
- Adam, its preconditioner ``P = sqrt(v_hat) + eps`` held fixed: ``a = rate (1 - beta1) lambda`` with momentum beta1:
  bound ``2 (1 + beta1) / (1 - beta1)``, 38 for its defaults (Cohen et al., 2022, Adaptive gradient methods at the edge
  of stability). Times ``1 - beta1^t``, by which Adam divides its momentum at step t.
- RMSprop: its P with momentum mu: bound ``2 (1 + mu)``.
- Weight decay w that is added to the gradient adds w to H (W above). Where it is decoupled (AdamW) the weights shrink
  by ``rho = rate w`` besides, ``z^2 - (1 - rho + beta1 - a) z + beta1 (1 - rho)``: bound
  ``(2 - rho) (1 + beta1) / (1 - beta1)``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class Unknown(ValueError):
    """An optimiser whose step has no threshold here."""


@dataclass(frozen=True)
class Threshold:
    """A step is stable if ``rate * sharpness < bound``, with sharpness the largest eigenvalue of D^1/2 (H + W) D^1/2.

    D is diagonal: 1 for SGD, P^-1 for adaptive optimisers, times what a group's rate and bound are beside the first's.
    """

    rate: float  # the first group's
    bound: float
    parameters: list[nn.Parameter]
    D: list[Tensor | float]  # by parameter
    decay: list[float]  # W by parameter

    @property
    def uniform(self) -> bool:
        """Whether D and W are multiples of the identity, so that the sharpness is that of H, plus w, times d."""
        floats = [d for d in self.D if isinstance(d, float)]
        return len(floats) == len(self.D) and len(set(floats)) == 1 and len(set(self.decay)) == 1

    def critical(self, sharpness: float) -> float:
        """The first group's largest stable rate; infinite without positive curvature."""
        return self.bound / sharpness if sharpness > 0 else float("inf")


def threshold(optimizer: torch.optim.Optimizer) -> Threshold:
    """That of the step that the optimiser is about to make with the gradients that its parameters hold.

    Raises :class:`Unknown`, a ``ValueError``, for optimisers other than SGD, Adam, AdamW and RMSprop of torch.optim,
    for ``maximize=True``, and where no parameter has a gradient.
    """
    kind = next((kind for kind in _KINDS if type(optimizer) is kind), None)
    if kind is None:
        allowed = ", ".join(known.__name__ for known in _KINDS)
        raise Unknown(f"optimizer: {type(optimizer).__name__} has no threshold; allowed are torch.optim's {allowed}")
    parameters: list[nn.Parameter] = []
    D: list[Tensor | float] = []
    decay: list[float] = []
    first: tuple[float, float] | None = None
    for group in optimizer.param_groups:
        if group.get("maximize"):
            raise Unknown("optimizer: maximize = True has no threshold; allowed is False")
        for p in group["params"]:
            if not p.requires_grad or p.grad is None:
                continue
            bound, inverse = _KINDS[kind](optimizer, group, p)
            rate = float(group["lr"])
            first = first or (rate, bound)
            relative = (rate / first[0] if first[0] else 1.0) * first[1] / bound
            parameters.append(p)
            D.append(relative if inverse is None else inverse * relative)
            decay.append(0.0 if _decoupled(kind, group) else float(group["weight_decay"]))
    if first is None:
        raise Unknown("optimizer: none of its parameters has a gradient; allowed is at least one, after backward()")
    return Threshold(*first, parameters, D, decay)


def _sgd(optimizer: torch.optim.Optimizer, group: dict[str, Any], p: Tensor) -> tuple[float, None]:
    momentum = group["momentum"]
    return 2 * (1 + momentum) / (1 + 2 * momentum if group["nesterov"] else 1 - group["dampening"]), None


def _adam(optimizer: torch.optim.Optimizer, group: dict[str, Any], p: Tensor) -> tuple[float, Tensor]:
    beta1, beta2 = map(float, group["betas"])
    state = optimizer.state.get(p, {})
    t = int(state["step"]) + 1 if "step" in state else 1
    before = state.get("exp_avg_sq", torch.zeros_like(p))
    v = beta2 * before + (1 - beta2) * _gradient(optimizer, group, p).square()
    if group["amsgrad"] and "max_exp_avg_sq" in state:
        v = torch.maximum(state["max_exp_avg_sq"], v)
    P = (v / (1 - beta2**t)).sqrt() + group["eps"]
    shrinks = float(group["lr"]) * group["weight_decay"] if _decoupled(type(optimizer), group) else 0.0
    return (2 - shrinks) * (1 + beta1) / (1 - beta1) * (1 - beta1**t), 1 / P


def _rmsprop(optimizer: torch.optim.Optimizer, group: dict[str, Any], p: Tensor) -> tuple[float, Tensor]:
    state, alpha, g = optimizer.state.get(p, {}), group["alpha"], _gradient(optimizer, group, p)
    v = alpha * state.get("square_avg", torch.zeros_like(p)) + (1 - alpha) * g.square()
    if group["centered"]:
        v = v - (alpha * state.get("grad_avg", torch.zeros_like(p)) + (1 - alpha) * g).square()
    return 2.0 * (1 + group["momentum"]), 1 / (v.clamp(min=0).sqrt() + group["eps"])


def _gradient(optimizer: torch.optim.Optimizer, group: dict[str, Any], p: Tensor) -> Tensor:
    """What the step squares: unscaled, where a fused optimiser does that itself, with weight decay that is coupled."""
    scale = getattr(optimizer, "grad_scale", None)
    g = p.grad.detach() if scale is None else p.grad.detach() / scale
    return g if _decoupled(type(optimizer), group) else g + group["weight_decay"] * p.detach()


def _decoupled(kind: type, group: dict[str, Any]) -> bool:
    return group.get("decoupled_weight_decay", kind is torch.optim.AdamW)


_KINDS: dict[type, Callable[..., tuple[float, Tensor | None]]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.RMSprop: _rmsprop,
}
