"""What made a result: code, versions, machine, date, cost."""

import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from .. import __version__, devices
from . import fingerprint

Made = dict[str, Any]


def code(source: Path) -> Made:
    """Which code the computations of a file run through, to be asked before they begin: it can change meanwhile."""
    return {"modules": fingerprint.modules(source), "commit": commit()}


def made(code: Made, drawn: str, device: str, seconds: float) -> Made:
    """``code``: of :func:`code`; ``drawn``: the hash of the tensors that were drawn."""
    return code | {
        "drawn": drawn,
        "versions": fingerprint.dependencies() | {"catapults": __version__},
        "device": device_name(device, threads=1),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(seconds, 3),
        "memory": round(_peak_bytes() / 2**20),  # MiB, the most of its process
    }


def device_name(device: str, threads: int | None = None) -> str:
    """``cpu (2 threads, x86_64)`` or the accelerator's name; by default with the threads that PyTorch uses now."""
    place = devices.name_of(device)
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


def _peak_bytes() -> int:
    """The most memory that this process has had so far."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux":  # where getrusage begins with what the process had that started this one
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        if found := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
            return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
