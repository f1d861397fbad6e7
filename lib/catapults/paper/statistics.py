"""How sure a number over seeds is."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr, stdtrit

_Z = 1.959964  # of a two-sided interval of 95 %
ERRORS = 2.0  # standard errors that a difference must exceed


def wilson(held: int, of: int) -> tuple[float, float]:
    """The interval of 95 % for a share that was ``held`` times in ``of`` (Wilson 1927)."""
    share, z2 = held / of, _Z**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def of_one_more(values: Sequence[float]) -> tuple[float, float]:
    """The interval of 95 % for one more value like these: ``mean ± t s sqrt(1 + 1/n)``, by Student's t. As it would be
    for a normal distribution, and never narrower than the range of the values. Infinite below three."""
    v = np.asarray(values, float)
    if len(v) < 3:
        return -math.inf, math.inf
    half = float(stdtrit(len(v) - 1, 0.975) * v.std(ddof=1) * math.sqrt(1 + 1 / len(v)))
    return min(float(v.mean()) - half, float(v.min())), max(float(v.mean()) + half, float(v.max()))


def standard_error(values: Sequence[float]) -> float:
    """The bootstrap's, of the mean, in its closed form: the root of sum (v - mean)^2 over n. NaN below two values."""
    v = np.asarray(values, float)
    return float(np.sqrt(np.square(v - v.mean()).sum()) / len(v)) if len(v) > 1 else math.nan


def chance(rank: float, n: int) -> float:
    """How often a rank correlation of n independent pairs is at most this negative, by Student's t; NaN below four
    pairs, of which even perfect order says little."""
    if n < 4 or math.isnan(rank):
        return math.nan
    if abs(rank) >= 1:
        return 0.0 if rank < 0 else 1.0
    return float(stdtr(n - 2, rank * math.sqrt((n - 2) / (1 - rank**2))))


def resolution(error: float, images: int) -> float:
    """What two error rates near ``error``, each of so many test images, must differ by to be told apart: two standard
    errors of their difference."""
    return ERRORS * math.sqrt(2 * error * (1 - error) / images)


def differs(differences: Sequence[float]) -> bool:
    """Whether the mean of paired differences is more than ``ERRORS`` standard errors from zero; not for one pair."""
    error = standard_error(differences)
    return bool(not math.isnan(error) and abs(float(np.mean(differences))) > ERRORS * error)
