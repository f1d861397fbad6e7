"""What the claims of section 4 share: how two measurements go together."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from ..experiments.learning import Trained, performance_name, performances
from .claims import Claim, verdict

STRONG = 0.7  # of a correlation
Numbers = Sequence[float | int] | Float[np.ndarray, " n"]


def pearson(a: Numbers, b: Numbers) -> float:
    """The correlation; NaN for fewer than three pairs or where one of them does not vary."""
    return _correlation(a, b)


def spearman(a: Numbers, b: Numbers) -> float:
    """That of the ranks, equal values sharing theirs; NaN as in :func:`pearson`."""
    return _correlation(a, b, _ranks)


def _correlation(a: Numbers, b: Numbers, of: Callable[[np.ndarray], np.ndarray] = np.asarray) -> float:
    a, b = np.asarray(a, float), np.asarray(b, float)
    there = np.isfinite(a) & np.isfinite(b)
    a, b = a[there], b[there]
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(of(a), of(b))[0, 1])


def _ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    below, equal = values[:, None] > values, values[:, None] == values
    return below.sum(1) + (equal.sum(1) + 1) / 2


def together(results: Sequence[Trained], dataset: str, paper: str) -> Claim:
    """The claim that alignment and test performance correlate over some trainings; ``paper``: what it says of that."""
    values, alignments = performances(results, dataset), [result.alignment for result in results]
    r, rank = pearson(alignments, values), spearman(alignments, values)
    title = performance_name(dataset)
    return Claim(
        f"AGOP alignment and {title} go together",
        paper,
        f"Pearson {signed(r)}, Spearman {signed(rank)}",
        f"both at most −{STRONG:g}",
        verdict(None if math.isnan(rank) else max(r, rank) <= -STRONG),
        f"Over {len(results)} trainings the correlation of alignment and {title} is {signed(r)} (Pearson) and "
        f"{signed(rank)} (Spearman).",
    )


def signed(value: float) -> str:
    """A correlation, to two decimals."""
    return "–" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def decimals(value: float, digits: int) -> str:
    """So many decimals."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def percent_or_loss(value: float, is_loss: bool) -> str:
    """A test loss, or a test error in per cent."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if is_loss else f"{100 * value:.1f} %"


def plus_minus(mean: float, deviation: float, digits: int = 2, factor: float | int = 1, unit: str = "") -> str:
    """Mean and standard deviation."""
    if math.isnan(mean):
        return "–"
    spread = "" if math.isnan(deviation) else f" ± {factor * deviation:.{digits}f}"
    return f"{factor * mean:.{digits}f}{spread}{unit}"
