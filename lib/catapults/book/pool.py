"""Executing all runs of the book, several at a time, each in a kernel of its own."""

import functools
import itertools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from .. import devices, processes
from ..processes import threads
from . import runs as runs_file
from .execute import Result, execute, look_up
from .executed import verdicts
from .runs import Run

_MOST_JOBS = 4  # each takes up to a gigabyte of memory


def execute_all(
    runs: Mapping[str, Run],
    chapters: Path,
    preset: str,
    store: Path,
    say: Callable[[str], None],
    force: bool = False,
    jobs: int | None = None,
) -> dict[str, Result]:
    """The results by name; ``runs`` are those of the folder ``chapters``.

    ``jobs`` runs are executed at a time and share the cores; by default as many as there are cores, four at most, or
    one where there is an accelerator. A run that is ``long`` comes first; one that has to be ``alone`` comes last and
    has all cores.
    """
    jobs = jobs or _default_jobs()
    results: dict[str, Result] = {}

    def one_by_one(some: list[Run]) -> None:
        for run in some:
            say(f"{run.name}: executing")
            started = time.monotonic()
            results[run.name] = execute(run.name, run.chapter, run.settings[preset], preset, store, force)
            _say_result(run.name, results[run.name], time.monotonic() - started, say)

    together = sorted((run for run in runs.values() if not run.alone), key=lambda run: not run.long)
    with threads(max(1, torch.get_num_threads() // jobs)):
        if jobs == 1:
            one_by_one(together)
        else:
            for run in together:
                found = look_up(run.name, run.chapter, run.settings[preset], preset, store, force)
                if isinstance(found, Result):
                    results[run.name] = found
                    _say_result(run.name, found, 0.0, say)
            left = [run.name for run in together if run.name not in results]
            if left:
                results |= _side_by_side(left, (chapters, preset, store, force), say, jobs)
            one_by_one([run for run in together if run.name not in results])
    one_by_one([run for run in runs.values() if run.alone])
    return {name: results[name] for name in runs}


def _default_jobs() -> int:
    return min(torch.get_num_threads(), _MOST_JOBS) if devices.device("auto").type == "cpu" else 1


def _side_by_side(names: list[str], arguments: tuple, say: Callable[[str], None], jobs: int) -> dict[str, Result]:
    """In processes: neither papermill nor Python's parser is made for threads. If one dies, the results so far."""
    results: dict[str, Result] = {}
    waiting = iter(names)
    running: dict[Future, tuple[str, float]] = {}
    with processes.pool(jobs) as pool:
        try:
            while len(results) < len(names):
                for name in itertools.islice(waiting, jobs - len(running)):
                    say(f"{name}: executing")
                    running[pool.submit(_in_worker, name, *arguments)] = name, time.monotonic()
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    name, started = running.pop(future)
                    results[name] = future.result()
                    _say_result(name, results[name], time.monotonic() - started, say)
        except BrokenProcessPool:
            say("a process of the build has died, perhaps for want of memory: the rest one after the other")
    return results


def _in_worker(name: str, chapters: Path, preset: str, store: Path, force: bool) -> Result:
    run = _loaded(chapters)[name]
    return execute(name, run.chapter, run.settings[preset], preset, store, force, progress=False)


@functools.lru_cache(1)
def _loaded(chapters: Path) -> dict[str, Run]:
    return runs_file.load(chapters)


def _say_result(name: str, result: Result, seconds: float, say: Callable[[str], None]) -> None:
    if result.missing_data:
        say(f"{name}: not run, data set missing\n{result.missing_data}")
    elif result.failure:
        say(f"{name}: FAILED")
    else:
        counts = ", ".join(f"{number} {verdict}" for verdict, number in verdicts(result.notebook).items() if number)
        say(f"{name}: {'cached' if result.cached else f'{seconds:.1f} s'}; claims: {counts or 'none'}")
