"""The one place that finds the device."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_ACCELERATORS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")  # what Linux has where CUDA or ROCm can be


def device(name: str = "auto") -> "torch.device":
    """CUDA, else Apple's MPS, else the CPU; or the one that is named. Raises ``ValueError`` for one not here."""
    import torch

    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    from . import models

    return models.device(name)


def name(given: str = "auto") -> str:
    """The name of :func:`device`. Where there can be none but the CPU, PyTorch is not imported to find out."""
    if given == "cpu" or (given == "auto" and sys.platform == "linux" and not any(map(_exists, _ACCELERATORS))):
        return "cpu"
    return str(device(given))


def check(given: str) -> None:
    """Raise ``ValueError`` for a device that is not here."""
    name(given)


def _exists(path: str) -> bool:
    return Path(path).exists()
