"""The figure of Table 2's match rates."""

import math
from collections.abc import Mapping
from typing import Any

from ..claims.sgd_spikes import READINGS
from ..display import Figure, number
from ..experiments.match_rates import NETWORKS, MatchRun
from .base import INK, REST, TOP, canvas


def rates(run: MatchRun, quoted: Mapping[str, Any]) -> Figure:
    """Mean and standard deviation over the seeds for each network, in both readings, beside the paper's (Table 2)."""
    columns = {
        "paper": (INK, "s", [(quoted.get(n, math.nan), quoted.get(f"{n}_deviation", 0.0)) for n in NETWORKS]),
        READINGS["whole"]: (REST, "v", [run.networks[n].percent("whole") for n in NETWORKS]),
        READINGS["batch"]: (TOP, "o", [run.networks[n].percent("batch") for n in NETWORKS]),
    }
    with canvas("match-rates") as (figure, save):
        axes = figure.subplots()
        for offset, (label, (colour, marker, values)) in zip((-0.15, 0, 0.15), columns.items(), strict=True):
            places = [place + offset for place in range(len(NETWORKS))]
            means, deviations = zip(*((m, 0.0 if math.isnan(d) else d) for m, d in values), strict=True)
            axes.errorbar(places, means, deviations, color=colour, marker=marker, linestyle="", capsize=3, label=label)
        axes.set(xticks=range(len(NETWORKS)), xticklabels=NETWORKS.values(), ylabel="match rate in %", ylim=(0, 109))
        axes.legend(loc="lower right")
    words = (
        f"{label}: " + ", ".join(f"{number(m)} ({n})" for m, n in zip(*_known(values), strict=True))
        for label, (_, _, values) in columns.items()
        if _known(values)[0]
    )
    return save(
        "Match rates: of the steps on which the loss rises, the share with η > η_crit(X_batch). The paper's Table 2, "
        "ours by the loss of the whole set, as the paper counts, and ours by that of the step's batch. Bars: one "
        "standard deviation over the seeds.",
        f"Dots with error bars for three networks, in per cent. {'. '.join(words)}.",
    )


def _known(values: list[tuple[float, float]]) -> tuple[list[float], list[str]]:
    known = [(mean, name) for (mean, _), name in zip(values, NETWORKS.values(), strict=True) if math.isfinite(mean)]
    return [mean for mean, _ in known], [name for _, name in known]
