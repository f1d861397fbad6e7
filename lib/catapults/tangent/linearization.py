"""The first-order expansion of a network in its parameters: J J^T, J^T v and J w, after one forward and backward pass.

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

from dataclasses import dataclass, field
from functools import reduce

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from .. import devices
from ..precision import full_precision
from . import blocks
from .blocks import mirrored
from .calls import CONVOLUTION, EMBEDDING, Call, captured, flat_outputs
from .chain import linearized_chain
from .convolution import ConvolutionPart
from .eigenspace import largest_eigenvalue, top_eigenpairs
from .embedding import EmbeddingPart
from .general import GeneralPart, GeneralPartInBlocks, general_part
from .linear import LinearPart
from .parts import LayerPart
from .tokens import TokensPart
from .trial import Layers, layers
from .undisturbed import uncompiled, undisturbed, with_autograd


def linearize(
    model: nn.Module, inputs: Shaped[Tensor, "n ..."], known_layers: Layers | None = None, *, moves_state: bool = False
) -> "Linearization":
    """Run the model once forward and once backward (c times for c outputs) and keep what kernel and gradient need.

    ``known_layers``: what :func:`layers` returned for this model; it holds until layers, mode or ``requires_grad``
    change. ``moves_state``: whether buffers that a forward pass changes, such as running averages, stay changed, as in
    a step of training; by default the model is left as it was.

    Raises ``ValueError`` as :func:`tangent_kernel` does, and when the model behaves differently from the trial run.
    """
    plan = known_layers or layers(model, inputs)
    if plan.chain:
        return Linearization(*linearized_chain(model, inputs, plan.chain, plan.structured), plan)
    undisturbing = undisturbed(model) if plan.changes_state and not moves_state else uncompiled(plan.compiled)
    with with_autograd(), full_precision(), torch.enable_grad(), undisturbing:
        return _linearized(model, inputs.clone() if inputs.is_inference() else inputs, plan)


def _linearized(model: nn.Module, inputs: Tensor, plan: Layers) -> "Linearization":
    modules = {name: model.get_submodule(name) for name in plan.structured}
    n = len(inputs)
    with captured(modules) as calls:
        outputs = model(inputs)
    flat = flat_outputs(outputs, n)
    if sorted(call.name for call in calls) != sorted(plan.structured):
        raise ValueError("known_layers: the model called other layers than in the trial run of `layers`")
    dtypes = {outputs.dtype, *(module.weight.dtype for module in modules.values())}
    if plan.general:
        dtypes |= {p.dtype for name, p in model.named_parameters() if name in plan.general}
    dtype = reduce(torch.promote_types, dtypes)  # an autocast in the model makes outputs less exact than its weights
    parts: list[LayerPart | GeneralPart | GeneralPartInBlocks] = [
        _structured_part(call, modules[call.name], derivative, n, dtype)
        for call, derivative in zip(calls, _derivatives(flat, calls), strict=True)
    ]
    if plan.general:
        part = general_part(model, inputs.detach(), plan, flat.shape[1], dtype)
        # it reads the weights when it is used, so it comes before the others when a step is added to them
        parts = [part, *parts] if isinstance(part, GeneralPartInBlocks) else [*parts, part]
    return Linearization(outputs.detach().to(dtype), parts, plan)


@dataclass(frozen=True)
class Linearization:
    """The model's first-order expansion in its parameters on given inputs: outputs f, and J through J J^T and J^T v."""

    outputs: Float[Tensor, "n ..."]
    parts: list["LayerPart | GeneralPart | GeneralPartInBlocks"] = field(repr=False)
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

        Raises :class:`catapults.tangent.eigenspace.NotFinite` for a kernel that is not.
        """
        kernel, gradient = self._lower_triangle_and_vjp(cotangent, add_to)
        if len(kernel) > blocks.SIDE:
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
        return 1.5 * len(self) ** 2 * self.outputs.element_size() <= devices.free_memory(self.device)

    def _zeros(self) -> Float[Tensor, "nc nc"]:
        return self.outputs.new_zeros(len(self), len(self))

    def _flat(self, cotangent: Tensor) -> Tensor:
        if cotangent.numel() != self.outputs.numel():
            raise ValueError(
                f"cotangent: shape {tuple(cotangent.shape)}; allowed is the outputs' {tuple(self.outputs.shape)}"
            )
        flat = cotangent.detach().reshape(len(self.outputs), -1)
        return flat if flat.dtype == self.dtype and flat.device == self.device else flat.to(self.outputs)


def _structured_part(call: Call, module: nn.Module, D: Tensor, n: int, dtype: torch.dtype) -> LayerPart:
    A = call.inputs
    if len(A) != n:
        raise ValueError(f"model: layer {call.name!r} saw {len(A)} of {n} samples; allowed: all, as in the trial run")
    if A._version != call.version and module.weight.requires_grad:
        raise ValueError(f"model: the input of layer {call.name!r} is changed in place after use; allowed: no change")
    D = D if D.dtype == dtype else D.to(dtype)
    if type(module) in EMBEDDING:
        return EmbeddingPart(call.name, module, A, D)
    A = A if A.dtype == dtype else A.to(dtype)
    if type(module) in CONVOLUTION:
        return ConvolutionPart.of(call.name, module, A, D)
    return (LinearPart if A.dim() == 2 else TokensPart)(call.name, module, A, D)


def _derivatives(outputs: Float[Tensor, "n c"], calls: list[Call]) -> list[Float[Tensor, "n c ..."]]:
    """d f_k(x_i) / d z_i for every layer output z, sample i and output k: samples do not mix, so sums over i do.

    Zeros where z does not reach the outputs, such as that of a layer whose output the model detaches.
    """
    edges, c = [call.edge for call in calls], outputs.shape[1]
    if not edges:
        return []
    per_output = []
    for k in range(c):
        of_layers = [None] * len(edges)
        if outputs.requires_grad:
            of_layers = torch.autograd.grad(outputs[:, k].sum(), edges, retain_graph=k + 1 < c, allow_unused=True)
        per_output.append(
            [outputs.new_zeros(call.shape) if D is None else D for D, call in zip(of_layers, calls, strict=True)]
        )
    if c == 1:
        return [derivative.unsqueeze(1) for derivative in per_output[0]]
    return [torch.stack(of_layer, 1) for of_layer in zip(*per_output, strict=True)]
