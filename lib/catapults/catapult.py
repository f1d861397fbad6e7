"""Where a catapult is in a training run, by a definition that can be counted with.

Section 2 of the paper describes a catapult and gives no rule for counting. Ours: while the learning rate exceeds the
critical one, or with the very step in which it stops to, the loss rises to at least ``RISE`` times the lowest value
that it has had since the rate came to exceed; and then it falls below that value again.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RISE = 2.0


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
