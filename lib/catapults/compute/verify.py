"""Training a part of the record again, and comparing: what is recorded is what the code gives."""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..experiments import Experiment
from ..experiments.descent import Measured
from ..experiments.expansion import Expanded
from ..experiments.fits import Fitted, Strong
from . import record
from .made import Made

EARLY = 3  # iterations, before which no training is chaotic
TOLERANCE = (
    1e-3  # of their numbers, relatively: another kind of processor rounds otherwise, a step or two multiply that
)


@dataclass(frozen=True)
class Comparison:
    """A recorded result beside one that was computed now."""

    experiment: Experiment
    difference: float  # the largest relative one of the early numbers; infinite where they cannot be compared
    drawn: bool  # whether the tensors that were drawn are those of the record
    result: Any
    failure: str = ""

    @property
    def lacks_data(self) -> bool:
        """Whether it could not be computed here, as its data set cannot be had."""
        return self.failure.startswith("DataUnavailable:")

    @property
    def same(self) -> bool:
        return not self.failure and self.drawn and self.difference <= TOLERANCE


def chosen(
    experiments: Sequence[Experiment], seconds: float | int, commit: str, processes: int = 1
) -> list[Experiment]:
    """Those of the recorded experiments that are to be computed again, so many seconds by so many processes.

    The choice rotates: it depends on the commit. Never chosen is what takes longer than the seconds, or needs what is
    not recorded.
    """
    entries = {e.key: (e, record.entry(e)) for e in experiments}
    known = [(e, entry.made["seconds"]) for e, entry in entries.values() if entry.made and _comparable(e)]
    random.Random(commit).shuffle(known)
    found, left = [], seconds * processes
    for experiment, cost in known:
        if cost <= min(left, seconds):
            found.append(experiment)
            left -= cost
    return found


def verify(experiments: Sequence[Experiment], device: str = "cpu", processes: int = 1) -> Iterator[Comparison]:
    """Compute recorded experiments again and compare each; what they need comes from the record."""
    from . import workers

    tasks, have = [], {}
    for experiment in experiments:
        for need in experiment.needs:
            if (kept := record.load(need)) is not None:
                have[need.key] = kept[0]
        needs = tuple(need.key for need in experiment.needs)
        tasks.append(workers.Task(experiment.key, experiment, needs, device))
    queue = workers.Queue(tasks, have)
    finished = workers.serially(queue) if processes == 1 else workers.in_processes(queue, processes)
    by_key = {experiment.key: experiment for experiment in experiments}
    for key, answer in finished:
        experiment = by_key[key]
        if isinstance(answer, workers.Failure):
            yield Comparison(experiment, math.inf, True, None, answer.message)
            continue
        yield _compared(experiment, record.load(experiment), answer)


def _compared(experiment: Experiment, then: tuple[Any, Made], now: tuple[Any, Made]) -> Comparison:
    theirs, ours = early(then[0]), early(now[0])
    differences = [_difference(theirs[name], ours[name]) for name in theirs]
    return Comparison(experiment, max(differences, default=0.0), then[1]["drawn"] == now[1]["drawn"], now[0])


def _comparable(experiment: Experiment) -> bool:
    """Whether it has numbers to compare, as timings have not, and all that it needs is recorded."""
    there = all(record.entry(need).state != "missing" for need in experiment.needs)
    return experiment.Result in (Measured, Expanded, Fitted, Strong) and there


def early(result: Any) -> Mapping[str, np.ndarray]:
    """The numbers of the first iterations."""
    if isinstance(result, Measured):
        h = result.history
        columns = {"loss": h.loss, "norm": h.kernel_norm, "critical": h.critical_learning_rate}
        batch = {"rate": h.learning_rate, "batch": h.batch_loss, "of batch": h.batch_critical_learning_rate}
        found = {name: column[:EARLY] for name, column in (columns | batch).items()}
    elif isinstance(result, Expanded):
        found = {"loss": result.loss[:, :EARLY], "norm": result.kernel_norm[:, :EARLY]}
    elif isinstance(result, Fitted):
        critical = np.array([result.initial_critical_learning_rate])
        found = {"critical": critical, "validation": result.validation[:1], "loss": result.loss[:EARLY]}
    else:
        found = {}
    parameters = np.array([result.parameters])
    return found | {"parameters": parameters}


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or (np.isfinite(a) != np.isfinite(b)).any():
        return math.inf
    there = np.isfinite(a)
    scale = np.maximum(np.abs(a[there]), np.abs(b[there]))
    return float(np.max(np.abs(a[there] - b[there]) / np.where(scale == 0, 1, scale), initial=0.0))


def in_time(
    comparisons: Iterator[Comparison], minutes: float | int, say: Callable[[Comparison], None]
) -> list[Comparison]:
    """As many of the comparisons as fit into the minutes."""
    until, done = time.monotonic() + 60 * minutes, []
    for comparison in comparisons:
        done.append(comparison)
        say(comparison)
        if time.monotonic() > until:
            break
    return done
