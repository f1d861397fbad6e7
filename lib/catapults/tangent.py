"""The tangent kernel of a network, its split of the loss and the critical learning rate (section 2 of the paper).

For sample-wise networks one backward pass of ``sum_i f(x_i)`` gives every sample's own derivative D with respect to
the outputs of every layer. With A the layer's inputs, sample i's weight gradient is ``D_i^T A_i``, so that

- a linear layer contributes ``(A A^T) * (D D^T)`` to the kernel and no per-sample gradient is ever formed;
- a layer that is applied at many positions (a convolution, a linear layer on tokens) contributes the Gram matrix of its
  per-sample gradients, formed a few samples at a time, or the sum over pairs of positions where that is less work;
- the gradient of the loss is the same sum weighted by the residual: it needs no second backward pass.

Parameters of all other layers take a general route through ``torch.func``.

The kernel is formed in blocks of its lower triangle. Where it does not fit in memory, A and D give its products with
vectors instead.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path

import psutil
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

from .checks import whole_number
from .eigenspace import Kernel, largest_eigenvalue, top_eigenpairs
from .models import NTKConv2d, NTKLinear
from .precision import full_precision

_LINEAR = (nn.Linear, NTKLinear)
_CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d, NTKConv2d)
_WEIGHT_GRADIENT = {1: nn.grad.conv1d_weight, 2: nn.grad.conv2d_weight, 3: nn.grad.conv3d_weight}

_SAMPLES_AT_A_TIME = 8  # in a grouped weight gradient: 4 to 16 are equally fast, more is slower
_JACOBIANS_AT_A_TIME = 32  # samples in torch.func's Jacobian: 8 take half as long again, 128 are no faster
_BLOCK = 2**25  # numbers in one block of per-sample gradients or of position products (128 MiB in float32)
_IN_CACHE = 2**22  # the same where blocks stay in a CPU's cache: 2**21 to 2**23 are equally fast
_COLUMNS = 288  # of unfolded images at a time, on a CPU: 144 to 576 are equally fast
_FEW_POSITIONS = 128  # up to which batched products of unfolded images beat grouped weight gradients
_SIDE = 512  # rows of a block of the kernel: 256 to 1280 are equally fast


def tangent_kernel(model: nn.Module, inputs: Shaped[Tensor, "n ..."]) -> Float[Tensor, "nc nc"]:
    """Empirical tangent kernel K of definition 1 on ``inputs``, over the parameters that require a gradient.

    A model with c outputs gives an (n c, n c) matrix, sample-major: row ``i c + k`` belongs to output k of sample i.

    Raises ``ValueError`` when the model mixes samples (batch norm in training mode), is random (dropout in training
    mode), has no trainable parameter, or when there is no input.
    """
    return linearize(model, inputs).kernel()


def critical_learning_rate(kernel: Kernel, n: int) -> float:
    """``n / lambda_max(K)``, the paper's approximation of the largest rate at which GD descends (section 2).

    It belongs to the loss ``1/n ||f - y||^2``; with c outputs and the loss averaged over them pass ``n * c``.
    A kernel of zeros has an infinite critical rate.

    Raises ``ValueError`` for a kernel with entries that are not finite.
    """
    return critical_rate(top_eigenpairs(kernel, 1).values[-1].item(), n)


def critical_rate(norm: float, n: int) -> float:
    """:func:`critical_learning_rate` where the kernel's norm is known already."""
    return n / norm if norm > 0 else math.inf


def split_loss(residual: Float[Tensor, " *shape"], kernel: Kernel, top: int) -> tuple[float, float]:
    """The two parts of the MSE in eq. (2): in the top-``top`` eigenspace of the kernel, and in the rest.

    ``residual`` holds f - y, shape (n,) or (n, c). The parts add up to ``(residual**2).mean()``.

    Raises ``ValueError`` unless 1 <= top < m and the residual has m entries, and for a kernel that is not finite.
    """
    if residual.numel() != len(kernel):
        raise ValueError(f"residual: {residual.numel()} entries for a kernel of {len(kernel)} rows; allowed: as many")
    whole_number(1, len(kernel) - 1, top=top)
    return split_by_eigenvectors(residual.flatten(), top_eigenpairs(kernel, top).vectors[:, -top:])


def split_by_eigenvectors(residual: Float[Tensor, " m"], top_vectors: Float[Tensor, "m top"]) -> tuple[float, float]:
    """:func:`split_loss` where an orthonormal basis of the top eigenspace is known already."""
    residual = residual.to(top_vectors)
    components = top_vectors.T @ residual
    rest = residual - top_vectors @ components
    return components.square().sum().item() / len(residual), rest.square().sum().item() / len(residual)


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
        if type(module) in _LINEAR + _CONVOLUTION
        and (own := _own_trainable(module))
        and own.keys() <= {"weight", "bias"}
    }
    with full_precision(), torch.enable_grad():
        with _captured(candidates) as calls:
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
    same = (alone - outputs).abs().max() <= 1e-3 * alone.abs().max()
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
        and all(uses.get(p, 0) <= 1 for p in _own_trainable(candidates[call.name]).values())
    )
    covered = {p for name in structured for p in _own_trainable(candidates[name]).values()}
    general = tuple(name for name, p in trainable.items() if p not in covered)
    return Layers(structured, general, () if general else _chain(model, inputs))


def linearize(model: nn.Module, inputs: Shaped[Tensor, "n ..."], known_layers: Layers | None = None) -> "Linearization":
    """Run the model once forward and once backward (c times for c outputs) and keep what kernel and gradient need.

    ``known_layers`` is what :func:`layers` returned for this model: it holds until layers or ``requires_grad`` change.

    Raises ``ValueError`` as :func:`tangent_kernel` does, and when the model takes another course than in the trial run.
    """
    plan = known_layers or layers(model, inputs)
    if plan.chain:
        return _linearize_chain(model, inputs, plan)
    modules = {name: model.get_submodule(name) for name in plan.structured}
    n = len(inputs)
    with full_precision(), torch.enable_grad():
        with _captured(modules) as calls:
            outputs = model(inputs)
        flat = flat_outputs(outputs, n)
        if sorted(call.name for call in calls) != sorted(plan.structured):
            raise ValueError("known_layers: the model called other layers than in the trial run of `layers`")
        derivatives = _derivatives(flat, [call.edge for call in calls])
        parts: list[_Structured | _General] = [
            _structured_part(call, modules[call.name], derivative, n)
            for call, derivative in zip(calls, derivatives, strict=True)
        ]
        if plan.general:
            parts.append(_General.of(model, inputs.detach(), plan.general))
    return Linearization(outputs.detach(), parts, plan)


@dataclass(frozen=True)
class Linearization:
    """The model's first-order expansion in its parameters on given inputs: outputs f, and J through J J^T and J^T v."""

    outputs: Float[Tensor, "n ..."]
    parts: list["_Structured | _General"] = field(repr=False)
    layers: Layers

    @property
    def dtype(self) -> torch.dtype:
        return self.outputs.dtype

    @property
    def device(self) -> torch.device:
        return self.outputs.device

    def kernel(self) -> Float[Tensor, "nc nc"]:
        """K = J J^T."""
        return self.kernel_and_vjp(None)[0]

    def __len__(self) -> int:
        """Rows of the kernel: n c."""
        return self.outputs.numel()

    def __matmul__(self, vectors: Float[Tensor, "nc b"]) -> Float[Tensor, "nc b"]:
        """K V without the kernel: a vjp and a jvp for each vector."""
        return torch.stack([self.jvp(self.vjp(vector)).flatten() for vector in vectors.T], 1)

    def vjp(self, cotangent: Float[Tensor, " *shape"], add_to: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """J^T v by parameter name; with ``v = 2 (f - y) / n`` the gradient of the loss of eq. (1).

        Where ``add_to`` names a tensor for every parameter, J^T v is added to these in place and they are returned:
        handing in the parameters themselves with ``v = -2 eta (f - y) / n`` makes a step of gradient descent.
        """
        flat = self._flat(cotangent)
        with full_precision(), torch.no_grad():
            return {name: g for part in self.parts for name, g in part.vjp(flat, add_to).items()}

    def jvp(self, direction: dict[str, Tensor]) -> Float[Tensor, "n ..."]:
        """J w, the outputs' derivative along a direction that is given by parameter name."""
        with full_precision(), torch.no_grad():
            return sum(part.jvp(direction) for part in self.parts).view_as(self.outputs)

    def kernel_and_vjp(
        self, cotangent: Float[Tensor, "n ..."] | None, add_to: dict[str, Tensor] | None = None
    ) -> tuple[Float[Tensor, "nc nc"], dict[str, Tensor]]:
        """:meth:`kernel` and :meth:`vjp` together, at little more than the cost of one."""
        kernel, gradient = self._lower_triangle_and_vjp(cotangent, add_to)
        return mirrored(kernel), gradient

    def norm_and_vjp(
        self, cotangent: Float[Tensor, "n ..."], add_to: dict[str, Tensor] | None = None
    ) -> tuple[float, dict[str, Tensor]]:
        """||K|| and :meth:`vjp` together, all that a step of SGD needs.

        Raises :class:`catapults.eigenspace.NotFinite` for a kernel that is not.
        """
        kernel, gradient = self._lower_triangle_and_vjp(cotangent, add_to)
        if len(kernel) > _SIDE:
            return top_eigenpairs(mirrored(kernel), 1).values[-1].item(), gradient
        return largest_eigenvalue(kernel), gradient

    def _lower_triangle_and_vjp(
        self, cotangent: Tensor | None, add_to: dict[str, Tensor] | None
    ) -> tuple[Float[Tensor, "nc nc"], dict[str, Tensor]]:
        flat = None if cotangent is None else self._flat(cotangent)
        gradient = {}
        with full_precision(), torch.no_grad():
            kernel = self._zeros()
            for part in self.parts:
                gradient |= part.kernel_and_vjp(kernel, flat, add_to)
        return kernel, gradient

    def kernels_by_layer(self) -> dict[str, Float[Tensor, "nc nc"]]:
        """Each layer's part of the kernel, by module name; the parts add up to the kernel."""
        with full_precision(), torch.no_grad():
            kernels = {part.name: self._zeros() for part in self.parts}
            for part in self.parts:
                part.kernel_and_vjp(kernels[part.name], None, None)
            return {name: mirrored(kernel) for name, kernel in kernels.items()}

    def kernel_fits(self) -> bool:
        """Whether the kernel, with half of it again for what works on it, fits into the memory that is free now."""
        device = self.device
        if device.type == "cuda":
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            free = torch.cuda.mem_get_info(device)[0] + unused
        elif device.type == "mps":
            free = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
        else:
            free = min(psutil.virtual_memory().available, _left_in_container())
        return 1.5 * len(self) ** 2 * self.outputs.element_size() <= free

    def _zeros(self) -> Float[Tensor, "nc nc"]:
        return self.outputs.new_zeros(len(self), len(self))

    def _flat(self, cotangent: Tensor) -> Tensor:
        if cotangent.numel() != self.outputs.numel():
            raise ValueError(
                f"cotangent: shape {tuple(cotangent.shape)}; allowed is the outputs' {tuple(self.outputs.shape)}"
            )
        flat = cotangent.detach().reshape(len(self.outputs), -1)
        return flat if flat.dtype == self.dtype and flat.device == self.device else flat.to(self.outputs)


@dataclass(frozen=True)
class _Structured:
    """A layer ``z = scale * W a + b`` at P positions of each sample: A is its input, D = df/dz.

    A has shape (n, ...), D has shape (n, c, ...), where ``...`` is as in the module's own input and output.
    """

    name: str
    module: nn.Module
    A: Tensor
    D: Tensor

    @property
    def scale(self) -> float:
        return scale_of(self.module)

    @cached_property
    def _names(self) -> dict[str, str]:
        prefix = f"{self.name}." if self.name else ""
        return {key: prefix + key for key in _own_trainable(self.module)}

    def vjp(self, cotangent: Tensor, add_to: dict[str, Tensor] | None) -> dict[str, Tensor]:
        weighted = self.pulled_back(cotangent)
        gradient = {"weight": self._weight_gradient, "bias": self._bias_gradient}
        return _added(add_to, {name: gradient[key](weighted) for key, name in self._names.items()})

    def jvp(self, direction: dict[str, Tensor]) -> Tensor:
        """(n, c): the layer applied with the direction as its parameters, then carried on by D."""
        names = self._names
        weight = direction[names["weight"]] * self.scale if "weight" in names else torch.zeros_like(self.module.weight)
        change = self._applied(weight, direction[names["bias"]] if "bias" in names else None)
        return torch.einsum("ncz,nz->nc", self.D.flatten(2), change.flatten(1))

    def pulled_back(self, cotangent: Tensor) -> Tensor:
        """``J_z^T v`` for the layer's outputs z, (n, ...): with the loss's derivatives by f those by z."""
        weights = cotangent.reshape(*cotangent.shape, *[1] * (self.D.dim() - 2))
        return self.D[:, 0] * weights[:, 0] if self.D.shape[1] == 1 else (self.D * weights).sum(1)

    def _bias_gradient(self, weighted: Tensor) -> Tensor:
        return weighted.sum([axis for axis in range(weighted.dim()) if axis != self._channel_axis])

    def _summed_over_positions(self) -> Tensor:
        """df/db, (n, c, channels)."""
        return self.D.sum([axis for axis in range(2, self.D.dim()) if axis != self._channel_axis + 1])


class LinearPart(_Structured):
    """One position: the kernel is ``scale^2 (A A^T) * (D D^T)``."""

    _channel_axis = 1

    def kernel_and_vjp(
        self, kernel: Tensor, cotangent: Tensor | None, add_to: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        n, c = self.D.shape[:2]
        if c == 1 and n <= _SIDE:
            self._add_block(kernel, self.A, self.A, self.D, self.D)
        else:
            of_samples = kernel.view(n, c, n, c)
            for rows, columns in _lower_blocks(n, max(1, _SIDE // c)):
                block = of_samples[rows, :, columns]
                self._add_block(block, self.A[rows], self.A[columns], self.D[rows], self.D[columns])
        return {} if cotangent is None else self.vjp(cotangent, add_to)

    def _add_block(self, block: Tensor, A: Tensor, others_A: Tensor, D: Tensor, others_D: Tensor) -> None:
        rows = D.flatten(0, 1)
        outer = rows @ (rows if others_D is D else others_D.flatten(0, 1)).T
        outer = outer if block.dim() == 2 else outer.view(block.shape)
        if "weight" not in self._names:
            block += outer
            return
        inner = A @ others_A.T
        inner = inner if block.dim() == 2 else inner[:, None, :, None]
        block.addcmul_(outer, inner, value=self.scale**2)
        if "bias" in self._names:
            block += outer

    def _applied(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self.A, weight, bias)

    def _weight_gradient(self, weighted: Tensor) -> Tensor:
        return (weighted * self.scale).T @ self.A

    def vjp(self, cotangent: Tensor, add_to: dict[str, Tensor] | None) -> dict[str, Tensor]:
        names = self._names
        if add_to is None or "weight" not in names:
            return super().vjp(cotangent, add_to)
        weight = add_to[names["weight"]]
        if self.D.shape[1] == 1 and "bias" not in names:
            return {names["weight"]: weight.addmm_(self.D.squeeze(1).T, self.A * cotangent, alpha=self.scale)}
        weighted = self.pulled_back(cotangent)
        weight.addmm_(weighted.T, self.A, alpha=self.scale)
        bias = _added(add_to, {names["bias"]: self._bias_gradient(weighted)}) if "bias" in names else {}
        return {names["weight"]: weight} | bias


class _ManyPositions(_Structured):
    """A layer applied at several positions of a sample: a convolution, or a linear layer on tokens.

    Chooses between the Gram matrix of per-sample weight gradients and the sum over pairs of positions by their work.
    """

    def kernel_and_vjp(
        self, kernel: Tensor, cotangent: Tensor | None, add_to: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        names = self._names
        if "bias" in names:
            add_gram(kernel, self._summed_over_positions().flatten(0, 1))
        if "weight" in names and not self._by_positions():
            weight_gradient = self.D.new_empty(self._sizes()[:2])
            for rows, columns, per_sample in self._per_sample_gradients():
                add_gram(kernel, per_sample, self.scale**2)
                if cotangent is not None:
                    part = weight_gradient[rows, columns]
                    part.copy_((cotangent.flatten() @ per_sample).view_as(part))
            if cotangent is None:
                return {}
            gradient = {names["weight"]: weight_gradient.mul_(self.scale).view_as(self.module.weight)}
            if "bias" in names:
                gradient[names["bias"]] = self._bias_gradient(self.pulled_back(cotangent))
            return _added(add_to, gradient)
        if "weight" in names:
            self._add_kernel_by_positions(kernel)
        return {} if cotangent is None else self.vjp(cotangent, add_to)

    def _by_positions(self) -> bool:
        """Whether the sum over pairs of positions, and the gradient apart from it, is less work."""
        n, c = self.D.shape[:2]
        outputs, inputs, positions = self._sizes()
        by_gradients = n * c * outputs * inputs * (positions + n * c / 2)
        by_positions = (n * positions) ** 2 / 2 * (inputs + c * c * outputs) + n * positions * outputs * inputs
        return self._unfolds() and by_positions < by_gradients

    def _add_kernel_by_positions(self, kernel: Tensor) -> None:
        A, D = self._unfolded(self.A), self._derivatives_by_position()  # (n, P, inputs), (n, c, P, outputs)
        n, c, P, _ = D.shape
        of_samples = kernel.view(n, c, n, c)
        for rows, columns in _lower_blocks(n, max(1, math.isqrt(self._block() // 8) // (c * P))):
            inner = A[rows].flatten(0, 1) @ A[columns].flatten(0, 1).T
            outer = D[rows].flatten(0, 2) @ D[columns].flatten(0, 2).T
            products = outer.view(-1, c, P, columns.stop - columns.start, c, P)
            products *= inner.view(-1, 1, P, columns.stop - columns.start, 1, P)
            of_samples[rows, :, columns] += products.sum((2, 5)).mul_(self.scale**2)

    def _block(self) -> int:
        return min(_BLOCK, _IN_CACHE) if self.D.device.type == "cpu" else _BLOCK

    def _per_sample_gradients(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Weight gradients of every output of every sample, (n c, parameters), of a block of the weight at a time."""
        return self._gradients_by_unfolding()

    def _gradients_by_unfolding(self) -> Iterator[tuple[slice, slice, Tensor]]:
        n, c = self.D.shape[:2]
        outputs, inputs, positions = self._sizes()
        D = self._derivatives_by_position().transpose(2, 3)
        channels = self.A.shape[self._channel_axis]
        width = inputs // channels
        step = max(1, _COLUMNS // width) if self.A.device.type == "cpu" else channels
        for of_channels in _slices(channels, step):
            A = self.A.narrow(self._channel_axis, of_channels.start, of_channels.stop - of_channels.start)
            columns = slice(of_channels.start * width, of_channels.stop * width)
            size = columns.stop - columns.start
            row = n * c * size
            at_once = n * positions * size <= 2 * self._block()
            unfolded = self._unfolded(A) if at_once else None
            for rows in _slices(outputs, max(1, min(2 * self._block(), max(self._block(), 16 * row)) // row)):
                if at_once:
                    per_sample = torch.bmm(D[:, :, rows].flatten(1, 2), unfolded)
                else:
                    per_sample = D.new_empty(n, c * (rows.stop - rows.start), size)
                    for some in _slices(n, max(1, self._block() // 4 // (positions * size))):
                        per_sample[some] = torch.bmm(D[some, :, rows].flatten(1, 2), self._unfolded(A[some]))
                yield rows, columns, per_sample.view(n * c, -1)


class _Tokens(_ManyPositions):
    """A linear layer on inputs (n, ..., in_features)."""

    @property
    def _channel_axis(self) -> int:
        return self.D.dim() - 2

    def _sizes(self) -> tuple[int, int, int]:
        return self.D.shape[-1], self.A.shape[-1], math.prod(self.A.shape[1:-1])

    def _unfolds(self) -> bool:
        return True

    def _unfolded(self, A: Tensor) -> Tensor:
        return A.flatten(1, -2)

    def _derivatives_by_position(self) -> Tensor:
        return self.D.flatten(2, -2)

    def _applied(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(self.A, weight, bias)

    def _weight_gradient(self, weighted: Tensor) -> Tensor:
        return (weighted * self.scale).flatten(0, -2).T @ self.A.flatten(0, -2)


class _Convolution(_ManyPositions):
    """A convolution of any number of axes, stride, dilation, groups and padding."""

    _channel_axis = 1

    @classmethod
    def of(cls, name: str, module: nn.Module, A: Tensor, D: Tensor) -> "_Convolution":
        if module.padding_mode != "zeros":
            A = F.pad(A, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        elif isinstance(module.padding, str):
            A = F.pad(A, module._reversed_padding_repeated_twice)
        return cls(name, module, A, D)

    def _sizes(self) -> tuple[int, int, int]:
        return self.module.weight.shape[0], self.module.weight[0].numel(), math.prod(self.D.shape[3:])

    def _options(self) -> dict:
        padded = self.module.padding_mode != "zeros" or isinstance(self.module.padding, str)
        padding = 0 if padded else self.module.padding
        return {"stride": self.module.stride, "dilation": self.module.dilation, "padding": padding}

    def _unfolds(self) -> bool:
        return self.module.groups == 1 and self.A.dim() == 4

    def _unfolded(self, A: Tensor) -> Tensor:
        return F.unfold(A, self.module.kernel_size, **self._options()).transpose(1, 2)

    def _derivatives_by_position(self) -> Tensor:
        return self.D.flatten(3).transpose(2, 3)

    def _per_sample_gradients(self) -> Iterator[tuple[slice, slice, Tensor]]:
        outputs, inputs, positions = self._sizes()
        if self._unfolds() and positions <= _FEW_POSITIONS:
            yield from self._gradients_by_unfolding()
            return
        n, c = self.D.shape[:2]
        size = outputs if self.module.groups > 1 else max(1, _BLOCK // (n * c * inputs))
        for rows in _slices(outputs, size):
            yield rows, slice(0, inputs), self._gradients_by_groups(rows)

    def _gradients_by_groups(self, block: slice) -> Tensor:
        """One grouped weight gradient serves several samples: each is a group of channels of one large image."""
        n, c = self.D.shape[:2]
        outputs = block.stop - block.start
        gradient = _WEIGHT_GRADIENT[self.A.dim() - 2]
        shape = self.module.weight.shape[1:]
        result = self.D.new_empty(n * c, outputs * shape.numel())
        chunk = max(1, _SAMPLES_AT_A_TIME // c)
        for start in range(0, n, chunk):
            D = self.D[start : start + chunk, :, block].flatten(0, 1)
            a = self.A[start : start + chunk]
            a = a if c == 1 else a.repeat_interleave(c, 0)
            m = len(D)
            rows = gradient(
                a.reshape(1, -1, *a.shape[2:]),
                (m * outputs, *shape),
                D.reshape(1, -1, *D.shape[2:]),
                groups=m * self.module.groups,
                **self._options(),
            )
            result[start * c : start * c + m] = rows.view(m, -1)
        return result

    def _applied(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolution = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[self.A.dim() - 2]
        return convolution(self.A, weight, bias, groups=self.module.groups, **self._options())

    def _weight_gradient(self, weighted: Tensor) -> Tensor:
        gradient = _WEIGHT_GRADIENT[self.A.dim() - 2]
        weight = self.module.weight
        return gradient(self.A, weight.shape, weighted, groups=self.module.groups, **self._options()) * self.scale


@dataclass(frozen=True)
class _General:
    """Parameters of any sample-wise layer, by their Jacobian: through ``torch.func``, or where that has no rule for a
    layer (LSTM, GRU, PReLU), by one backward pass for every sample and output."""

    name: str
    jacobians: dict[str, Tensor]  # name -> (n, c, *parameter)

    @classmethod
    def of(cls, model: nn.Module, inputs: Tensor, names: tuple[str, ...]) -> "_General":
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
        return _added(add_to, {name: torch.einsum("nc,nc...->...", cotangent, J) for name, J in self.jacobians.items()})


def _chain(model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
    """The names of a fully connected ReLU network's modules in their order; none for any other model."""
    names = {module: name for name, module in model.named_modules()}
    if any(module._forward_hooks or module._forward_pre_hooks for module in names):
        return ()
    order, stack = [], [model]
    while stack:
        module = stack.pop()
        if type(module) is nn.Sequential:
            stack.extend(reversed(module))
        else:
            order.append(module)
    flat = inputs.dim() == 2 or (type(order[0]) is nn.Flatten and order[0].start_dim == 1 and order[0].end_dim == -1)
    simple = all(type(module) in (*_LINEAR, nn.ReLU) for module in order[type(order[0]) is nn.Flatten :])
    used_once = len(set(order)) == len(order)
    ends = type(order[-1]) in _LINEAR
    return tuple(names[module] for module in order) if flat and simple and used_once and ends else ()


def _linearize_chain(model: nn.Module, inputs: Tensor, plan: Layers) -> Linearization:
    """:func:`linearize` by the chain rule written out: for small batches autograd's book-keeping is most of a step."""
    modules = attrgetter(*plan.chain)(model) if len(plan.chain) > 1 else (model.get_submodule(*plan.chain),)
    parts = []
    with full_precision(), torch.no_grad():
        values = values_along(modules, inputs.detach())
        n, c = values[-1].shape
        D = torch.eye(c, dtype=values[-1].dtype, device=inputs.device)  # the same for all samples at first
        backwards = zip(reversed(plan.chain), reversed(modules), reversed(values[:-1]), reversed(values), strict=False)
        while len(parts) < len(plan.structured):
            name, module, A, output = next(backwards)
            if type(module) is nn.ReLU:
                slope = output.sign()[:, None]
                D = D.mul_(slope) if D.dim() == 3 else slope.mul_(D) if c == 1 else slope * D
                continue
            if name in plan.structured:
                parts.append(LinearPart(name, module, A, D.expand(n, c, -1)))
            if len(parts) < len(plan.structured):
                D = (D @ module.weight).mul_(scale_of(module))
    return Linearization(values[-1], parts[::-1], plan)


def values_along(modules: Iterable[nn.Module], inputs: Tensor) -> list[Tensor]:
    """What enters each module of a chain, and its output; ReLUs overwrite what a linear layer has given.

    They are what the modules' ``forward`` gives, to the last bit, without copies.
    """
    values, own = [inputs], False  # own: nothing else needs the latest value
    for module in modules:
        value, linear = values[-1], type(module) in _LINEAR
        if linear:
            value = F.linear(value, module.weight).mul_(scale_of(module))
            value = value if module.bias is None else value.add_(module.bias)
        elif own:
            value = value.relu_()
        else:
            value = module.forward(value)
        values.append(value)
        own = linear
    return values


def scale_of(layer: nn.Module) -> float:
    """That of the NTK parameterisation; 1 for PyTorch's own layers."""
    return getattr(layer, "scale", 1.0)


def _structured_part(call: "_Call", module: nn.Module, D: Tensor, n: int) -> _Structured:
    A = call.inputs
    if len(A) != n:
        raise ValueError(f"model: layer {call.name!r} saw {len(A)} of {n} samples; allowed: all, as in the trial run")
    if A._version != call.version:
        raise ValueError(f"model: the input of layer {call.name!r} is changed in place after use; allowed: no change")
    if type(module) in _CONVOLUTION:
        return _Convolution.of(call.name, module, A, D)
    return (LinearPart if A.dim() == 2 else _Tokens)(call.name, module, A, D)


def _added(add_to: dict[str, Tensor] | None, gradient: dict[str, Tensor]) -> dict[str, Tensor]:
    return gradient if add_to is None else {name: add_to[name].add_(g) for name, g in gradient.items()}


def _slices(size: int, step: int) -> Iterator[slice]:
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def _left_in_container() -> float:
    """Bytes that a container's limit on memory leaves, where there is one."""
    try:
        limit, used = (
            Path("/sys/fs/cgroup", name).read_text(encoding="utf-8") for name in ("memory.max", "memory.current")
        )
        return int(limit) - int(used)
    except (OSError, ValueError):
        return math.inf


def _lower_blocks(size: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the blocks that cover the lower triangle of a (size, size) matrix."""
    for rows in _slices(size, side):
        for columns in _slices(rows.stop, side):
            yield rows, columns


def add_gram(kernel: Float[Tensor, "m m"], vectors: Float[Tensor, "m p"], scale: float = 1.0) -> None:
    """Add ``scale * vectors vectors^T`` to the lower triangle of the kernel, in place: in strips, narrow on a CPU."""
    side = min(_SIDE, 64 if len(kernel) <= 256 else 128) if kernel.device.type == "cpu" else _SIDE
    for rows in _slices(len(kernel), side):
        kernel[rows, : rows.stop].addmm_(vectors[rows], vectors[: rows.stop].T, alpha=scale)


def mirrored(kernel: Float[Tensor, "m m"]) -> Float[Tensor, "m m"]:
    """The kernel, in place, with its lower triangle also above the diagonal: exactly symmetric."""
    for rows, columns in _lower_blocks(len(kernel), _SIDE):
        block = kernel[rows, columns]
        if rows == columns:
            block.copy_(block.tril() + block.tril(-1).T)
        else:
            kernel[columns, rows] = block.T
    return kernel


def _own_trainable(module: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in module._parameters.items() if p is not None and p.requires_grad}


def flat_outputs(outputs: Tensor, n: int) -> Float[Tensor, "n c"]:
    """The model's outputs for n samples as a matrix. Raises ``ValueError`` unless they are a tensor (n, ...)."""
    if not isinstance(outputs, Tensor) or outputs.dim() == 0 or len(outputs) != n:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"model: its output for {n} samples is {shape}; allowed is a tensor of shape ({n}, ...)")
    return outputs.reshape(n, -1)


@dataclass(frozen=True)
class _Call:
    """One call of a layer: its input and the place of its output in the graph."""

    name: str
    inputs: Tensor
    version: int
    edge: GradientEdge
    sample_first: bool


@contextmanager
def _captured(modules: dict[str, nn.Module]) -> Iterator[list[_Call]]:
    """Record every call of the modules; outputs as places in the graph, which later in-place layers do not change."""
    calls: list[_Call] = []

    def recorder(name: str) -> Callable:
        def record(module: nn.Module, arguments: tuple, named: dict, output: Tensor) -> None:
            if output.requires_grad:
                (inputs,) = (*arguments, *named.values())
                batched = inputs.dim() >= 2 if type(module) in _LINEAR else inputs.dim() == module.weight.dim()
                calls.append(_Call(name, inputs.detach(), inputs._version, get_gradient_edge(output), batched))

        return record

    handles = [
        module.register_forward_hook(recorder(name), prepend=True, with_kwargs=True)  # before hooks that change outputs
        for name, module in modules.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _derivatives(outputs: Float[Tensor, "n c"], edges: list[GradientEdge]) -> list[Float[Tensor, "n c ..."]]:
    """d f_k(x_i) / d z_i for every layer output z, sample i and output k: samples do not mix, so sums over i do."""
    if not edges:
        return []
    c = outputs.shape[1]
    per_output = [
        torch.autograd.grad(outputs[:, k].sum(), edges, retain_graph=k + 1 < c, materialize_grads=True)
        for k in range(c)
    ]
    if c == 1:
        return [derivative.unsqueeze(1) for derivative in per_output[0]]
    return [torch.stack(of_layer, 1) for of_layer in zip(*per_output, strict=True)]


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
