"""Peak memory of a contestant in a fresh process: ``python benchmarks/memory.py FCN "our step"``."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def in_fresh_process(case: str, contestant: str) -> float | None:
    """MiB, or None where the system has no /proc."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, __file__, case, contestant]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8").stdout)


def of_measurement(case: str, contestant: str) -> float | None:
    """The same of a measurement of the monitor's benchmark."""
    return in_fresh_process(f"monitor: {case}", contestant)


def of_step(network: str) -> float | None:
    """The same of a step of the benchmark of extended networks."""
    return in_fresh_process(f"extended: {network}", "our step")


def peak(run: Callable[[], object], process: int, times: int = 3) -> float:
    """MiB by which the process' resident memory rises at most over what it was before the first run.

    Read from /proc, since ``ru_maxrss`` of a child process starts at its parent's peak.
    """
    Path(f"/proc/{process}/clear_refs").write_text("5", encoding="utf-8")  # sets the peak to the present value
    before = _kib(process, "VmRSS")
    for _ in range(times):
        run()
    return (_kib(process, "VmHWM") - before) / 1024


def _kib(process: int, field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{process}/status").read_text(encoding="utf-8"))[1])


if __name__ == "__main__":
    case, contestant = sys.argv[1:]
    if case.startswith("monitor: "):
        import os

        import test_monitor

        run = test_monitor.CONTESTANTS[contestant](test_monitor.WATCHED[case.removeprefix("monitor: ")])
        print(peak(run, os.getpid(), 1))
        sys.exit()
    if case.startswith("extended: "):
        import os

        import test_extended

        print(peak(test_extended.step(case.removeprefix("extended: ")), os.getpid(), 1))
        sys.exit()
    from contestants import AT_SCALE, CASES, CONTESTANTS

    with CONTESTANTS[contestant]((CASES | AT_SCALE)[case]) as ready:
        print(peak(ready.run, ready.process))
