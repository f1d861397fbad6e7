"""Who runs experiments: this process, others of this machine, or a Dask cluster.

Each is a generator that hands back an experiment's key with what it gave, as soon as that is there.
"""

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any

from . import store
from .processes import pool, threads
from .store import Experiment

_ATTEMPTS = 3  # of an experiment that runs alone and whose process dies


@dataclass(frozen=True)
class Failure:
    """Why an experiment gave no result."""

    message: str

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        return cls(f"{type(error).__name__}: {error}")


Finished = tuple[str, Any]  # a key with its result or Failure
Experiments = Mapping[str, Experiment]  # by key


def attempt(experiment: Experiment) -> Any:
    """What the experiment gives with one thread: its result, or a :class:`Failure` where it raises."""
    try:
        with threads(1):
            result = experiment.run()
        store.check(experiment, result)
        return result
    except Exception as error:
        return Failure.of(error)


def serially(experiments: Experiments) -> Iterator[Finished]:
    """In this process, in their order."""
    for key, experiment in experiments.items():
        yield key, attempt(experiment)


def in_processes(experiments: Experiments, number: int) -> Iterator[Finished]:
    """In so many processes at a time. Where one dies, the experiments that were running are tried again, each alone."""
    left = dict(experiments)
    with threads(1):
        while left:
            suspects = yield from _together(left, number)
            for key in suspects:
                alone = {key: left.pop(key)}
                for _ in range(_ATTEMPTS):
                    if not (yield from _together(alone, 1)):
                        break
                else:
                    yield key, Failure(f"its process died {_ATTEMPTS} times, perhaps for want of memory")


def _together(left: dict[str, Experiment], number: int) -> Generator[Finished, None, list[str]]:
    """In one pool, until all are done or a process dies; returns the keys of those that were running then.

    What is done is taken out of ``left``.
    """
    waiting = iter(list(left.items()))
    running: dict[Future, str] = {}
    died = False
    with pool(min(number, len(left))) as executor:
        while not died:
            try:
                for key, experiment in islice(waiting, number - len(running)):
                    running[executor.submit(attempt, experiment)] = key
            except BrokenProcessPool:
                died = True
            wait(running, return_when=FIRST_COMPLETED)
            died = died or any(isinstance(f.exception(), BrokenProcessPool) for f in running if f.done())
            if died:
                wait(running)
            for future in [f for f in running if f.done() and not isinstance(f.exception(), BrokenProcessPool)]:
                key = running.pop(future)
                del left[key]
                yield key, Failure.of(error) if (error := future.exception()) else future.result()
            if not running:
                break
    return list(running.values())
