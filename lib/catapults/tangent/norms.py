"""Norms over each sample, whose weights and biases act on one channel or feature at a time."""

from torch import Tensor, nn
from torch.nn import functional as F

from .parts import own_trainable

INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORM = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, *INSTANCE)


def can_be_structured(module: nn.Module) -> bool:
    """Whether it normalises by the sample at hand, and not by running statistics."""
    return not getattr(module, "track_running_stats", False)


def normalised(module: nn.Module, A: Tensor) -> Tensor:
    """The module's output on A with a weight of ones and a bias of zeros."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(A, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.RMSNorm):
        return F.rms_norm(A, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(A, module.num_groups, eps=module.eps)
    return F.instance_norm(A, eps=module.eps)


def sample_first(module: nn.Module, A: Tensor) -> bool:
    """Whether the input has as many axes as the norm needs for the first to be that of the samples."""
    if type(module) in INSTANCE:
        return A.dim() == 3 + INSTANCE.index(type(module))
    return A.dim() >= (2 if type(module) is nn.GroupNorm else 1 + len(module.normalized_shape))


def jacobians(name: str, module: nn.Module, A: Tensor, D: Tensor) -> dict[str, Tensor]:
    """Of each output of each sample by weight and bias, (n, c, *parameter), for ``z = weight * normalised(A) + bias``.

    D = df/dz has the shape (n, c, ...), A the same without c.
    """
    of_channels = type(module) in (nn.GroupNorm, *INSTANCE)
    kept = (2,) if of_channels else range(D.dim() - len(module.normalized_shape), D.dim())
    summed = [axis for axis in range(2, D.dim()) if axis not in kept]

    def over_positions(values: Tensor) -> Tensor:
        return values.sum(summed) if summed else values

    of_each = {"weight": lambda: over_positions(D * normalised(module, A)[:, None]), "bias": lambda: over_positions(D)}
    prefix = f"{name}." if name else ""
    return {prefix + key: of_each[key]() for key in own_trainable(module)}
