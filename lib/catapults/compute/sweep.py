"""Many experiments: stored and recorded results are reused, the rest is computed, what others need first."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from tqdm import tqdm

from .. import data, devices
from ..checks import whole_number
from ..experiments import Experiment
from . import draws, estimate, record, store
from .made import Made
from .trainings import NotHere

TERMINAL = "CATAPULTS_TERMINAL"  # set by the build command for the notebooks it executes, whose own output is caught


@dataclass(frozen=True)
class Outcome:
    """What became of an experiment: its result and what made it, or why there is none.

    ``computed``: it had to run. ``changed``: for a result of the record, the modules that have changed since.
    """

    experiment: Experiment
    result: Any = None
    made: Made = field(default_factory=dict)
    failure: str = ""
    computed: bool = False
    unfinished: bool = False
    changed: tuple[str, ...] = ()

    @property
    def diverged(self) -> bool:
        """Whether the result, or its history, says so."""
        return bool(getattr(getattr(self.result, "history", self.result), "diverged", False))


class ComputationFailed(Exception):
    """Some experiments gave no result; the message says which and why. What the others gave is kept."""


@dataclass(frozen=True)
class Results(Mapping[Experiment, Any]):
    """Results by experiment. ``outcomes``: by the experiments' keys, in the order in which they were asked for."""

    outcomes: Mapping[str, Outcome]

    def __getitem__(self, experiment: Experiment) -> Any:
        outcome = self.outcomes.get(experiment.key)
        if outcome is None or outcome.failure:
            raise KeyError(f"no result of {experiment.name}" + (f": {outcome.failure}" if outcome else ""))
        return outcome.result

    def __iter__(self) -> Iterator[Experiment]:
        return (outcome.experiment for outcome in self.outcomes.values() if not outcome.failure)

    def __len__(self) -> int:
        return sum(not outcome.failure for outcome in self.outcomes.values())

    @property
    def failures(self) -> list[Outcome]:
        """Those without a result."""
        return [outcome for outcome in self.outcomes.values() if outcome.failure]

    @property
    def diverged(self) -> list[Outcome]:
        """Those whose training diverged, which is a result."""
        return [outcome for outcome in self.outcomes.values() if outcome.diverged]

    def made(self, *experiments: Experiment) -> list[Made]:
        """What made their results."""
        return [self.outcomes[experiment.key].made for experiment in experiments]

    def describe(self) -> str:
        """A sentence: how many trainings there were, how many of them earlier, which diverged and which failed."""
        every = list(self.outcomes.values())
        earlier = sum(not outcome.computed and not outcome.failure for outcome in every)
        parts = [
            f"{len(every)} training{'s' * (len(every) != 1)}" + (f", {earlier} of them earlier" if earlier else "")
        ]
        if self.diverged:
            parts.append(f"{len(self.diverged)} diverged: {'; '.join(o.experiment.name for o in self.diverged)}")
        if self.failures:
            messages = (f"{o.experiment.name}: {' '.join(o.failure.split())}" for o in self.failures)
            parts.append(f"{len(self.failures)} failed: {'; '.join(messages)}")
        return "; ".join(parts).removesuffix(".") + "."

    def complete(self) -> "Results":
        """Itself. Raises :class:`ComputationFailed` where a result is missing."""
        if self.failures:
            raise ComputationFailed(self.describe())
        return self


def sweep(
    experiments: Sequence[Experiment],
    *,
    device: str = "auto",
    scheduler: str | None = None,
    processes: int | None = None,
    hours: float | int | None = None,
    in_order: bool = False,
    again: bool = False,
    progress: bool = False,
) -> Results:
    """The results of all, of which those are computed that neither the store nor the record has.

    Each is computed with one thread and stored once it is there; what one needs from others is computed before it.

    - ``device``: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
    - ``scheduler``: the address of a Dask cluster that is to compute, ``tcp://HOST:PORT``; its workers need the data
      and the same versions of all packages, but no shared disk.
    - ``processes``: of this machine, without a cluster: by default as many as PyTorch uses threads, or one on an
      accelerator. One is this process itself.
    - ``hours``: after which nothing new begins, and long trainings stop at a checkpoint.
    - ``in_order``: keep the order of the experiments, instead of the longest first.
    - ``again``: compute what the record has from other code, too.
    - ``progress``: show it, where there is a terminal.

    An experiment that raises, or whose data cannot be had, does not stop the others; its outcome says why. Whatever
    interrupts a sweep costs the experiments that were running, or what these did since their last checkpoint.

    Raises ``ValueError`` for arguments that are not allowed, for experiments that are to be computed here and that this
    machine cannot hold, and for those whose class other processes cannot import; ``ConnectionError`` for a scheduler
    that does not answer; :class:`catapults.compute.cluster.WorkersDiffer` where its workers would not compute the same.
    """
    check_scheduler(scheduler)
    devices.name_of(device)
    if processes is not None:
        whole_number(1, processes=processes)
    if hours is not None and not hours > 0:
        raise ValueError(f"hours = {hours!r}: allowed are positive numbers, and None")
    wanted = {experiment.key: experiment for experiment in experiments}
    keys = _Keys(device)
    found = _look_up(wanted.values(), keys, again)
    absent = [experiment for key, experiment in wanted.items() if key not in found]
    if absent:
        found |= _computed(absent, keys, device, scheduler, processes, hours, in_order, again, progress)
    return Results({key: found[key] for key in wanted})


def check_scheduler(scheduler: str | None) -> None:
    """Raise ``ValueError`` unless this is ``None`` or the form of a Dask scheduler's address."""
    form = r"(tcp|tls|ws|wss)://(\[[0-9a-fA-F:.]+(%\w+)?\]|[^\s/:]+):\d+"
    if scheduler is not None and not re.fullmatch(form, scheduler):
        raise ValueError(f"scheduler = {scheduler!r}: allowed is an address such as 'tcp://127.0.0.1:8786', or None")


def look_up(experiments: Sequence[Experiment], device: str = "auto", again: bool = False) -> dict[str, Outcome]:
    """By key, what there is: in the store, computed by the code that is here; else in the record. Nothing is computed.

    ``again``: leave out what the record has from other code. Raises :class:`.files.Damaged` for a damaged record.
    """
    return _look_up(experiments, _Keys(device), again)


class _Keys:
    """Of the store. Each data set, of which some have to be read for their identity, is asked for once."""

    def __init__(self, device: str):
        self._device = device
        self._identities: dict[str, str | data.DataError] = {}

    def __call__(self, experiment: Experiment) -> str:
        """Raises as :func:`.store.key`."""
        source = draws.source(experiment)
        if source not in self._identities:
            try:
                self._identities[source] = draws.identity(experiment)
            except data.DataError as error:
                self._identities[source] = error
        if isinstance(identity := self._identities[source], data.DataError):
            raise identity
        return store.key(experiment, self._device, identity)


def _look_up(experiments: Iterable[Experiment], keys: _Keys, again: bool) -> dict[str, Outcome]:
    experiments, found = list(experiments), {}
    stored = store.perhaps(experiments)  # of what is only recorded, no data set is asked for
    for experiment in experiments:
        try:
            kept = store.load(experiment, keys(experiment)) if experiment.key in stored else None
        except (data.DataError, NotHere):
            kept = None
        changed: tuple[str, ...] = ()
        if kept is None and (kept := record.load(experiment)) is not None:
            changed = record.behind(experiment, kept[1])
            if again and changed:
                kept = None
        if kept is not None:
            found[experiment.key] = Outcome(experiment, *kept, changed=changed)
    return found


def _computed(
    experiments: list[Experiment],
    keys: _Keys,
    device: str,
    scheduler: str | None,
    processes: int | None,
    hours: float | int | None,
    in_order: bool,
    again: bool,
    progress: bool,
) -> dict[str, Outcome]:
    """Of these, and of those that they need."""
    from . import workers

    every = _with_needs(experiments)
    outcomes = _look_up(every, keys, again)  # needs are there, or what another process has computed meanwhile
    have = {key: outcome.result for key, outcome in outcomes.items()}
    until = None if hours is None else time.time() + 3600 * hours
    tasks = []
    for experiment in every:
        if experiment.key in have:
            continue
        if scheduler is None:
            estimate.refuse_impossible(experiment, device)
        try:
            key = keys(experiment)
        except (data.DataError, NotHere) as error:
            outcomes[experiment.key] = Outcome(experiment, failure=workers.Failure.of(error).message)
            continue
        place = store.path(experiment, key).with_suffix(".checkpoint")
        needs = tuple(need.key for need in experiment.needs)
        tasks.append(workers.Task(key, experiment, needs, device, place, until))
    by_key = {task.key: task for task in tasks}
    ordered = tasks if in_order else _longest_first(tasks)
    queue, alone = (
        workers.Queue([task for task in ordered if task.experiment.alone == apart], have, until)
        for apart in (False, True)
    )

    def compute() -> Iterator[workers.Finished]:
        yield from _workers(queue, device, scheduler, processes, progress)
        if alone.left:
            yield from workers.serially(alone, progress)

    with closing(compute()) as finished, _Progress(tasks, progress) as show:
        for key, answer in finished:
            task = by_key[key]
            experiment = task.experiment
            if isinstance(answer, workers.Failure):
                outcomes[experiment.key] = Outcome(experiment, failure=answer.message, unfinished=answer.unfinished)
            else:
                result, made = answer
                if store.save(experiment, result, made, key):
                    task.checkpoint.unlink(missing_ok=True)
                queue.done(experiment.key, result)
                outcomes[experiment.key] = Outcome(experiment, result, made, computed=True)
            show(task, outcomes[experiment.key])
    left = {task.key for task in (*queue.left, *alone.left)}
    for task in (task for task in tasks if task.key in left):  # needs first
        needs = [need for need in task.experiment.needs if need.key not in have]
        failed = [need.name for need in needs if not outcomes[need.key].unfinished]
        why = f"it needs {', '.join(failed)}, which failed" if failed else f"no time was left of {hours} hours"
        outcomes[task.experiment.key] = Outcome(task.experiment, failure=why, unfinished=not failed)
    return outcomes


def _longest_first(tasks: list[Any]) -> list[Any]:
    """By the estimated time from the beginning of a task to the end of the last one that needs it.

    ``tasks``: those that others need before these.
    """
    remaining: dict[str, float] = {}
    for task in reversed(tasks):
        key = task.experiment.key
        remaining[key] = remaining.get(key, 0.0) + estimate.seconds(task.experiment)
        for need in task.needs:
            remaining[need] = max(remaining.get(need, 0.0), remaining[key])
    return sorted(tasks, key=lambda task: -remaining[task.experiment.key])


def _with_needs(experiments: list[Experiment]) -> list[Experiment]:
    """They and what they need, each once, needs first."""
    every: dict[str, Experiment] = {}

    def put(experiment: Experiment) -> None:
        if experiment.key not in every:
            for need in experiment.needs:
                put(need)
            every[experiment.key] = experiment

    for experiment in experiments:
        put(experiment)
    return list(every.values())


def _workers(queue: Any, device: str, scheduler: str | None, processes: int | None, progress: bool) -> Iterator[Any]:
    from . import workers

    if scheduler is not None:
        from .cluster import on_cluster  # Dask takes a second to import

        return on_cluster(queue, scheduler)
    if processes is None:
        import torch

        processes = min(torch.get_num_threads(), len(queue.left)) if devices.name_of(device) == "cpu" else 1
    return workers.serially(queue, progress) if processes <= 1 else workers.in_processes(queue, processes)


class _Progress:
    """A bar over the estimated seconds of all tasks, whose estimate of the time left learns from those done."""

    def __init__(self, tasks: list[Any], wanted: bool):
        self._cost = {task.key: estimate.seconds(task.experiment) for task in tasks}
        self._wanted, self._number, self._done = wanted, len(tasks), 0

    def __enter__(self) -> Callable[[Any, Outcome], None]:
        self._terminal = _terminal(self._wanted)
        file = self._terminal.__enter__()
        form = "{desc} {percentage:3.0f}% |{bar}| {elapsed}, about {remaining} left{postfix}"
        total = max(sum(self._cost.values()), 1e-3)
        self._bar = tqdm(desc=self._title, total=total, file=file, disable=not file, bar_format=form)
        return self._show

    def __exit__(self, *error: Any) -> None:
        self._bar.close()
        self._terminal.__exit__(*error)

    @property
    def _title(self) -> str:
        return f"{self._done} of {self._number} trainings"

    def _show(self, task: Any, outcome: Outcome) -> None:
        self._done += 1
        what = "failed" if outcome.failure else "diverged" if outcome.diverged else "done"
        self._bar.set_description_str(self._title, refresh=False)
        self._bar.set_postfix_str(f"{what}: {outcome.experiment.name}", refresh=False)
        self._bar.update(self._cost[task.key])


@contextmanager
def _terminal(wanted: bool) -> Iterator[TextIO | None]:
    """The terminal of this process or of the build that executes this notebook; ``None`` where there is none."""
    name = os.environ.get(TERMINAL)
    if wanted and sys.__stderr__ and sys.__stderr__.isatty():
        yield sys.__stderr__
    elif wanted and name and os.access(name, os.W_OK):
        with open(os.open(name, os.O_WRONLY | os.O_NOCTTY), "w", encoding="utf-8") as file:  # noqa: PTH123 (a descriptor)
            yield file
    else:
        yield None
