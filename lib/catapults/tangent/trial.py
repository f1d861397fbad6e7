"""The trial run: whether a model has a tangent kernel between samples, and which of its parameters take which route."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..precision import full_precision
from .calls import CONVOLUTION, EMBEDDING, LINEAR, Call, captured, flat_outputs, nodes_behind
from .chain import chain_of
from .parts import own_trainable
from .undisturbed import RandomState, Snapshot, is_compiled, undisturbed

_ROUNDING = 1e-3  # relative to the largest output; in single precision batches of other sizes differ by below 1e-5
_CROWD = 8  # samples among which two are looked at once more


@dataclass(frozen=True)
class Layers:
    """Which parameters of a model take which route; :func:`layers` finds out."""

    structured: tuple[str, ...]  # modules
    general: tuple[str, ...]  # parameters
    chain: tuple[str, ...] = ()  # all modules in their order, where these are linear layers and ReLUs and nothing else
    changes_state: bool = False  # whether a forward pass changes buffers or other things that modules hold
    compiled: bool = False  # whether torch.compile made some of the model


@dataclass(frozen=True)
class _Trial:
    outputs: Float[Tensor, "2 c"]
    calls: list[Call]
    mixes: list[bool]  # of each call: whether an output depends on the other sample's part of what the layer gave
    changes_state: bool
    compiled: bool


def layers(model: nn.Module, inputs: Shaped[Tensor, "n ..."]) -> Layers:
    """Sort the model's trainable parameters by a trial run with two samples.

    Structured are the linear, convolution and embedding layers that are called once, with the samples along the first
    axis, and whose parameters nothing else uses. A training loop finds this out once and hands it to :func:`linearize`.

    Raises ``ValueError`` as :func:`tangent_kernel` does, and ``TypeError`` for inputs that are no tensor.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("model: none of its parameters requires a gradient; allowed is at least one")
    candidates = {name: module for name, module in model.named_modules() if _is_candidate(module)}
    trial = _trial_run(model, inputs, candidates)
    uses = _uses(trial.outputs)
    times_called = [call.name for call in trial.calls].count
    structured = tuple(
        call.name
        for call, mixed in zip(trial.calls, trial.mixes, strict=True)
        if times_called(call.name) == 1
        and call.sample_first
        and not mixed
        and all(uses.get(p, 0) <= 1 for p in own_trainable(candidates[call.name]).values())
    )
    covered = {p for name in structured for p in own_trainable(candidates[name]).values()}
    general = tuple(name for name, p in trainable.items() if p not in covered)
    chain = () if general or trial.changes_state else chain_of(model, inputs)
    return Layers(structured, general, chain, trial.changes_state, trial.compiled)


def refuse_unsuitable(model: nn.Module, inputs: Shaped[Tensor, "n ..."]) -> None:
    """Raise ``ValueError`` for a model whose output for a sample is no function of this sample alone.

    That is what kernel, AGOP and Hessian have in common: a mean over samples of what belongs to one. Refused are
    models that mix samples, are random, overwrite their inputs or parameters, or give no finite real outputs.
    """
    _trial_run(model, inputs, {})


def _trial_run(model: nn.Module, inputs: Tensor, candidates: dict[str, nn.Module]) -> _Trial:
    """Two samples together, forward and backward; each alone; and both among others."""
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs: a {type(inputs).__name__}; allowed is a tensor of shape (n, ...), one entry a sample")
    if len(inputs) == 0:
        raise ValueError(f"inputs: shape {tuple(inputs.shape)}; allowed is at least one sample")
    for name, p in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(p):
            raise ValueError(f"model: {name!r} has no shape yet; allowed is a lazy model after its first forward pass")
    for name, p in model.named_parameters():
        if p.is_inference():
            raise ValueError(
                f"model: parameter {name!r} was made under torch.inference_mode; allowed are ones that autograd can use"
            )
    _refuse_unsuitable_layers(model)
    random = RandomState(inputs.device)
    try:
        with undisturbed(model, parameters=True) as before, full_precision():
            return _tried(model, inputs.detach(), candidates, before, random)
    finally:
        random.restore()


def _tried(
    model: nn.Module, inputs: Tensor, candidates: dict[str, nn.Module], before: Snapshot, random: RandomState
) -> _Trial:
    n = len(inputs)
    pair = torch.stack([inputs[0], inputs[-1]])
    if pair.is_floating_point():
        pair.requires_grad_()
    with torch.enable_grad(), captured(candidates) as calls:
        given = pair.clone()
        outputs = flat_outputs(_called(model, given), 2)
    if random.moved():
        after = RandomState(inputs.device)
        _called(model, pair.detach().clone())
        if after.moved():  # else the model seeds its generator itself, and draws the same each time
            raise ValueError(
                "model: is random: its forward pass draws random numbers, so that it has no tangent kernel, AGOP or "
                "Hessian; allowed is a model that draws none, such as model.eval()"
            )
    if given._version:
        raise ValueError("model: changes its inputs in place; allowed is a forward pass that leaves them as they are")
    changes_state = before.changed()
    if changed := before.changed_parameters(model):
        raise ValueError(f"model: its forward pass changes parameter {changed[0]!r}; allowed is one that changes none")
    if not torch.isfinite(outputs).all():
        raise ValueError("model: its outputs are not finite; allowed are weights and inputs that give finite ones")

    wrt = [*(call.edge for call in calls), *([pair] if pair.requires_grad else [])]
    with torch.enable_grad():
        by_sample = [
            torch.autograd.grad(output.sum(), wrt, allow_unused=True, retain_graph=True)
            if wrt and output.requires_grad
            else [None] * len(wrt)
            for output in outputs
        ]
    mixes = [_mixes(*derivatives) for derivatives in zip(*by_sample, strict=True)]

    def run(samples: Tensor) -> Tensor:
        before.restore()
        with torch.no_grad():
            return flat_outputs(model(samples.detach().clone()), len(samples))

    spread = torch.linspace(0, n - 1, min(n, _CROWD), dtype=torch.float64).long()
    crowd = run(inputs[spread.to(inputs.device)])
    alone = torch.cat([run(sample[None]) for sample in pair])
    bound = max(_ROUNDING, 4 * torch.finfo(outputs.dtype).eps) * alone.abs().max()
    same = all((alone - others).abs().max() <= bound for others in (outputs, crowd[[0, -1]]))
    if not same or (pair.requires_grad and mixes[-1]):
        raise ValueError(
            "model: the output for one sample depends on the other samples of the batch, or is random, so that no "
            "tangent kernel between samples exists; allowed are sample-wise layers"
        )
    return _Trial(outputs, calls, mixes[: len(calls)], changes_state, is_compiled(model))


def _called(model: nn.Module, inputs: Tensor) -> Any:
    """The model's outputs. Raises ``ValueError`` where the inputs' type or device may be why there are none."""
    try:
        return model(inputs)
    except (RuntimeError, TypeError, IndexError) as error:
        own = {(p.dtype, p.device) for p in model.parameters()}
        if own and (inputs.dtype, inputs.device) not in own:
            given = f"{inputs.dtype} on {inputs.device}"
            allowed = " or ".join(sorted(f"{dtype} on {device}" for dtype, device in own))
            raise ValueError(
                f"inputs: {given}, with which the model fails ({error}); allowed is what it takes, such as {allowed}"
            ) from error
        raise


def _is_candidate(module: nn.Module) -> bool:
    """Whether a module is of a kind that can be structured, with parameters to train and none that somebody added."""
    if type(module) in EMBEDDING and module.max_norm is not None:
        return False
    own = own_trainable(module)
    return type(module) in LINEAR + CONVOLUTION + EMBEDDING and own != {} and own.keys() <= {"weight", "bias"}


def _mixes(of_first: Tensor | None, of_second: Tensor | None) -> bool:
    """Whether one of two samples' outputs depends on the other sample's part of a tensor, by their derivatives."""
    return any(
        derivative is not None and (len(derivative) != 2 or bool((derivative[other] != 0).any()))
        for derivative, other in ((of_first, 1), (of_second, 0))
    )


def _uses(outputs: Tensor) -> dict[Tensor, int]:
    """How many operations of the graph behind ``outputs`` read each parameter."""
    uses: dict[Tensor, int] = {}
    for node in nodes_behind(outputs):
        for following, _ in node.next_functions:
            parameter = getattr(following, "variable", None)
            if parameter is not None:
                uses[parameter] = uses.get(parameter, 0) + 1
    return uses


def _refuse_unsuitable_layers(model: nn.Module) -> None:
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
