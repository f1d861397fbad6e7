"""Running experiments on a Dask cluster, whose workers have to compute exactly what this process would."""

import asyncio
from collections.abc import Iterator
from typing import Any

import distributed
from distributed.comm import connect
from distributed.utils import LoopRunner

from . import data, store
from .store import Experiment
from .workers import Experiments, Failure, Finished, attempt

_PATIENCE = 5  # seconds for the scheduler to answer


class WorkersDiffer(RuntimeError):
    """A worker would not compute what this process does; the message says which one, and in what it differs."""


def on_cluster(experiments: Experiments, scheduler: str) -> Iterator[Finished]:
    """On the workers of the scheduler at this address, as in :mod:`catapults.workers`. Dask tries again where one dies.

    Raises ``ConnectionError`` when the scheduler does not answer, and :class:`WorkersDiffer`.
    """
    if not experiments:
        return
    with _client(scheduler) as client:
        _compare(client, scheduler, experiments)
        running = {}
        for key, experiment in experiments.items():
            running[client.submit(_attempt_there, experiment, key, store.surroundings(experiment), pure=False)] = key
        try:
            for future in distributed.as_completed(running, loop=client.loop):
                answer = Failure.of(error) if (error := future.exception()) else future.result()
                if isinstance(answer, WorkersDiffer):
                    raise _refusal(scheduler, str(answer))
                future.release()
                yield running[future], answer
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


def _compare(client: distributed.Client, scheduler: str, experiments: Experiments) -> None:
    """Refuse the cluster before any work if a worker that is there now differs."""
    for experiment in {(type(e), e.device): e for e in experiments.values()}.values():
        expected = store.surroundings(experiment)
        for worker, found in client.run(store.surroundings, experiment, on_error="return").items():
            difference = Failure.of(found).message if isinstance(found, Exception) else _difference(expected, found)
            if difference:
                raise _refusal(scheduler, f"worker {worker}: {difference}")


def _attempt_there(experiment: Experiment, key: str, expected: dict[str, Any]) -> Any:
    """On a worker, which may have come after the others were compared: an attempt, or in what the worker differs."""
    try:
        difference = _difference(expected, store.surroundings(experiment))
        if not difference and store.key(experiment) != key:
            difference = f"data: its {experiment.dataset} is not the one here"
    except (data.DataError, ValueError) as error:
        return Failure.of(error)
    if difference:
        return WorkersDiffer(f"worker {distributed.get_worker().address}: {difference}")
    return attempt(experiment)


def _difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """What a worker has, where it is not what is expected."""
    if found["device"] != expected["device"]:
        return f"its device is {found['device']}, not {expected['device']}"
    if different := _different(expected["dependencies"], found["dependencies"]):
        versions = (f"{n} {found['dependencies'].get(n)}, not {expected['dependencies'].get(n)}" for n in different)
        return f"it has {'; '.join(versions)}"
    if different := _different(expected["library"], found["library"]):
        return f"its library has another {', '.join(different)}"
    return ""


def _different(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def _refusal(scheduler: str, difference: str) -> WorkersDiffer:
    allowed = "allowed are workers with the library, dependencies, data and device of this process"
    return WorkersDiffer(f"scheduler = {scheduler!r}: {difference}; {allowed}")
