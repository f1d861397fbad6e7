"""The device to compute on, and how much memory is free on it. PyTorch is imported only where that takes it."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

_CONTAINER = Path("/sys/fs/cgroup")  # where Linux tells a container its limits
_ACCELERATORS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")  # what Linux has where CUDA or ROCm can be


def device(name: str = "auto") -> "torch.device":
    """The device called ``name``; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises ``ValueError`` when the device is unknown or not there.
    """
    import torch

    there = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    there = [*there[:1], *(["mps"] if torch.backends.mps.is_available() else []), "cpu", *there[1:]]
    if name == "auto":
        return torch.device(there[0])
    if name == "cuda" and "cuda:0" in there:
        return torch.device("cuda:0")
    if name not in there:
        raise ValueError(f"device = {name!r}: allowed on this machine are {', '.join(['auto', *there])}")
    return torch.device(name)


def name_of(name: str = "auto") -> str:
    """The name of :func:`device`, found out without PyTorch where there can be none but the CPU. Raises as it does."""
    if name == "cpu" or (
        name == "auto" and sys.platform == "linux" and not any(Path(p).exists() for p in _ACCELERATORS)
    ):
        return "cpu"
    return str(device(name))


def free_memory(device: "torch.device") -> int | float:
    """Bytes that new tensors on the device may take now; on a CPU, what a container's limit leaves of the machine's."""
    import torch

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return min(psutil.virtual_memory().available, _left_in_container())


def _left_in_container() -> int | float:
    """Bytes that a container's limit on memory leaves, where there is one."""
    try:
        limit, used = ((_CONTAINER / name).read_text(encoding="utf-8") for name in ("memory.max", "memory.current"))
        return int(limit) - int(used)
    except (OSError, ValueError):
        return math.inf
