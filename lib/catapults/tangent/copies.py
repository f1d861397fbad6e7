"""Parameters that a network adds to its samples, such as positions and class tokens: a copy of them for each sample."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def copied(model: nn.Module, names: Sequence[str], n: int) -> Iterator[list[Tensor]]:
    """In the place of the named parameters a leaf for each, (n, ...), with a copy for every sample.

    A network in which the parameter meets each sample by itself gives the same outputs, and their gradient by a copy
    belongs to one sample. Whether that is so is for the trial run to find out.
    """
    places = [(model.get_submodule(name.rpartition(".")[0])._parameters, name.rpartition(".")[2]) for name in names]
    held = [of[key] for of, key in places]
    leaves = [_copies(p, n) for p in held]
    for (of, key), leaf in zip(places, leaves, strict=True):
        of[key] = leaf
    try:
        yield leaves
    finally:
        for (of, key), p in zip(places, held, strict=True):
            of[key] = p


def _copies(p: Tensor, n: int) -> Tensor:
    of_samples = p.dim() > 1 and p.shape[0] == 1  # an axis that stands for the samples
    return p.detach().expand(n, *p.shape[1 if of_samples else 0 :]).requires_grad_()


def candidates(model: nn.Module) -> list[str]:
    """Trainable parameters in one place of a module that is not PyTorch's own."""
    every = list(model.named_parameters(remove_duplicate=False))
    times = [id(p) for _, p in every].count
    return [
        name
        for name, p in every
        if p.requires_grad
        and p.dim() > 0
        and times(id(p)) == 1
        and not type(model.get_submodule(name.rpartition(".")[0])).__module__.startswith("torch.nn.")
    ]
