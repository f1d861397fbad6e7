"""Forward passes that leave a model, and the random numbers to come, as they were."""

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_CONTAINERS = (dict, list, set)  # that a forward pass may fill, such as with activations
_HOOKS = "_hooks"  # in the names of what torch keeps hooks in


class Snapshot:
    """What a forward pass may change in a model: buffers, ``parameters`` if asked, and what else its modules hold."""

    def __init__(self, model: nn.Module, parameters: bool = False):
        self._attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._containers: list[tuple[Any, Any]] = []
        self._tensors: dict[Tensor, tuple[int, Tensor]] = {}  # -> version, copy
        for module in model.modules():
            held = vars(module)
            self._attributes.append((held, dict(held)))
            for key, value in held.items():
                if type(value) in _CONTAINERS and _HOOKS not in key:
                    self._containers.append((value, value.copy()))
                for tensor in value.values() if type(value) is dict else [value]:
                    if isinstance(tensor, Tensor) and tensor.is_leaf and (parameters or not tensor.requires_grad):
                        self._tensors[tensor] = _version(tensor), tensor.detach().clone()

    def changed(self) -> bool:
        return (
            any(
                held.keys() != before.keys() or any(held[key] is not value for key, value in before.items())
                for held, before in self._attributes
            )
            or not all(_same(now, before) for now, before in self._containers)
            or bool(self._changed_tensors())
        )

    def changed_parameters(self, model: nn.Module) -> list[str]:
        """Names of those with other values, in place."""
        changed = {id(tensor) for tensor in self._changed_tensors()}
        return [name for name, p in model.named_parameters() if id(p) in changed]

    def restore(self) -> None:
        """Undo all changes; in place, so that whoever holds a buffer or a list finds it as it was."""
        for held, before in self._attributes:
            for key in [key for key in held if key not in before]:
                del held[key]
            held.update(before)
        for now, before in self._containers:
            if not _same(now, before):
                now.clear()
                now.extend(before) if isinstance(now, list) else now.update(before)
        with torch.no_grad():
            for tensor in self._changed_tensors():
                tensor.copy_(self._tensors[tensor][1])
                self._tensors[tensor] = _version(tensor), self._tensors[tensor][1]

    def _changed_tensors(self) -> list[Tensor]:
        return [
            tensor
            for tensor, (version, before) in self._tensors.items()
            if (version < 0 or _version(tensor) != version) and not torch.equal(tensor, before)
        ]


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; -1 where torch does not count."""
    return -1 if tensor.is_inference() else tensor._version


def _same(now: Any, before: Any) -> bool:
    """Whether a container holds the same objects as before."""
    if len(now) != len(before):
        return False
    if isinstance(now, dict):
        return all(key in now and now[key] is value for key, value in before.items())
    if isinstance(now, set):
        return now == before
    return all(a is b for a, b in zip(now, before, strict=True))


@contextmanager
def undisturbed(model: nn.Module, parameters: bool = False) -> Iterator[Snapshot]:
    """The model is left as it was; its compiled parts run uncompiled, in which hooks and second derivatives work.

    ``parameters``: whether these are looked after, too; the trial run refuses models that change them.

    Tensors made inside take part in autograd even where the caller is in inference mode.
    """
    snapshot = Snapshot(model, parameters)
    try:
        with with_autograd(), uncompiled(is_compiled(model)):
            yield snapshot
    finally:
        snapshot.restore()


def with_autograd() -> Any:
    """A context out of the caller's inference mode, if any; gradients may still be switched off in it."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


def uncompiled(compiled: bool) -> Any:
    """A context in which what ``torch.compile`` made runs as it was written."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def is_compiled(model: nn.Module) -> bool:
    """Whether ``torch.compile`` made the model, or some module or function in it."""
    return any(
        module._compiled_call_impl is not None
        or any(hasattr(value, "_torchdynamo_orig_callable") for value in (module, *vars(module).values()))
        for module in model.modules()
    )


class RandomState:
    """Of the generators that a model may draw from: torch's on the CPU and on the device, NumPy's, Python's."""

    def __init__(self, device: torch.device):
        self._device = torch.get_device_module(device) if device.type in ("cuda", "mps") else None
        self._where = (device,) if device.type == "cuda" else ()
        self._states = self._now()

    def moved(self) -> bool:
        """Whether one of torch's generators was drawn from; the others also serve tools that check types, or log."""
        (cpu, device, *_), (cpu_now, device_now, *_) = self._states, self._now()
        return not (torch.equal(cpu, cpu_now) and (device is None or torch.equal(device, device_now)))

    def restore(self) -> None:
        cpu, device, numpys, python = self._states
        torch.set_rng_state(cpu)
        if device is not None:
            self._device.set_rng_state(device, *self._where)
        np.random.set_state(numpys)
        random.setstate(python)

    def _now(self) -> tuple[Tensor, Tensor | None, tuple, tuple]:
        on_device = None if self._device is None else self._device.get_rng_state(*self._where)
        return torch.get_rng_state(), on_device, np.random.get_state(), random.getstate()
