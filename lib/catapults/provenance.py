"""Where a page comes from: what made it, on what, when and how long it took."""

import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from .display import Text, table

PRESET = "CATAPULTS_PRESET"  # set by the build command for the notebooks it executes


def provenance(seed: int, device: str) -> Text:
    """The box at the end of a chapter. Run time counts from the start of the process."""
    facts = {
        "preset": os.environ.get(PRESET, "none: executed by itself"),
        "device": device_name(device),
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "seed": str(seed),
        "commit": commit(),
        "executed": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "run time": f"{time.time() - psutil.Process().create_time():.1f} s",
        "peak memory": _peak_memory(device),
    }
    return Text(table(("made with", ""), facts.items()), {"kind": "provenance"} | facts)


def device_name(device: str, threads: int | None = None) -> str:
    """``cpu (2 threads, x86_64)`` or the accelerator's name; by default with the threads that PyTorch uses now."""
    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = threads or torch.get_num_threads()
    return f"{device} ({threads} thread{'s' * (threads > 1)}, {platform.machine()})"


def commit() -> str:
    """The short hash of the commit that the library is at, with ``+ changes`` if files differ from it."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", str(Path(__file__)))  # else the checkout is another project's
        return git("rev-parse", "--short", "HEAD") + (" + changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git checkout)"


def _peak_memory(device: str) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    text = f"{peak / 2**20:.0f} MiB"
    if device.startswith("cuda"):
        text += f" + {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB on the GPU"
    return text
