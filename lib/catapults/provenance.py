"""Where a page comes from: what made it, on what, when and how long it took."""

import os
import platform
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from .display import Text, table

PRESET = "CATAPULTS_PRESET"  # set by the build command for the notebooks it executes


def provenance(seed: int, device: str) -> Text:
    """The box at the end of a chapter. Run time counts from the start of the process."""
    facts = {
        "preset": os.environ.get(PRESET, "none: executed by itself"),
        "device": device_name(device),
        "torch": version("torch"),
        "Python": platform.python_version(),
        "seed": str(seed),
        "commit": commit(),
        "executed": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "run time": f"{time.time() - psutil.Process().create_time():.1f} s",
        "peak memory": peak_memory(device),
    }
    return Text(table(("made with", ""), facts.items()), {"kind": "provenance"} | facts)


def device_name(device: str, threads: int | None = None) -> str:
    """``cpu (2 threads, x86_64)`` or the accelerator's name; by default with the threads that PyTorch uses now."""
    if device.startswith("cuda") or not threads:
        import torch
    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = threads or torch.get_num_threads()
    return f"{device} ({threads} thread{'s' * (threads > 1)}, {platform.machine()})"


def commit() -> str:
    """The short hash of the commit that the library is at, with ``+ changes`` if files differ from it."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        answer = subprocess.run(command, capture_output=True, check=True, text=True, encoding="utf-8", errors="replace")
        return answer.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(Path(__file__)))  # else the checkout is another project's
        return git("rev-parse", "--short", "HEAD") + (" + changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git checkout)"


def peak_memory(device: str = "cpu") -> str:
    """What this process had at most so far, and on a GPU what its tensors took there."""
    text = f"{_peak_bytes() / 2**20:.0f} MiB"
    if device.startswith("cuda"):
        import torch

        text += f" + {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB on the GPU"
    return text


def _peak_bytes() -> int:
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux":  # where getrusage begins with what the process had that started this one
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        if found := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
            return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
