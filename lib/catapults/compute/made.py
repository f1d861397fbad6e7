"""What made a result: code, versions, machine, date, cost."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from .. import __version__, devices
from ..experiments import Experiment
from . import fingerprint

Made = dict[str, Any]


def made(experiment: Experiment, module: str, drawn: str, device: str, seconds: float) -> Made:
    """``module``: that computed it; ``drawn``: the hash of the tensors that it drew."""
    return {
        "drawn": drawn,
        "modules": fingerprint.modules(module),
        "versions": fingerprint.dependencies() | {"catapults": __version__},
        "commit": commit(),
        "device": device_name(device, threads=1),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(seconds, 3),
        "memory": _peak_memory(device),  # MiB
    }


def device_name(device: str, threads: int | None = None) -> str:
    """``cpu (2 threads, x86_64)`` or the accelerator's name; by default with the threads that PyTorch uses now."""
    place = devices.name(device)
    if place.startswith("cuda"):
        import torch

        return f"{place} ({torch.cuda.get_device_name(place)})"
    if threads is None:
        import torch

        threads = torch.get_num_threads()
    return f"{place} ({threads} thread{'s' * (threads > 1)}, {platform.machine()})"


def commit() -> str:
    """The short hash of the commit that the library is at, with ``+ changes`` if files differ from it."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(Path(__file__)))  # else the checkout is another project's
        return git("rev-parse", "--short", "HEAD") + (" + changes" if git("status", "--porcelain", ":/lib") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git checkout)"


def _peak_memory(device: str) -> int:
    memory = psutil.Process().memory_info()
    peak = getattr(memory, "peak_wset", None) or _high_water() or memory.rss
    return round(peak / 2**20)


def _high_water() -> int:
    """The most memory that this process has had, in bytes; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError):
        return 0
