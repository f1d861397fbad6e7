"""The figure of Table 2's match rates."""

import math

from ..display import Figure, number
from ..experiments.match_rates import NETWORKS, MatchRun
from ..experiments.sgd_spikes import READINGS
from ..paper import quotes
from .base import INK, REST, TOP, canvas

_BASE = "η > η_crit, of all steps"


def rates(run: MatchRun) -> Figure:
    """Mean and standard deviation over the seeds for each network, in both readings, beside the paper's (Table 2)."""
    quoted = quotes.match_rates(run.experiment)
    theirs = [(quoted[n].mean, quoted[n].deviation) if n in quoted else (math.nan, math.nan) for n in NETWORKS]
    columns = {
        "paper": (INK, "s", theirs),
        READINGS["whole"]: (REST, "v", [run.networks[n].percent("whole") for n in NETWORKS]),
        READINGS["batch"]: (TOP, "o", [run.networks[n].percent("batch") for n in NETWORKS]),
    }
    base = [run.networks[n].base("whole") for n in NETWORKS]
    with canvas("match-rates", height=3.8) as (figure, save):
        axes = figure.subplots()
        for offset, (label, (colour, marker, values)) in zip((-0.15, 0, 0.15), columns.items(), strict=True):
            places = [place + offset for place in range(len(NETWORKS))]
            means, deviations = zip(*((m, 0.0 if math.isnan(d) else d) for m, d in values), strict=True)
            axes.errorbar(places, means, deviations, color=colour, marker=marker, linestyle="", capsize=3, label=label)
        for place, rate in enumerate(base):
            style = {"color": INK, "linestyle": ":", "linewidth": 1.5, "marker": "", "label": None if place else _BASE}
            axes.plot([place - 0.3, place + 0.3], [rate, rate], **style)
        axes.set(xticks=range(len(NETWORKS)), xticklabels=NETWORKS.values(), ylabel="match rate in %", ylim=(0, 109))
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    columns[_BASE] = (INK, ":", [(rate, math.nan) for rate in base])
    words = (
        f"{label}: " + ", ".join(f"{number(m)} ({n})" for m, n in zip(*_known(values), strict=True))
        for label, (_, _, values) in columns.items()
        if _known(values)[0]
    )
    return save(
        "Match rates: of the steps on which the loss rises, the share with η > η_crit(X_batch). The paper's Table 2, "
        "ours by the loss of the whole set, as the paper counts, and ours by that of the step's batch. Dotted lines: "
        "the same share of all steps; random rises would match as often. Bars: one standard deviation over the seeds.",
        f"Dots with error bars for three networks, in per cent; {'; '.join(words)}.",
    )


def _known(values: list[tuple[float, float]]) -> tuple[list[float], list[str]]:
    known = [(mean, name) for (mean, _), name in zip(values, NETWORKS.values(), strict=True) if math.isfinite(mean)]
    return [mean for mean, _ in known], [name for _, name in known]
