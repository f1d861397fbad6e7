"""The state of a long training, kept every few minutes, so that an interrupted one goes on where it was."""

import io
import time
import warnings
from pathlib import Path
from typing import Any

from .atomic import written

EVERY = 180.0  # seconds


class OutOfTime(Exception):
    """A training was stopped at a time limit, or did not begin before it; its checkpoint is kept."""


class Checkpoint:
    """What the training loop takes as ``checkpoint``. Its file holds tensors and plain values; no pickle is loaded."""

    def __init__(self, path: Path, until: float | None = None, every: float = EVERY):
        """``until``: the time, as of ``time.time()``, at which the training is to stop."""
        self.path, self.until, self.every = path, until, every
        self._last = time.time()

    def due(self) -> bool:
        now = time.time()
        return now - self._last >= self.every or (self.until is not None and now >= self.until)

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last; ``None`` where there is none that can be read."""
        import torch

        try:
            return torch.load(self.path, weights_only=True)
        except Exception:  # of any kind, if the file is damaged: the training begins anew
            return None

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state; a warning says where that is not possible. Raises :class:`OutOfTime` after the limit."""
        import torch

        packed = io.BytesIO()
        torch.save(state, packed)
        try:
            written(self.path, packed.getvalue())
            where = f"{self.path} holds where it was"
        except OSError as error:
            warnings.warn(f"{self.path}: the state of a training could not be kept: {error}", stacklevel=2)
            where = f"where it was could not be kept: {error}"
        self._last = time.time()
        if self.until is not None and self._last >= self.until:
            raise OutOfTime(f"stopped at the time limit; {where}")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
