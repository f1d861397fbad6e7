"""What the claims of section 4 share: how two measurements go together."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..experiments.fits import Fitted
from .claims import NOT_COMPARED, PARTLY, REPRODUCED, Claim, of_share
from .measurements import ALIGNMENT, Measurement, mean_and_deviation
from .statistics import ERRORS, chance, differs

STRONG = 0.7  # of a correlation
BY_CHANCE = 0.05
ENOUGH = 4  # places: a rank correlation over three is no evidence
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
    - ``beginning``: of the sentence, where it needs one. ``left_out``: which trainings are not compared, and why.
    """

    name: str
    condition: str
    direction: int
    beginning: str = ""
    left_out: str = ""


Places = Mapping[float | int, float]  # a measurement by the place in an order, the mean of those at the same place


def in_order(values: Places, sign: int) -> bool | None:
    """Whether a measurement goes this way along an order: its ends do, and with at least ``ENOUGH`` places the rank
    correlation as well, by ``STRONG``. ``None`` for fewer than two known values, and where all are alike."""
    known = sorted((place, value) for place, value in values.items() if not math.isnan(value))
    places, found = zip(*known, strict=True) if known else ((), ())
    if len(set(found)) < 2:
        return None
    return sign * (found[-1] - found[0]) > 0 and (
        len(known) < ENOUGH or sign * spearman(list(places), list(found)) >= STRONG
    )


IN_ORDER = (
    f"both ends in order; rank correlation at least {STRONG:g} in size, with the paper's sign, where there are {ENOUGH}"
)


def follows(
    measurement: Measurement,
    grows: bool,
    order: Order,
    by_seed: Sequence[Places],
    paper: str,
    *shown_in: str,
    unless: str = "",
    apart: float = 0.0,
) -> Claim:
    """The claim that a measurement grows, or falls, along an order, over seeds.

    - ``grows``: what the paper states of it under the order's condition; else it falls.
    - ``by_seed``: its values at the order's places, for each seed.
    - ``paper``: what the paper says of that; ``shown_in``: as in :class:`Claim`.
    - ``unless``: why nothing can be compared. ``apart``: by how much its means must differ to be told apart.

    With several seeds the difference between the ends must also exceed twice its standard error, else the claim is
    reproduced in part at best.
    """
    sign = order.direction * (1 if grows else -1)
    judged = [holds for values in by_seed if (holds := in_order(values, sign)) is not None]
    held = sum(judged), len(judged)
    means = _means(by_seed)
    listed = ", ".join(f"{measurement.write(value)} ({place:g})" for place, value in means.items()) or "none"
    note = order.left_out and f"; {order.left_out}"
    verdict, why = of_share(*held), unless
    known = [value for value in means.values() if not math.isnan(value)]
    if not why and known and 0 < float(np.ptp(known)) < apart:
        why = unless = (
            f"all are alike: they differ by {measurement.write(float(np.ptp(known)))}, and the test images tell apart "
            f"only {measurement.write(apart)}"
        )
    if not judged and not why:
        why = "there are no two different values to compare"
    elif verdict == REPRODUCED and len(judged) > 1:
        of_seeds = [{p: v for p, v in values.items() if not math.isnan(v)} for values in by_seed]
        if not differs([values[max(values)] - values[min(values)] for values in of_seeds if len(values) > 1]):
            verdict, why = PARTLY, f"the difference between the ends does not exceed {ERRORS:g} standard errors"
    return Claim(
        f"the {measurement.title} {'grows' if grows else 'falls'} {order.condition}",
        paper,
        listed + note,
        IN_ORDER,
        NOT_COMPARED if unless or not judged else verdict,
        f"{capital(f'{order.beginning}the {measurement.title}')} by {order.name} (in brackets) is {listed}{note}.",
        shown_in,
        None if unless or not judged else held,
        why=why,
    )


def together(
    rows: Sequence[Sequence[Fitted]], performance: Measurement, paper: str, left_out: str, unless: str
) -> Claim:
    """The claim that alignment and test performance go together over a seed's trainings, strongly and not by chance.

    ``rows``: those of each seed. ``paper``: what it says of that; ``left_out``: which trainings are not among them;
    ``unless``: why nothing can be compared.
    """
    found = [correlations(results, performance) for results in rows]
    judged = [
        c["Pearson"] <= -STRONG and chance(c["Spearman"], len(results)) <= BY_CHANCE
        for c, results in zip(found, rows, strict=True)
        if not math.isnan(c["Pearson"] + chance(c["Spearman"], len(results)))
    ]
    held = sum(judged), len(judged)
    words = [f"{name} {_range([c[name] for c in found])}" for name in ("Pearson", "Spearman")]
    sizes = sorted({len(results) for results in rows})
    number = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    compared = judged and not unless
    return Claim(
        f"AGOP alignment and {performance.title} go together",
        paper,
        ", ".join(words) + (left_out and f"; {left_out}"),
        f"over the trainings of a seed Pearson's at most −{STRONG:g}, and Spearman's as low by chance in at most 1 of "
        f"{1 / BY_CHANCE:.0f} cases",
        of_share(*held) if compared else NOT_COMPARED,
        f"Over the {number} trainings of a seed the correlation of alignment and {performance.title} is, in the median "
        f"of the seeds, {' and '.join(words)}.",
        held=held if compared else None,
        why=unless or ("" if judged else "there are no four different trainings in any seed"),
    )


def correlations(results: Sequence[Fitted], performance: Measurement) -> dict[str, float]:
    """Of alignment and test performance over some trainings, by whose they are; NaN as in :func:`pearson`."""
    values, alignments = [[m.of(result) for result in results] for m in (performance, ALIGNMENT)]
    return {"Pearson": pearson(alignments, values), "Spearman": spearman(alignments, values)}


def means_at(places: Sequence[float | int], values: Sequence[float]) -> dict[float | int, float]:
    """The mean of the values at each place."""
    return {
        place: float(np.mean([value for p, value in zip(places, values, strict=True) if p == place]))
        for place in sorted(set(places))
    }


def signed(value: float) -> str:
    """A correlation, to two decimals."""
    return "–" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def capital(text: str) -> str:
    """With a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def _range(values: Sequence[float]) -> str:
    """Their median, and where there are several from which to which."""
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2:
        return signed(known[0] if known else math.nan)
    return f"{signed(float(np.median(known)))} ({signed(min(known))} to {signed(max(known))})"


def _means(by_seed: Sequence[Places]) -> dict[float | int, float]:
    """Over the seeds that have a place."""
    places = sorted({place for values in by_seed for place in values})
    return {place: mean_and_deviation(v[place] for v in by_seed if place in v)[0] for place in places}
