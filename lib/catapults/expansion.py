"""Models beside a network, to be trained like it: its Taylor expansion in the weights, and the one with fixed gates.

With the weights w0 that a network f has now and a change delta of them, the *linear* model is ``f + J delta`` (Lee et
al., 2019), whose tangent kernel is constant; the *quadratic* one, ``f + J delta + 1/2 delta^T (d^2 f) delta``, is the
simplest model that has catapults (Zhu et al., 2024). A ReLU network whose gates are held as they are at w0 is a
polynomial in the weights with the same expansion; with two layers it is the quadratic model itself. At ``delta = 0``
all of them have the network's outputs and kernel.
"""

from copy import deepcopy
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional as F

from .checks import whole_number
from .tangent.chain import chain_of
from .tangent.parts import scale_of

Order = Literal[1, 2]


def expansion(model: nn.Module, order: Order) -> nn.Module:
    """The expansion of ``model`` at its present weights, 1: linear, 2: quadratic in their change.

    The change is its trainable parameters, zero at first; parameters that the model does not train stay as they are.
    It takes the same inputs (n, ...), gives outputs of the same shape and shares nothing with the model. It can be
    trained, and its kernel measured, like any other: ``training.gradient_descent(expansion(model, 2), ...)``.

    Of a fully connected ReLU network the terms of each order pass through the layers together, which costs about five
    passes through the network; of any other model they come from forward-mode derivatives, and its kernel from the
    gradients of single samples.

    Raises ``ValueError`` for another order and for a model without parameters to train.
    """
    whole_number(1, 2, order=order)
    trained = [p.requires_grad for p in model.parameters()]
    if not any(trained):
        raise ValueError("model: none of its parameters requires a gradient; allowed is at least one")
    if all(trained) and chain_of(model, torch.empty(1, 1)):
        return ChainExpansion(model, order)
    return Expansion(model, order)


def frozen_gates(model: nn.Module) -> nn.Module:
    """A fully connected ReLU network of which each ReLU passes, for each sample, what it passes at the present weights.

    Its trainable parameters are those of the network, which it shares nothing with. Raises ``ValueError`` for a model
    that is no chain of linear layers and ReLUs.
    """
    if not chain_of(model, torch.empty(1, 1)):
        raise ValueError("model: is no chain of linear layers and ReLUs; allowed is one, such as models.fcn(...)")
    return FrozenGates(model)


class Expansion(nn.Module):
    """Of any model that ``torch.func.jvp`` differentiates ``order`` times. ``changes``: delta, a tensor for each of the
    model's parameters that are trained, in their order. See :func:`expansion`."""

    def __init__(self, model: nn.Module, order: Order):
        super().__init__()
        trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        self.order, self._names = order, tuple(trained)
        self.changes = nn.ParameterList(torch.zeros_like(p) for p in trained.values())
        self.model = deepcopy(model).requires_grad_(False)

    def forward(self, inputs: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The sum of the terms. Raises ``ValueError`` for a model without forward-mode derivatives."""
        parameters = dict(self.model.named_parameters())
        start = {name: parameters[name] for name in self._names}
        change = dict(zip(self._names, self.changes, strict=True))

        def outputs(weights: dict[str, Tensor]) -> Tensor:
            return functional_call(self.model, weights, (inputs,))

        def along(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            return jvp(outputs, (weights,), (change,))

        try:
            if self.order == 1:
                return sum(along(start))
            (zeroth, first), (_, second) = jvp(along, (start,), (change,))
        except NotImplementedError as error:
            problem = f"has no forward-mode derivative of order {self.order} ({error})"
            raise ValueError(f"model: {problem}; allowed is one that torch.func.jvp can differentiate") from error
        return zeroth + first + second / 2


class ChainExpansion(nn.Module):
    """Of a fully connected ReLU network. See :func:`expansion`.

    A linear layer multiplies the terms of order 0, 1, ... by W, and its change those of one order less; a ReLU lets all
    of them pass where its input at the start is positive. What is of higher order is left out.
    """

    def __init__(self, model: nn.Module, order: Order):
        super().__init__()
        names = chain_of(model, torch.empty(1, 1))
        modules = [model.get_submodule(name) for name in names]
        self.layers = nn.ModuleList(_expanded(module, order) for module in modules)

    def forward(self, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n c"]:
        terms = [inputs]
        for layer in self.layers:
            terms = [layer(inputs)] if isinstance(layer, nn.Flatten) else layer(terms)
        return sum(terms)


class FrozenGates(nn.Module):
    """See :func:`frozen_gates`. ``start``: the network as it was."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self._names = chain_of(model, torch.empty(1, 1))
        self.model, self.start = deepcopy(model), deepcopy(model).requires_grad_(False)

    def forward(self, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n c"]:
        then = now = inputs
        for name in self._names:
            module = self.start.get_submodule(name)
            if isinstance(module, nn.ReLU):
                open_ = then > 0
                then, now = then * open_, now * open_
            else:
                then, now = module(then), self.model.get_submodule(name)(now)
        return now


def _expanded(module: nn.Module, order: int) -> nn.Module:
    if isinstance(module, nn.Flatten):
        return deepcopy(module)
    return _Gate() if isinstance(module, nn.ReLU) else _ExpandedLayer(module, order)


class _Gate(nn.Module):
    """A ReLU; its second derivative is zero."""

    def forward(self, terms: list[Tensor]) -> list[Tensor]:
        open_ = terms[0] > 0
        return [term * open_ for term in terms]


class _ExpandedLayer(nn.Module):
    """A linear layer: ``fixed`` at the start, with ``change`` and ``bias_change`` to train.

    Where a layer changes terms of two orders, these are two tokens of a sample, so that the layer is called once.
    """

    def __init__(self, layer: nn.Linear, order: int):
        super().__init__()
        self.order = order
        self.fixed = deepcopy(layer).requires_grad_(False)
        self.change = deepcopy(layer)
        self.change.bias = None
        self.bias_change = None
        if layer.bias is not None:
            options = {"dtype": layer.weight.dtype, "device": layer.weight.device}
            self.bias_change = nn.Linear(1, layer.out_features, bias=False, **options)  # a layer's scale has no part
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.requires_grad:
                    parameter.zero_()

    def forward(self, terms: list[Tensor]) -> list[Tensor]:
        """Terms of order 0, 1, ..., of which the last ones are missing where they are zero."""
        zeroth, *higher = terms
        lower = terms[: self.order]
        first, *second = [self.change(zeroth)] if len(lower) == 1 else self.change(torch.stack(lower, 1)).unbind(1)
        if self.bias_change is not None:
            first = first + self.bias_change(zeroth.new_ones(*zeroth.shape[:-1], 1))
        changed = [first, *second]
        if higher:
            carried = (F.linear(torch.stack(higher, 1), self.fixed.weight) * scale_of(self.fixed)).unbind(1)
            changed = [a + b for a, b in zip(changed, carried, strict=False)] + changed[len(carried) :]
        return [self.fixed(zeroth), *changed]
