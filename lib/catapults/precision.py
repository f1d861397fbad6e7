"""Arithmetic that keeps all digits of the numbers' own type."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch


@cache
def _kinds_of_devices() -> tuple[str, ...]:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return "cpu", *(kind for kind, available in there.items() if available)


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch off what makes products and convolutions less exact than their type.

    CUDA's TF32 arithmetic keeps 10 bits of the mantissa, and a surrounding ``torch.autocast`` down to 7. One that a
    model enters in its own ``forward`` is part of the model.
    """
    casting = [kind for kind in _kinds_of_devices() if torch.is_autocast_enabled(kind)]
    if casting:
        with ExitStack() as stack:
            for kind in casting:
                stack.enter_context(torch.autocast(kind, enabled=False))
            with full_precision():
                yield
        return
    if not torch.cuda.is_available():
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
