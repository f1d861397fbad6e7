"""The trial run: whether a model has a tangent kernel between samples, and which of its parameters take which route."""

from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from ..precision import full_precision
from .calls import CONVOLUTION, LINEAR, captured, flat_outputs
from .chain import chain_of
from .parts import own_trainable

_ROUNDING = 1e-3  # relative to the largest output; what batches of one and two samples differ by is below 1e-5


@dataclass(frozen=True)
class Layers:
    """Which parameters of a model take which route; :func:`layers` finds out."""

    structured: tuple[str, ...]  # modules
    general: tuple[str, ...]  # parameters
    chain: tuple[str, ...] = ()  # all modules in their order, where these are linear layers and ReLUs and nothing else


def layers(model: nn.Module, inputs: Shaped[Tensor, "n ..."]) -> Layers:
    """Sort the model's trainable parameters by a trial run with two samples.

    Structured are the linear and convolution layers that are called once, with the samples along the first axis, and
    whose parameters nothing else uses. A training loop finds this out once and hands it to :func:`linearize`.

    Raises ``ValueError`` as :func:`tangent_kernel` does.
    """
    if len(inputs) == 0:
        raise ValueError(f"inputs: shape {tuple(inputs.shape)}; allowed is at least one sample")
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("model: none of its parameters requires a gradient; allowed is at least one")
    refuse_unsuitable_layers(model)

    probe = torch.stack([inputs[0], inputs[-1]]).detach()
    if probe.is_floating_point():
        probe.requires_grad_()
    candidates = {
        name: module
        for name, module in model.named_modules()
        if type(module) in LINEAR + CONVOLUTION and (own := own_trainable(module)) and own.keys() <= {"weight", "bias"}
    }
    with full_precision(), torch.enable_grad():
        with captured(candidates) as calls:
            outputs = flat_outputs(model(probe), 2)
        wrt = [*(call.edge for call in calls), *([probe] if probe.requires_grad else [])]
        by_sample = [
            torch.autograd.grad(output.sum(), wrt, allow_unused=True, retain_graph=True) if wrt else ()
            for output in outputs
        ]
    mixes = [_mixes(*pair) for pair in zip(*by_sample, strict=True)]
    with full_precision(), torch.no_grad():
        alone = torch.cat([flat_outputs(model(sample[None]), 1) for sample in probe])
    if not torch.isfinite(outputs).all():
        raise ValueError("model: its outputs are not finite; allowed are weights and inputs that give finite ones")
    same = (alone - outputs).abs().max() <= _ROUNDING * alone.abs().max()
    if not same or (probe.requires_grad and mixes[-1]):
        raise ValueError(
            "model: the output for one sample depends on the other samples of the batch, or is random, so that no "
            "tangent kernel between samples exists; allowed are sample-wise layers"
        )

    uses = _uses(outputs)
    times_called = [call.name for call in calls].count
    structured = tuple(
        call.name
        for call, mixed in zip(calls, mixes, strict=False)
        if times_called(call.name) == 1
        and call.sample_first
        and not mixed
        and all(uses.get(p, 0) <= 1 for p in own_trainable(candidates[call.name]).values())
    )
    covered = {p for name in structured for p in own_trainable(candidates[name]).values()}
    general = tuple(name for name, p in trainable.items() if p not in covered)
    return Layers(structured, general, () if general else chain_of(model, inputs))


def _mixes(of_first: Tensor | None, of_second: Tensor | None) -> bool:
    """Whether one of two samples' outputs depends on the other sample's part of a tensor, by their derivatives."""
    return any(
        derivative is not None and (len(derivative) != 2 or bool((derivative[other] != 0).any()))
        for derivative, other in ((of_first, 1), (of_second, 0))
    )


def _uses(outputs: Tensor) -> dict[Tensor, int]:
    """How many operations of the graph behind ``outputs`` read each parameter."""
    uses: dict[Tensor, int] = {}
    seen, stack = set(), [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            parameter = getattr(following, "variable", None)
            if parameter is not None:
                uses[parameter] = uses.get(parameter, 0) + 1
            stack.append(following)
    return uses


def refuse_unsuitable_layers(model: nn.Module) -> None:
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            raise ValueError(
                f"model: layer {name!r} ({kind}) normalises over the batch, so that a sample's output depends on the "
                "other samples and no tangent kernel between samples exists; allowed are model.eval() with running "
                "statistics, a norm over one sample (LayerNorm, GroupNorm), or none"
            )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            raise ValueError(f"model: layer {name!r} ({kind}) is random in training mode; allowed is model.eval()")
