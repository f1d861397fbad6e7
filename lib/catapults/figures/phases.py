"""Figures of the phases of gradient descent over widths and learning rates."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from ..display import Figure, number
from ..experiments.phases import NAMES, Course, Kind, PhasesRun, middle
from ..paper.quotes import LARGEST, LARGEST_QUADRATIC
from .base import INK, NORM, REST, TOP, canvas, draw_split, end_of, finish, plain_numbers

_COLOURS = {"lazy": "#d9d9d9", "catapult": TOP, "unsettled": "#ece133", "divergence": REST}
_OF_KIND = {"linear": "#949494", "quadratic": NORM, "frozen gates": REST, "network": TOP}
_MARKS = {"linear": "^", "quadratic": "s", "frozen gates": "D", "network": "o"}
_WORDS = {
    "lazy": "the loss never doubles",
    "catapult": "a catapult",
    "unsettled": "not back within the steps",
    "divergence": "divergence",
}


def diagram(runs: Sequence[PhasesRun]) -> Figure:
    """The phase of most seeds for each width and multiple of the critical rate; where seeds differ, how many."""
    import seaborn  # takes a second

    e = runs[0].experiment
    counts = {key: Counter(run.courses[key].phase for run in runs) for key in runs[0].courses}
    order = list(_COLOURS)
    places = [[order.index(counts[w, m].most_common(1)[0][0]) for m in e.multiples] for w in e.widths[::-1]]
    texts = [[_where_split(counts[w, m], len(runs)) for m in e.multiples] for w in e.widths[::-1]]
    with canvas("phases", height=0.9 + 0.55 * len(e.widths)) as (figure, save):
        axes = figure.subplots()
        seaborn.heatmap(
            np.array(places), ax=axes, cmap=ListedColormap(list(_COLOURS.values())), vmin=-0.5, vmax=len(order) - 0.5,
            cbar=False, linewidths=2, linecolor="white", annot=np.array(texts), fmt="", annot_kws={"size": 8},
            xticklabels=[f"{m:g}" for m in e.multiples], yticklabels=[str(w) for w in e.widths[::-1]],
        )  # fmt: skip
        axes.set(xlabel="learning rate over critical rate", ylabel="width")
        axes.tick_params(axis="both", length=0, labelsize=9, labelrotation=0)
        there = [name for name in order if any(counts[key][name] for key in counts)]
        handles = [Patch(color=_COLOURS[name], label=_WORDS[name]) for name in there]
        figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=9)
    described = "; ".join(f"width {w}: {_row(counts, w, e.multiples)}" for w in e.widths)
    return save(
        "What gradient descent does at each width and multiple of the critical learning rate, in most seeds. Where the "
        f"{len(runs)} seeds differ, the number says how many of them do this.",
        f"Heat map, multiples to the right, widths upwards. {described}.",
    )


def models(runs: Sequence[PhasesRun]) -> Figure:
    """Above, how high the loss of each model rises; below, up to which rate each comes back, by seed and width."""
    e, kinds = runs[0].experiment, runs[0].kinds
    widest = e.widths[-1]
    with canvas("models", height=4.4 + 0.22 * len(kinds) * len(e.widths)) as (figure, save):
        above, below = figure.subplots(2, sharex=True, height_ratios=(1, 0.3 + 0.12 * len(kinds) * len(e.widths)))
        for kind in kinds:
            for run in runs:
                there = [c for c in run.of_width(widest, kind) if c.phase in ("lazy", "catapult")]
                label = NAMES[kind] if run is runs[0] else None
                above.plot(
                    [c.multiple for c in there], [c.height for c in there], color=_OF_KIND[kind], linewidth=1,
                    label=label, marker=_MARKS[kind], markersize=4,
                )  # fmt: skip
        places = [(kind, width) for kind in kinds for width in e.widths][::-1]
        for y, (kind, width) in enumerate(places):
            for k, run in enumerate(runs):
                last, first = run.border(width, kind)
                if math.isfinite(first) and last > 0:
                    height = y + 0.6 * ((k + 0.5) / len(runs) - 0.5)
                    below.plot([last, first], [height, height], color=_OF_KIND[kind], linewidth=2, marker="")
        above.set(yscale="log", xscale="log", ylabel="largest loss / first")
        plain_numbers(above.yaxis, *above.get_ylim())
        above.legend(fontsize=9)
        below.set(xlabel="learning rate over critical rate", yticks=range(len(places)))
        below.set_yticklabels([f"{NAMES[kind]}, {width}" for kind, width in places], fontsize=9)
        for axes in (above, below):
            for mark in (1, LARGEST_QUADRATIC, LARGEST):
                axes.axvline(mark, color=INK, linewidth=0.8, linestyle=":", marker="", zorder=0)
        below.set_xticks([0.5, 1, 2, 4, 6, 8], ["0.5", "1", "2", "4", "6", "8"])
        below.minorticks_off()
    said = "; ".join(f"{NAMES[kind]}, width {width}: {_borders(runs, width, kind)}" for kind, width in places[::-1])
    return save(
        f"The models beside the ReLU network. Above: how high the loss rises, at width {widest}, as long as training "
        f"comes back; a line for each of the {len(runs)} seeds. Below: a bar for each seed, from the largest rate at "
        "which training comes back to the next one, at which it does not. Dotted: one, two and six times the critical "
        "rate.",
        f"Two plots with the multiple of the critical rate to the right, logarithmic. Bars: {said}.",
    )


def _borders(runs: Sequence[PhasesRun], width: int, kind: Kind) -> str:
    middles = [m for run in runs if math.isfinite(m := middle(run.border(width, kind)))]
    return f"{number(min(middles))} to {number(max(middles))}" if middles else "outside of the rates"


def courses(runs: Sequence[PhasesRun]) -> Figure:
    """Height, duration and fall of the norm against the multiple of the critical rate, for each width."""
    import seaborn

    e = runs[0].experiment
    colours = dict(zip(e.widths, seaborn.color_palette("colorblind", len(e.widths)), strict=True))
    panels = {
        "largest loss / first": lambda c: c.height,
        "back at iteration": lambda c: float(c.back or 0),
        "lowest ‖K‖ / first": lambda c: c.norm_lowest,
    }
    with canvas("courses", height=5.4) as (figure, save):
        for axes, (label, value) in zip(figure.subplots(len(panels), sharex=True), panels.items(), strict=True):
            for width, marker in zip(e.widths, "osD^v<>", strict=False):
                points = [(c.multiple, value(c)) for run in runs for c in _catapults(run, width)]
                if points:
                    x, y = zip(*points, strict=True)
                    seaborn.lineplot(
                        x=x, y=y, ax=axes, color=colours[width], marker=marker, markersize=5, label=str(width),
                        errorbar=("pi", 100), legend=False,
                    )  # fmt: skip
            axes.set(ylabel=label, yscale="log")
            plain_numbers(axes.yaxis, *axes.get_ylim())
        figure.axes[0].legend(title="width", ncols=len(e.widths), fontsize=9, title_fontsize=9)
        axes.set(xlabel="learning rate over critical rate")
    widest = [c for run in runs for c in _catapults(run, e.widths[-1])]
    said = "There is no catapult."
    if widest:
        first, last = (of(widest, key=lambda c: c.multiple) for of in (min, max))
        said = (
            f"At width {e.widths[-1]} the loss rises {number(first.height)}-fold at {first.multiple:g} critical rates "
            f"and {number(last.height)}-fold at {last.multiple:g}; the norm falls to {number(first.norm_lowest)} and "
            f"to {number(last.norm_lowest)} of where it began."
        )
    return save(
        "The catapults: how high the loss rises, when it is back below its start, and how far the norm of the kernel "
        "falls, against the multiple of the critical rate. Bands: the range over the seeds.",
        f"Three line plots with a line for each width, logarithmic axes. {said}",
    )


def course(chosen: Course) -> Figure:
    """One training: loss with its split above, the norm of the kernel and the line n / eta below."""
    h = chosen.history
    line = float(h.kernel_norm[0]) / chosen.multiple
    with canvas("course", height=4.6) as (figure, save):
        above, below = figure.subplots(2, sharex=True)
        draw_split(above, h, h.tops[-1], shade=False)
        below.plot(h.iteration, h.kernel_norm, color=NORM)
        below.axhline(line, color=INK, linewidth=1, linestyle=":", marker="")
        below.text(1.01, line, "n/η", transform=below.get_yaxis_transform(), va="center")
        below.set(ylabel="norm ‖K‖", xlabel="iteration")
        finish(below, h, shade=False)
    return save(
        f"Gradient descent at {chosen.multiple:g} times the critical rate: the loss and its two parts, and the norm of "
        "the tangent kernel. Where it is above the dotted line n/η, the rate exceeds the critical one.",
        f"Two line plots over the iterations, logarithmic axes. The loss goes from {number(h.loss[0])} to at most "
        f"{number(h.loss.max())} at iteration {chosen.peak} and {end_of(h)}. The norm starts at "
        f"{number(h.kernel_norm[0])}; the line n/η is at {number(line)}.",
    )


def _catapults(run: PhasesRun, width: int) -> list[Course]:
    return [course for course in run.of_width(width) if course.phase == "catapult"]


def _where_split(counts: Counter, seeds: int) -> str:
    most = counts.most_common(1)[0][1]
    return "" if most == seeds else str(most)


def _row(counts: dict, width: int, multiples: list[float]) -> str:
    """Stretches of multiples with the same phase in most seeds."""
    stretches: list[tuple[str, list[float]]] = []
    for m in multiples:
        phase = counts[width, m].most_common(1)[0][0]
        if stretches and stretches[-1][0] == phase:
            stretches[-1][1].append(m)
        else:
            stretches.append((phase, [m]))
    return ", ".join(f"{_WORDS[phase]} from {of[0]:g} to {of[-1]:g}" for phase, of in stretches)
