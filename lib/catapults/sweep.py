"""Many independent experiments: what is stored is taken; the rest runs in processes of this machine or on a cluster."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import torch
from tqdm import tqdm

from . import data, devices, store, workers
from .checks import whole_number
from .store import Experiment

TERMINAL = "CATAPULTS_TERMINAL"  # set by the build command for the notebooks it executes, whose own output is caught


@dataclass(frozen=True)
class Outcome:
    """What became of an experiment: its result, or why there is none. ``cached``: it did not have to run."""

    experiment: Experiment
    result: Any = None
    failure: str = ""
    cached: bool = False

    @property
    def diverged(self) -> bool:
        """Whether the result has a field ``diverged`` that says so."""
        return bool(getattr(self.result, "diverged", False))


@dataclass(frozen=True)
class Sweep:
    """The outcomes in the order of the experiments; equal experiments have one outcome between them."""

    outcomes: tuple[Outcome, ...]

    @property
    def results(self) -> list[Any]:
        """Those there are."""
        return [outcome.result for outcome in self.outcomes if not outcome.failure]

    @property
    def failures(self) -> dict[str, str]:
        """Why there is no result, by the experiments' names."""
        return {outcome.experiment.name: outcome.failure for outcome in self.outcomes if outcome.failure}

    @property
    def diverged(self) -> list[str]:
        """The names of the experiments whose training diverged, which is a result."""
        return list(dict.fromkeys(outcome.experiment.name for outcome in self.outcomes if outcome.diverged))

    def describe(self) -> str:
        """A sentence: how many trainings there were, how many of them earlier, which diverged and which failed."""
        different = {id(outcome): outcome for outcome in self.outcomes}.values()
        number, cached = len(different), sum(outcome.cached for outcome in different)
        parts = [f"{number} training{'s' * (number != 1)}" + (f", {cached} taken from earlier ones" if cached else "")]
        if self.diverged:
            parts.append(f"{len(self.diverged)} diverged: {'; '.join(self.diverged)}")
        if self.failures:
            messages = (f"{name}: {' '.join(message.split())}" for name, message in self.failures.items())
            parts.append(f"{len(self.failures)} failed: {'; '.join(messages)}")
        return "; ".join(parts).removesuffix(".") + "."


def sweep(
    experiments: Sequence[Experiment],
    *,
    scheduler: str | None = None,
    processes: int | None = None,
    progress: bool = False,
) -> Sweep:
    """Run the experiments whose results are not stored, each with one thread, and store each result once it is there.

    ``scheduler``: the address of a Dask cluster that is to run them, ``tcp://HOST:PORT``; its workers need the data and
    the same versions of all packages, but no disk in common. Without it, ``processes`` of this machine do: by default
    as many as PyTorch uses threads, or one if an experiment runs on an accelerator. One is this process itself. A
    script that wants several has to call this function under ``if __name__ == "__main__":``.

    An experiment that raises, or whose data cannot be had, does not stop the others; its outcome says why. Whatever
    interrupts a sweep costs the experiments that were running: the next call goes on from there. ``progress``: show
    it, where there is a terminal.

    Raises ``ValueError`` for ``processes`` below 1, a ``scheduler`` that is no address, and experiments of a class that
    is not defined in a file; ``ConnectionError`` for a scheduler that does not answer;
    :class:`catapults.cluster.WorkersDiffer` where its workers would not compute the same.
    """
    check_scheduler(scheduler)
    if processes is not None:
        whole_number(1, processes=processes)
    keys, waiting, outcomes = _look_up(experiments)
    if scheduler is None:
        finished = _here(waiting, processes)
    else:
        from .cluster import on_cluster  # Dask takes a second to import

        finished = on_cluster(waiting, scheduler)
    with (
        closing(finished),
        _terminal(progress) as file,
        tqdm(desc="trainings", total=len(set(keys)), initial=len(outcomes), file=file, disable=not file) as bar,
    ):
        for key, answer in finished:
            experiment = waiting[key]
            if isinstance(answer, workers.Failure):
                outcomes[key] = Outcome(experiment, failure=answer.message)
            else:
                store.save(experiment, answer, key)
                outcomes[key] = Outcome(experiment, answer)
            bar.set_postfix_str(experiment.name, refresh=False)
            bar.update()
    return Sweep(tuple(outcomes[key] for key in keys))


def check_scheduler(scheduler: str | None) -> None:
    """Raise ``ValueError`` unless this is ``None`` or the form of a Dask scheduler's address."""
    if scheduler is not None and not re.fullmatch(r"(tcp|tls|ws|wss)://[^\s/:]+:\d+", scheduler):
        raise ValueError(f"scheduler = {scheduler!r}: allowed is an address such as 'tcp://127.0.0.1:8786', or None")


def _look_up(experiments: Sequence[Experiment]) -> tuple[list[str], dict[str, Experiment], dict[str, Outcome]]:
    """The experiments' keys; by key, those that have to run, and the outcomes of the others."""
    identities: dict[str, str | data.DataError] = {}  # which can take reading a whole data set
    for name in {experiment.dataset for experiment in experiments}:
        try:
            identities[name] = data.identity(name)
        except data.DataError as error:
            identities[name] = error
    keys: list[str] = []
    waiting: dict[str, Experiment] = {}
    outcomes: dict[str, Outcome] = {}
    for experiment in experiments:
        identity = identities[experiment.dataset]
        if isinstance(identity, data.DataError):
            keys.append(repr(experiment))
            outcomes[keys[-1]] = Outcome(experiment, failure=workers.Failure.of(identity).message)
            continue
        key = store.key(experiment, identity)
        if key not in keys:
            result = store.load(experiment, key)
            if result is None:
                waiting[key] = experiment
            else:
                outcomes[key] = Outcome(experiment, result, cached=True)
        keys.append(key)
    return keys, waiting, outcomes


def _here(experiments: workers.Experiments, processes: int | None) -> Iterator[workers.Finished]:
    """By workers of this machine."""
    if processes is None:
        accelerated = any(devices.device(experiment.device).type != "cpu" for experiment in experiments.values())
        processes = 1 if accelerated else torch.get_num_threads()
    return workers.serially(experiments) if processes == 1 else workers.in_processes(experiments, processes)


@contextmanager
def _terminal(wanted: bool) -> Iterator[TextIO | None]:
    """The terminal of this process or of the build that executes this notebook; ``None`` where there is none."""
    name = os.environ.get(TERMINAL)
    if wanted and sys.__stderr__ and sys.__stderr__.isatty():
        yield sys.__stderr__
    elif wanted and name and os.access(name, os.W_OK):
        with open(os.open(name, os.O_WRONLY | os.O_NOCTTY), "w") as file:  # noqa: PTH123 (a descriptor)
            yield file
    else:
        yield None
