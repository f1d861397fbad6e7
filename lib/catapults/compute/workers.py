"""Who computes: this process, others of this machine, or a Dask cluster.

Each is a generator that hands back a task's key with what it gave, as soon as that is there.
"""

import time
import traceback
import warnings
from collections.abc import Generator, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import data
from ..experiments import Experiment
from . import draws, files
from .checkpoints import Checkpoint, OutOfTime
from .made import Made, code, made
from .processes import pool, threads
from .trainings import compute, source_of

_ATTEMPTS = 3  # of an experiment that runs alone and whose process dies


@dataclass(frozen=True)
class Failure:
    """Why an experiment gave no result. ``unfinished``: it was stopped at a time limit and can go on."""

    message: str
    unfinished: bool = False

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        return cls(f"{type(error).__name__}: {error}", isinstance(error, OutOfTime))


@dataclass(frozen=True)
class Task:
    """An experiment that is to be computed, and under what key it is kept."""

    key: str
    experiment: Experiment
    needs: tuple[str, ...] = ()  # keys of what it takes from others
    device: str = "cpu"
    checkpoint: Path | None = None
    until: float | None = None  # time.time() at which it is to stop


Answer = tuple[Any, Made] | Failure
Finished = tuple[str, Answer]
Taken = tuple[Task, tuple[Any, ...]]  # with the results that it needs


class Queue:
    """Tasks in their order, and the results that they need, which are there or come from others of the tasks."""

    def __init__(self, tasks: list[Task], results: dict[str, Any], until: float | None = None):
        self._waiting = {task.key: task for task in tasks}
        self._results, self._until = results, until

    def take(self) -> Taken | None:
        """The next task whose needs are there, with these; ``None`` if there is none now, or no time."""
        if self._until is not None and time.time() >= self._until:
            return None
        for key, task in self._waiting.items():
            if all(need in self._results for need in task.needs):
                del self._waiting[key]
                return task, tuple(self._results[need] for need in task.needs)
        return None

    def done(self, key: str, result: Any) -> None:
        self._results[key] = result

    @property
    def left(self) -> list[Task]:
        """Those that nobody has taken."""
        return list(self._waiting.values())


def attempt(task: Task, needed: tuple[Any, ...], progress: bool = False) -> Answer:
    """What the experiment gives with one thread, and what made it; a :class:`Failure` where it raises.

    Its checkpoint stays until whoever keeps the result removes it.
    """
    experiment = task.experiment
    checkpoint = None if task.checkpoint is None else Checkpoint(task.checkpoint, task.until)
    try:
        with threads(1), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*diverge", category=RuntimeWarning)  # which the result says
            if task.until is not None and time.time() >= task.until:
                raise OutOfTime("no time was left")
            started, by = time.perf_counter(), code(source_of(experiment))
            drawn = draws.draw(experiment)
            result = compute(experiment, drawn, needed, task.device, progress=progress, checkpoint=checkpoint)
            seconds = time.perf_counter() - started
        files.check(experiment.Result, result)
        about = made(by, "" if drawn is None else drawn.digest, task.device, seconds)
    except Exception as error:
        if not isinstance(error, ValueError | OutOfTime | OSError | data.DataError):
            warnings.warn(f"{experiment.name}: {traceback.format_exc()}", stacklevel=2)
        return Failure.of(error)
    return result, about


def serially(queue: Queue, progress: bool = False) -> Iterator[Finished]:
    """In this process, in their order."""
    while taken := queue.take():
        task, needed = taken
        yield task.key, attempt(task, needed, progress)


def in_processes(queue: Queue, number: int) -> Iterator[Finished]:
    """In so many processes at a time. Where one dies, the experiments that were running are tried again, each alone."""
    with threads(1):
        while suspects := (yield from _together(queue, number)):
            for task, needed in suspects:
                for _ in range(_ATTEMPTS):
                    if not (yield from _together(Queue([task], dict(zip(task.needs, needed, strict=True))), 1)):
                        break
                else:
                    yield task.key, Failure(f"its process died {_ATTEMPTS} times, perhaps for want of memory")


def _together(queue: Queue, number: int) -> Generator[Finished, None, list[Taken]]:
    """In one pool, until all are done or a process dies; returns what was running then."""
    running: dict[Future, Taken] = {}
    suspects: list[Taken] = []
    with pool(number) as submit:
        while not suspects:
            while len(running) < number and (taken := queue.take()):
                try:
                    running[submit(attempt, *taken)] = taken
                except BrokenProcessPool:
                    suspects.append(taken)
                    break
            if not running:
                break
            wait(running, return_when=ALL_COMPLETED if suspects else FIRST_COMPLETED)
            if any(isinstance(f.exception(), BrokenProcessPool) for f in running if f.done()):
                wait(running)
            for future in [f for f in running if f.done()]:
                taken = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    suspects.append(taken)
                else:
                    yield taken[0].key, Failure.of(error) if error else future.result()
    return suspects
