"""Computing on a Dask cluster, whose workers have to compute exactly what this process would."""

import asyncio
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import distributed
from distributed.comm import connect
from distributed.utils import LoopRunner

from .. import data
from . import draws, estimate, fingerprint, store
from .sweep import ComputationFailed
from .trainings import source_of
from .workers import Answer, Failure, Finished, Queue, Task, attempt

_PATIENCE = 5  # seconds for the scheduler to answer
_AHEAD = 2  # tasks for each thread of the workers: one that runs and one that waits


class WorkersDiffer(ComputationFailed):
    """A worker would not compute what this process does; the message says which one, and in what it differs."""


def on_cluster(queue: Queue, scheduler: str) -> Iterator[Finished]:
    """On the workers of the scheduler at this address, as in :mod:`.workers`. Dask tries again where one dies.

    What a task needs from others goes with it. Raises ``ConnectionError`` when the scheduler does not answer, and
    :class:`WorkersDiffer`.
    """
    if not queue.left:
        return
    with _client(scheduler) as client:
        _compare(client, scheduler, queue.left)
        running: dict[distributed.Future, Task] = {}

        def submit_ready() -> list[distributed.Future]:
            """As many as keep the workers busy: with each goes what it needs, of which the scheduler has one copy."""
            fresh, most = {}, _AHEAD * max(1, sum(client.nthreads().values()))
            while len(running) + len(fresh) < most and (taken := queue.take()):
                task, needed = taken
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
                    fresh[client.submit(_attempt_there, task, needed, _surroundings(task), pure=False)] = task
            running.update(fresh)
            return list(fresh)

        try:
            finished = distributed.as_completed(submit_ready(), loop=client.loop)
            for future in finished:
                answer = Failure.of(error) if (error := future.exception()) else future.result()
                if isinstance(answer, WorkersDiffer):
                    raise _refusal(scheduler, str(answer))
                future.release()
                yield running.pop(future).key, answer
                finished.update(submit_ready())
        finally:
            client.cancel(list(running))


def _client(scheduler: str) -> distributed.Client:
    try:
        LoopRunner(asynchronous=False).run_sync(_greet, scheduler)
        return distributed.Client(scheduler, timeout=_PATIENCE, set_as_default=False)
    except Exception as error:  # Dask has many, by what answers at the address
        reason = f"no Dask scheduler answers there ({str(error) or type(error).__name__})"
        raise ConnectionError(f"scheduler = {scheduler!r}: {reason}; allowed is the address of one that runs") from None


async def _greet(scheduler: str) -> None:
    """Connect and part. For something else at the address to introduce itself, a client would wait without end."""
    comm = await asyncio.wait_for(connect(scheduler, timeout=_PATIENCE), _PATIENCE)
    await comm.close()


def _compare(client: distributed.Client, scheduler: str, tasks: list[Task]) -> None:
    """Refuse the cluster before any work if a worker that is there now differs."""
    for task in {(source_of(task.experiment), task.device): task for task in tasks}.values():
        expected = _surroundings(task)
        for worker, found in client.run(_surroundings, task, on_error="return").items():
            difference = Failure.of(found).message if isinstance(found, Exception) else _difference(expected, found)
            if difference:
                raise _refusal(scheduler, f"worker {worker}: {difference}")


def _surroundings(task: Task) -> dict[str, Any]:
    return store.surroundings(source_of(task.experiment), task.device)


def _attempt_there(task: Task, needed: tuple[Any, ...], expected: dict[str, Any]) -> Answer | WorkersDiffer:
    """On a worker, which may have come after the others were compared: an attempt, or in what the worker differs.

    Its checkpoint is on the worker, in the folder of the results there.
    """
    try:
        difference = _difference(expected, _surroundings(task))
        if not difference and store.key(task.experiment, task.device) != task.key:
            difference = f"data: its {draws.dataset(task.experiment)} is not the one here"
        estimate.refuse_impossible(task.experiment, task.device)
    except (data.DataError, ValueError) as error:
        return Failure.of(error)
    if difference:
        return WorkersDiffer(f"worker {distributed.get_worker().address}: {difference}")
    place = store.path(task.experiment, task.key).with_suffix(".checkpoint")
    answer = attempt(replace(task, checkpoint=place), needed)
    if not isinstance(answer, Failure):
        place.unlink(missing_ok=True)
    return answer


def _difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """What a worker has, where it is not what is expected."""
    if found["device"] != expected["device"]:
        return f"its device is {found['device']}, not {expected['device']}"
    if different := fingerprint.changed(expected["dependencies"], found["dependencies"]):
        versions = (f"{n} {found['dependencies'].get(n)}, not {expected['dependencies'].get(n)}" for n in different)
        return f"it has {'; '.join(versions)}"
    if different := fingerprint.changed(expected["library"], found["library"]):
        return f"its library has another {', '.join(different)}"
    return ""


def _refusal(scheduler: str, difference: str) -> WorkersDiffer:
    allowed = "allowed are workers with the library, dependencies, data and device of this process"
    return WorkersDiffer(f"scheduler = {scheduler!r}: {difference}; {allowed}")
