"""Where catapults and spikes are in a training run, by definitions that can be counted with.

Section 2 of the paper describes a catapult and gives no rule for counting. Ours: while the learning rate exceeds the
critical one, or with the very step in which it stops to, the loss rises to at least ``RISE`` times the lowest value
that it has had since the rate came to exceed; and then it falls below that value again.

In SGD the critical rate is another one in each step. A spike, there, is a peak of the loss alone: one whose prominence
is a factor of ``RISE`` or more. Whether it is a catapult is then to be measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

RISE = 2.0
EPSILON = 1e-8  # by which a rate has to exceed the critical one for a catapult to be counted (section 4)


@dataclass(frozen=True)
class Catapult:
    """Iterations: the lowest loss before the rise, the highest loss, and the first loss below the lowest again."""

    start: int
    peak: int
    end: int


def find(
    loss: Float[np.ndarray, " t"],
    learning_rate: Float[np.ndarray, " t"],
    critical_learning_rate: Float[np.ndarray, " t"],
    rise: float = RISE,
) -> list[Catapult]:
    """The catapults of a run, in their order. Neither one that has not come back at the end counts, nor divergence.

    ``learning_rate`` and ``critical_learning_rate`` hold the rate of the step from iteration t, and n / ||K|| before it
    (NaN where unknown: not unstable).

    Raises ``ValueError`` unless ``rise`` exceeds 1.
    """
    if not rise > 1:
        raise ValueError(f"rise = {rise!r}: allowed are numbers above 1")
    unstable = learning_rate > critical_learning_rate
    found: list[Catapult] = []
    start = peak = None
    for t, value in enumerate(loss):
        if start is None:
            start = t if unstable[t] else None
        elif peak is None:
            if value >= rise * loss[start]:
                peak = t
            elif not unstable[t]:
                start = None
            elif value < loss[start]:
                start = t
        elif value < loss[start]:
            found.append(Catapult(start, peak, t))
            start, peak = (t if unstable[t] else None), None
        elif value > loss[peak]:
            peak = t
    return found


@dataclass(frozen=True)
class Spike:
    """Iterations: where the loss begins to rise, its peak, and where it is down again to a fraction of the peak."""

    start: int
    peak: int
    end: int


def spikes(loss: Float[np.ndarray, " t"], rise: float = RISE) -> list[Spike]:
    """The spikes of a loss over the iterations, in their order; where it is NaN nothing was measured.

    A spike is a peak whose prominence is a factor of ``rise``: to get from it to a higher one, or to an end of the run,
    the loss has to fall to 1 / ``rise`` of the peak or less. So divergence is none, nor a rise that does not come back.
    It starts at the loss's last local minimum before the peak that is that low, and ends when the loss is again.

    Raises ``ValueError`` unless ``rise`` exceeds 1, and for a loss that is negative.
    """
    if not rise > 1:
        raise ValueError(f"rise = {rise!r}: allowed are numbers above 1")
    there = np.flatnonzero(np.isfinite(loss))
    measured = loss[there]
    if not (measured >= 0).all():
        raise ValueError(f"loss: its smallest value is {measured.min()}; allowed are numbers of at least 0")
    measured = np.maximum(measured, np.finfo(float).tiny)  # of which every factor is something
    found = []
    low, peak = 0, None  # the lowest since the last spike; the highest since the loss has risen from that
    for t, value in enumerate(measured.tolist()):
        if peak is None:
            if value >= rise * measured[low]:
                peak = t
            elif value < measured[low]:
                low = t
        elif value > measured[peak]:
            peak = t
        elif rise * value <= measured[peak]:
            found.append(Spike(*(int(there[index]) for index in (_start(measured, peak, rise), peak, t))))
            low, peak = t, None
    return found


def _start(loss: Float[np.ndarray, " t"], peak: int, rise: float) -> int:
    """The last local minimum before the peak that is at least a factor of ``rise`` below it."""
    start = peak
    while rise * loss[start] > loss[peak] or (start > 0 and loss[start - 1] < loss[start]):
        start -= 1
    return start


def above(learning_rate: Float[np.ndarray, " T"], critical: Float[np.ndarray, " T"]) -> Bool[np.ndarray, " T"]:
    """The steps with a rate above the critical one.

    Where that is NaN it counts as what it was when it was last measured; before the first measurement as infinite.
    """
    there = np.where(np.isnan(critical), 0, np.arange(1, len(critical) + 1))
    latest = np.append(np.inf, critical)[np.maximum.accumulate(there)]
    return learning_rate - latest > EPSILON


def steps_above(
    learning_rate: Float[np.ndarray, " T"], critical: Float[np.ndarray, " T"]
) -> Int[np.ndarray, " states"]:
    """How many of the first t steps are :func:`above` the critical rate, for t = 0 ... T."""
    return np.append(0, np.cumsum(above(learning_rate, critical)))


def spikes_above(found: Sequence[Spike], steps: Bool[np.ndarray, " T"]) -> int:
    """How many of the spikes have a step :func:`above` the critical rate in their rise, from start to peak."""
    return sum(bool(steps[spike.start : spike.peak].any()) for spike in found)
