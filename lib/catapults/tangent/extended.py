"""The linearization of networks with norms, positions and class tokens, in one forward and backward pass.

:func:`catapults.tangent.linearize`, by which all recorded results were computed, takes the general route for these: a
Jacobian of each sample by ``torch.func``, at the price of several passes. Here the Jacobians of

- a norm over single samples come from its normalised input and df/dz (:mod:`.norms`);
- a parameter that a model's own module adds to its samples, such as positions, from a copy for each sample
  (:mod:`.copies`).

Everything else is as there, and so is what comes out.
"""

from dataclasses import dataclass, replace
from functools import reduce

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from .. import devices
from ..precision import full_precision
from . import general, linearization, trial
from .calls import Call, captured, flat_outputs
from .copies import candidates, copied
from .general import GeneralPart, GeneralPartInBlocks, general_part
from .linearization import Linearization
from .norms import NORM, can_be_structured, jacobians, sample_first
from .parts import LayerPart, own_trainable
from .trial import Layers
from .undisturbed import RandomState, uncompiled, undisturbed, with_autograd

_ROUNDING = 1e-3  # relative: what may differ between a gradient by a copy and one by the parameter


@dataclass(frozen=True)
class Plan:
    """``layers``: as of :func:`catapults.tangent.layers`, without what the others name."""

    layers: Layers
    norms: tuple[str, ...] = ()  # modules
    copied: tuple[str, ...] = ()  # parameters


def layers(model: nn.Module, inputs: Shaped[Tensor, "n ..."]) -> Plan:
    """:func:`catapults.tangent.layers`; of what it calls general, which norms and parameters need not be.

    Raises as there.
    """
    plan = trial.layers(model, inputs)
    if not plan.general:
        return Plan(plan)
    norms = _norms(model, inputs, plan)
    left = tuple(name for name in plan.general if name.rpartition(".")[0] not in norms)
    copies = _that_can_be_copied(model, inputs, [name for name in candidates(model) if name in left])
    left = tuple(name for name in left if name not in copies)
    return Plan(replace(plan, general=left), norms, copies)


def linearize(model: nn.Module, inputs: Shaped[Tensor, "n ..."], plan: Plan | None = None) -> Linearization:
    """:func:`catapults.tangent.linearize`; ``plan``: what :func:`layers` returned for this model. Raises as there."""
    plan = plan or layers(model, inputs)
    if not plan.norms and not plan.copied:
        return linearization.linearize(model, inputs, plan.layers)
    undisturbing = undisturbed(model) if plan.layers.changes_state else uncompiled(plan.layers.compiled)
    with with_autograd(), full_precision(), torch.enable_grad(), undisturbing:
        return _linearized(model, inputs.clone() if inputs.is_inference() else inputs, plan)


def _linearized(model: nn.Module, inputs: Tensor, plan: Plan) -> Linearization:
    names, n = (*plan.layers.structured, *plan.norms), len(inputs)
    modules = {name: model.get_submodule(name) for name in names}
    with captured(modules) as calls, copied(model, plan.copied, n) as leaves:
        outputs = model(inputs)
        copies = [
            Call(name, leaf, 0, get_gradient_edge(leaf), leaf.shape, True)
            for name, leaf in zip(plan.copied, leaves, strict=True)
        ]
    flat = flat_outputs(outputs, n)
    if sorted(call.name for call in calls) != sorted(names):
        raise ValueError("known_layers: the model called other layers than in the trial run of `layers`")
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    dtype = reduce(torch.promote_types, {outputs.dtype, *(p.dtype for p in own.values())})
    derivatives = linearization._derivatives(flat, [*calls, *copies])
    parts: list[LayerPart | GeneralPart | GeneralPartInBlocks] = []
    for call, D in zip(calls, derivatives, strict=False):
        if call.name in plan.norms:
            D, A = D.to(dtype), call.inputs.to(dtype)
            with torch.no_grad():
                parts.append(GeneralPart(call.name, jacobians(call.name, modules[call.name], A, D)))
        else:
            parts.append(linearization._structured_part(call, modules[call.name], D, n, dtype))
    for name, D in zip(plan.copied, derivatives[len(calls) :], strict=True):
        parts.append(GeneralPart(name, {name: D.reshape(*D.shape[:2], *own[name].shape).to(dtype)}))
    if plan.layers.general:
        part = general_part(model, inputs.detach(), plan.layers, flat.shape[1], dtype)
        parts = [part, *parts] if isinstance(part, GeneralPartInBlocks) else [*parts, part]
    return Linearization(outputs.detach().to(dtype), parts, plan.layers)


def _norms(model: nn.Module, inputs: Tensor, plan: Layers) -> tuple[str, ...]:
    """Norms that are called once, with the samples along the first axis, and whose parameters nothing else uses."""
    found = {
        name: module
        for name, module in model.named_modules()
        if type(module) in NORM and can_be_structured(module) and own_trainable(module)
    }
    if not found:
        return ()
    tried = trial._trial_run(model, inputs, found)
    uses, times_called = trial._uses(tried.outputs), [call.name for call in tried.calls].count
    return tuple(
        call.name
        for call, mixed in zip(tried.calls, tried.mixes, strict=True)
        if times_called(call.name) == 1
        and sample_first(found[call.name], call.inputs)
        and not mixed
        and all(uses.get(p, 0) <= 1 for p in own_trainable(found[call.name]).values())
    )


def _that_can_be_copied(model: nn.Module, inputs: Tensor, names: list[str]) -> tuple[str, ...]:
    """All of the parameters, or those for which that is so one by one: with a copy for each of two samples the outputs
    are the same, and depend on the own copy alone, as much as on the parameter."""
    named, n = dict(model.named_parameters()), len(inputs)
    names = [
        name for name in names if 8 * named[name].numel() * n <= general._SHARE * devices.free_memory(inputs.device)
    ]
    if not names:
        return ()
    pair = torch.stack([inputs[0], inputs[-1]]).detach()
    random = RandomState(inputs.device)
    try:
        with undisturbed(model), full_precision(), torch.enable_grad():
            expected = flat_outputs(model(pair.clone()), 2)
            if not expected.requires_grad:
                return ()
            whole = dict(zip(names, _by_row(expected, [named[name] for name in names]), strict=True))
            if _copies_agree(model, pair, expected, whole):
                return tuple(names)
            return tuple(name for name in names if _copies_agree(model, pair, expected, {name: whole[name]}))
    finally:
        random.restore()


def _copies_agree(model: nn.Module, pair: Tensor, expected: Tensor, whole: dict[str, list[Tensor]]) -> bool:
    with copied(model, list(whole), 2) as leaves:
        try:
            outputs = flat_outputs(model(pair.clone()), 2)
        except (RuntimeError, TypeError, ValueError, IndexError):  # it meets the samples in another way
            return False
        if outputs.shape != expected.shape or not torch.equal(outputs, expected) or not outputs.requires_grad:
            return False
        by_copy = _by_row(outputs, leaves)
    for of_rows, by_parameter in zip(by_copy, whole.values(), strict=True):
        for row, (of_copies, gradient) in enumerate(zip(of_rows, by_parameter, strict=True)):
            own = of_copies[row].reshape(gradient.shape)
            if (of_copies[1 - row] != 0).any() or (own - gradient).abs().max() > _ROUNDING * gradient.abs().max():
                return False
    return True


def _by_row(outputs: Tensor, leaves: list[Tensor]) -> list[list[Tensor]]:
    """The gradients of each row, weighted so that no two outputs cancel, by each tensor: for it a list of rows."""
    weights = torch.linspace(1, 2, outputs.shape[1]).to(outputs)
    rows = [
        torch.autograd.grad((row * weights).sum(), leaves, retain_graph=True, materialize_grads=True) for row in outputs
    ]
    return [list(of_rows) for of_rows in zip(*rows, strict=True)]
