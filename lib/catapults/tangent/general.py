"""Parameters of any sample-wise layer, by their Jacobian."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from .blocks import add_gram
from .parts import added

_JACOBIANS_AT_A_TIME = 32  # samples in torch.func's Jacobian: 8 take half as long again, 128 are no faster


@dataclass(frozen=True)
class GeneralPart:
    """Parameters of any sample-wise layer, by their Jacobian: through ``torch.func``, or where that has no rule for a
    layer (LSTM, GRU, PReLU), by one backward pass for every sample and output."""

    name: str
    jacobians: dict[str, Tensor]  # name -> (n, c, *parameter)

    @classmethod
    def of(cls, model: nn.Module, inputs: Tensor, names: tuple[str, ...]) -> "GeneralPart":
        try:
            jacobians = cls._by_torch_func(model, inputs, names)
        except RuntimeError:
            jacobians = cls._one_by_one(model, inputs, names)
        return cls("+".join(names), jacobians)

    @staticmethod
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

        return vmap(jacrev(outputs_of), in_dims=(None, 0), chunk_size=_JACOBIANS_AT_A_TIME)(chosen, inputs)

    @staticmethod
    def _one_by_one(model: nn.Module, inputs: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        named = dict(model.named_parameters())
        parameters = [named[name] for name in names]
        rows = [
            torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
            for sample in inputs
            for output in model(sample[None]).reshape(-1)
        ]
        columns = zip(*rows, strict=True)
        return {
            name: torch.stack(column).unflatten(0, (len(inputs), -1))
            for name, column in zip(names, columns, strict=True)
        }

    def kernel_and_vjp(
        self, kernel: Tensor, cotangent: Tensor | None, add_to: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        for J in self.jacobians.values():
            add_gram(kernel, J.flatten(0, 1).flatten(1))
        return {} if cotangent is None else self.vjp(cotangent, add_to)

    def jvp(self, direction: dict[str, Tensor]) -> Tensor:
        return sum(torch.einsum("nc...,...->nc", J, direction[name]) for name, J in self.jacobians.items())

    def vjp(self, cotangent: Tensor, add_to: dict[str, Tensor] | None) -> dict[str, Tensor]:
        return added(add_to, {name: torch.einsum("nc,nc...->...", cotangent, J) for name, J in self.jacobians.items()})
