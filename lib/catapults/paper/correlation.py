"""What the claims of section 4 share: how two measurements go together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..experiments.fits import Fitted
from .claims import Claim, verdict
from .measurements import ALIGNMENT, Measurement

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


@dataclass(frozen=True)
class Order:
    """What trainings, or groups of them, are put in order by: the number of catapults, or the batch size.

    - ``name``: of what they are ordered by, without an article.
    - ``condition``: what the paper's statements begin from, ``as the number of catapults grows``.
    - ``direction``: 1 where that goes up this order, -1 where it goes down.
    - ``places``: one for each training or group.
    - ``beginning``: of the sentence, where it needs one. ``left_out``: which trainings are not compared, and why.
    """

    name: str
    condition: str
    direction: int
    places: Sequence[float | int]
    beginning: str = ""
    left_out: str = ""


def follows(
    measurement: Measurement, grows: bool, order: Order, values: Sequence[float], paper: str, *shown_in: str
) -> Claim:
    """The claim that a measurement grows, or falls, along an order.

    - ``grows``: what the paper states of it under the order's condition; else it falls.
    - ``values``: of the measurement, at the order's places.
    - ``paper``: what the paper says of that; ``shown_in``: as in :class:`Claim`.
    """
    rank = spearman(order.places, values)
    first, last = (_mean_at(end(order.places), order, values) if values else math.nan for end in (min, max))
    sign = order.direction * (1 if grows else -1)
    holds = None if math.isnan(rank + last - first) else sign * rank >= STRONG and sign * (last - first) > 0
    note = order.left_out and f"; {order.left_out}"
    pairs = sorted(zip(order.places, values, strict=True), key=lambda pair: pair[0])
    listed = ", ".join(f"{measurement.write(value)} ({place:g})" for place, value in pairs) or "none"
    return Claim(
        f"the {measurement.title} {'grows' if grows else 'falls'} {order.condition}",
        paper,
        f"{listed}; rank correlation with the {order.name} {signed(rank)}" + note,
        f"Spearman's rank correlation at least {STRONG:g} in size and both ends in order, with the paper's sign",
        verdict(holds),
        f"{capital(f'{order.beginning}the {measurement.title}')} by {order.name} (in brackets) is {listed}"
        f"{'' if math.isnan(rank) else f'; the rank correlation is {signed(rank)}'}{note}.",
        shown_in,
    )


def correlations(results: Sequence[Fitted], performance: Measurement) -> dict[str, float]:
    """Of alignment and test performance over some trainings, by whose they are; NaN as in :func:`pearson`."""
    values, alignments = [[m.of(result) for result in results] for m in (performance, ALIGNMENT)]
    return {"Pearson": pearson(alignments, values), "Spearman": spearman(alignments, values)}


def correlated(results: Sequence[Fitted], performance: Measurement, paper: str, left_out: str = "") -> Claim:
    """The claim that alignment and test performance go together over some trainings, by both correlations.

    ``paper``: what it says of that; ``left_out``: which trainings are not among them.
    """
    found = correlations(results, performance)
    words = {name: signed(value) for name, value in found.items()}
    return Claim(
        f"AGOP alignment and {performance.title} go together",
        paper,
        f"Pearson {words['Pearson']}, Spearman {words['Spearman']}" + (left_out and f"; {left_out}"),
        f"both at most −{STRONG:g}",
        verdict(None if math.isnan(sum(found.values())) else max(found.values()) <= -STRONG),
        f"Over {len(results)} trainings the correlation of alignment and {performance.title} is {words['Pearson']} "
        f"(Pearson) and {words['Spearman']} (Spearman).",
    )


def signed(value: float) -> str:
    """A correlation, to two decimals."""
    return "–" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def capital(text: str) -> str:
    """With a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def _mean_at(place: float | int, order: Order, values: Sequence[float]) -> float:
    """The mean value of those at this place; NaN where one of them is."""
    return float(np.mean([value for p, value in zip(order.places, values, strict=True) if p == place]))
