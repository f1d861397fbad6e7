"""Parameters of any sample-wise layer, by their Jacobian."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.modules import module as torch_module

from .. import devices
from ..precision import full_precision
from .blocks import add_gram, slices
from .parts import added
from .trial import Layers
from .undisturbed import uncompiled, undisturbed, with_autograd

_JACOBIANS_AT_A_TIME = 32  # samples in torch.func's Jacobian: 8 take half as long again, 128 are no faster
_SMALL = 2**28  # bytes of Jacobians that are kept without a look at how much memory is free
_SHARE = 0.25  # of the free memory, which Jacobians may take; the kernel needs some, too


@dataclass(frozen=True)
class GeneralPart:
    """The Jacobians of all samples."""

    name: str
    jacobians: dict[str, Tensor]  # name -> (n, c, *parameter)

    def kernel_and_vjp(
        self, kernel: Tensor, cotangent: Tensor | None, add_to: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        for J in self.jacobians.values():
            add_gram(kernel, J.flatten(0, 1).flatten(1))
        return {} if cotangent is None else self.vjp(cotangent, add_to)

    def jvp(self, direction: dict[str, Tensor]) -> Tensor:
        return sum(torch.einsum("nc...,...->nc", J, direction[name].to(J)) for name, J in self.jacobians.items())

    def vjp(self, cotangent: Tensor, add_to: dict[str, Tensor] | None) -> dict[str, Tensor]:
        return added(add_to, {name: torch.einsum("nc,nc...->...", cotangent, J) for name, J in self.jacobians.items()})


@dataclass(frozen=True)
class GeneralPartInBlocks:
    """The same where the Jacobians of all samples do not fit in memory: two blocks of samples at a time.

    They are formed when they are needed, from the model as it is then: its weights must still be those of the
    linearization, or ``ValueError`` is raised.
    """

    name: str
    model: nn.Module
    inputs: Tensor
    plan: Layers
    dtype: torch.dtype
    samples: int  # of a block
    versions: tuple[int, ...]  # of the model's parameters

    def kernel_and_vjp(
        self, kernel: Tensor, cotangent: Tensor | None, add_to: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        c, gradient = len(kernel) // len(self.inputs), {}
        for samples, part in self._blocks(len(self.inputs)):
            rows = slice(c * samples.start, c * samples.stop)
            part.kernel_and_vjp(kernel[rows, rows], None, None)
            if cotangent is not None:
                gradient = _sum(gradient, part.vjp(cotangent[samples], None))
            for others, other in self._blocks(samples.start):
                block = kernel[rows, c * others.start : c * others.stop]
                for name, J in part.jacobians.items():
                    block += J.flatten(0, 1).flatten(1) @ other.jacobians[name].flatten(0, 1).flatten(1).T
        return added(add_to, gradient)

    def jvp(self, direction: dict[str, Tensor]) -> Tensor:
        return torch.cat([part.jvp(direction) for _, part in self._blocks(len(self.inputs))])

    def vjp(self, cotangent: Tensor, add_to: dict[str, Tensor] | None) -> dict[str, Tensor]:
        gradient = {}
        for samples, part in self._blocks(len(self.inputs)):
            gradient = _sum(gradient, part.vjp(cotangent[samples], None))
        return added(add_to, gradient)

    def _blocks(self, stop: int) -> Iterator[tuple[slice, GeneralPart]]:
        """The first ``stop`` samples, a block at a time, with their Jacobians."""
        for samples in slices(stop, self.samples):
            if _versions(self.model) != self.versions:
                raise ValueError("model: its weights have changed since it was linearized; allowed are the same ones")
            with with_autograd(), full_precision(), torch.enable_grad():
                jacobians = _jacobians(self.model, self.inputs[samples], self.plan, self.dtype)
            yield samples, GeneralPart(self.name, jacobians)


def general_part(
    model: nn.Module, inputs: Tensor, plan: Layers, outputs: int, dtype: torch.dtype
) -> GeneralPart | GeneralPartInBlocks:
    """The part of the ``plan``'s general parameters, for a model with so many ``outputs`` for each sample."""
    name = "+".join(plan.general)
    of_a_sample = (
        outputs * dtype.itemsize * sum(p.numel() for key, p in model.named_parameters() if key in plan.general)
    )
    if of_a_sample * len(inputs) > _SMALL:
        allowed = _SHARE * devices.free_memory(inputs.device)
        if of_a_sample * len(inputs) > allowed:
            samples = max(1, min(len(inputs) - 1, int(allowed / 2 / of_a_sample)))
            return GeneralPartInBlocks(name, model, inputs, plan, dtype, samples, _versions(model))
    return GeneralPart(name, _jacobians(model, inputs, plan, dtype))


def _jacobians(model: nn.Module, inputs: Tensor, plan: Layers, dtype: torch.dtype) -> dict[str, Tensor]:
    """Through ``torch.func``, or one by one: where it has no rule for a layer (LSTM, GRU, PReLU), and where hooks
    would see, and might keep, the stand-ins that it passes for tensors."""
    names = plan.general
    with undisturbed(model) if plan.changes_state else uncompiled(plan.compiled):
        if _has_hooks(model):
            jacobians = _one_by_one(model, inputs, names)
        else:
            try:
                jacobians = _by_torch_func(model, inputs, names)
            except RuntimeError:
                jacobians = _one_by_one(model, inputs, names)
    return {name: J.to(dtype) for name, J in jacobians.items()}


def _by_torch_func(model: nn.Module, inputs: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    canonical = {tensor: name for name, tensor in model.named_parameters()}
    slots = {
        f"{prefix}.{key}" if prefix else key: tensor
        for prefix, module in model.named_modules()  # each once: functional_call harms a model with a tied module
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    }
    chosen = {name: tensor.detach() for tensor, name in canonical.items() if name in names}

    def outputs_of(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        state = {slot: parameters.get(canonical.get(t, slot), t.detach()) for slot, t in slots.items()}
        return functional_call(model, state, (sample[None],), tie_weights=False).reshape(-1)

    jacobian = vmap(jacrev(outputs_of), in_dims=(None, 0))
    if len(inputs) <= _JACOBIANS_AT_A_TIME:
        return jacobian(chosen, inputs)
    result: dict[str, Tensor] = {}
    for samples in slices(len(inputs), _JACOBIANS_AT_A_TIME):
        for name, J in jacobian(chosen, inputs[samples]).items():
            if name not in result:
                result[name] = J.new_empty(len(inputs), *J.shape[1:])
            result[name][samples] = J
    return result


def _one_by_one(model: nn.Module, inputs: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """One backward pass for every sample and output."""
    named = dict(model.named_parameters())
    parameters = [named[name] for name in names]
    rows = [
        [g.to_dense() if g.is_sparse else g for g in gradient]
        for sample in inputs
        for output in model(sample[None]).reshape(-1)
        for gradient in [torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)]
    ]
    columns = zip(*rows, strict=True)
    return {
        name: torch.stack(column).unflatten(0, (len(inputs), -1)) for name, column in zip(names, columns, strict=True)
    }


def _has_hooks(model: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(torch_module, f"_global{kind}") for kind in kinds) or any(
        getattr(module, kind) for module in model.modules() for kind in kinds
    )


def _sum(total: dict[str, Tensor], more: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: total[name].add_(g) for name, g in more.items()} if total else more


def _versions(model: nn.Module) -> tuple[int, ...]:
    return tuple(p._version for p in model.parameters())
