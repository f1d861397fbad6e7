"""Figures of the stability of SGD over batch sizes and learning rates."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ..display import Figure, number
from ..experiments.stability import LINES, Cell, Criterion, StabilityRun, Watched
from .base import INK, NORM, REST, TOP, canvas, plain_numbers

_LINES: dict[Criterion, tuple[str, str, str]] = {  # colour, style, words
    "mean_square": (INK, "-", "S = 1"),
    "exceeded": (REST, "--", "half of the batches above $\\eta_{\\mathrm{crit}}(X_{\\mathrm{batch}})$"),
    "sharpness": (NORM, ":", "batch sharpness = 2/η"),
}
_APART = {"mean_square": 0.0, "exceeded": 0.05, "sharpness": -0.05}  # of a field, so that no line hides another
_MARKERS = "osD^v<>Pph"
_MOST = 0.2  # of ||K|| that is gone where the colour is darkest


def diagram(runs: Sequence[StabilityRun]) -> Figure:
    """The share of ||K|| that is lost for each batch size and rate, and the lines of three criteria."""
    import seaborn  # takes a second

    e = runs[0].experiment
    falls = {cell: _median([run.trainings[cell].fall for run in runs]) for cell in runs[0].trainings}
    sizes = e.batch_sizes[::-1]
    grid = np.array([[falls[b, m] for m in e.multiples] for b in sizes])
    texts = [[_in_field(runs, (b, m), falls[b, m]) for m in e.multiples] for b in sizes]
    light = LinearSegmentedColormap.from_list("falls", ["#ffffff", TOP])
    with canvas("stability", height=1.3 + 0.5 * len(sizes)) as (figure, save):
        axes = figure.subplots()
        seaborn.heatmap(
            grid, ax=axes, cmap=light, vmin=0, vmax=_MOST, cbar=False, linewidths=2, linecolor="white",
            mask=np.isnan(grid), xticklabels=[f"{m:g}" for m in e.multiples], yticklabels=[str(b) for b in sizes],
        )  # fmt: skip
        for row, words in enumerate(texts):
            for column, text in enumerate(words):
                gone = np.isnan(grid[row, column])
                if gone:
                    axes.add_patch(Rectangle((column, row), 1, 1, facecolor="#d9d9d9", edgecolor="white", linewidth=2))
                colour = "white" if not gone and grid[row, column] > 0.6 * _MOST else INK
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8, color=colour)
        for name, (colour, style, _) in _LINES.items():
            _border(axes, _above(runs, name), colour, style, _APART[name])
        axes.set(xlabel="learning rate over critical rate", ylabel="batch size")
        axes.tick_params(axis="both", length=0, labelsize=9, labelrotation=0)
        handles = [Line2D([], [], color=c, linestyle=s, marker="", label=words) for c, s, words in _LINES.values()]
        figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=9)
    described = "; ".join(f"batches of {b}: {_row(runs, b, falls)}" for b in e.batch_sizes)
    sides = "; ".join(
        f"{_LINES[name][2].split(' $')[0]}: {int(_above(runs, name).sum())} of {grid.size} fields" for name in _LINES
    )
    return save(
        "How much of ‖K‖ is lost in a training, and below it the number of spikes, for each batch size and multiple of "
        f"the critical rate: medians of {len(runs)} seeds. Grey: divergence. The lines are those of three criteria at "
        "initialisation; unstable is what lies to their right.",
        f"Heat map, multiples to the right, batch sizes upwards. {described}. On the unstable side of {sides}.",
    )


def against(runs: Sequence[StabilityRun]) -> Figure:
    """The share of ||K|| that is lost against three criteria at initialisation."""
    import seaborn

    e = runs[0].experiment
    colours = seaborn.color_palette("colorblind", len(e.batch_sizes))
    labels = {
        "mean_square": "S",
        "sharpness": "batch sharpness over 2/η",
        "exceeded": "share of batches with η above their critical rate",
    }
    every = [t for run in runs for t in run.trainings.values()]
    with canvas("against", height=7.0) as (figure, save):
        for axes, (name, label) in zip(figure.subplots(len(labels)), labels.items(), strict=True):
            high = _finite_limit(every, name)
            for b, colour, marker in zip(e.batch_sizes, colours, _MARKERS, strict=False):
                of = [t for t in every if t.batch_size == b]
                points = [(min(t.criterion(name), high), 100 * t.fall) for t in of if not t.result.diverged]
                if points:
                    x, y = zip(*points, strict=True)
                    axes.plot(x, y, linestyle="", marker=marker, markersize=5, color=colour, label=str(b))
                gone = [min(t.criterion(name), high) for t in of if t.result.diverged]
                (crosses,) = axes.plot(
                    gone, [1.04] * len(gone), linestyle="", marker="x", markersize=5, color=colour, clip_on=False,
                    transform=axes.get_xaxis_transform(),
                )  # fmt: skip
                crosses.set_in_layout(False)
            axes.axvline(LINES[name], color=INK, linewidth=1, linestyle=":", marker="")
            axes.set(xlabel=label, ylabel="‖K‖ lost [%]")
            axes.set_yscale("symlog", linthresh=2)
            axes.set_yticks([-2, 0, 2, 5, 10, 20, 50])
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.minorticks_off()
            if name != "exceeded":
                axes.set(xscale="log")
                plain_numbers(axes.xaxis, *axes.get_xlim())
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), title="batch size", loc="outside upper center",
            ncols=len(e.batch_sizes), fontsize=9, title_fontsize=9,
        )  # fmt: skip
    return save(
        "The share of ‖K‖ that is lost, one point a training, against three criteria at initialisation; dotted: their "
        f"lines. Crosses along the top: trainings that diverge. An infinite S is drawn at the right end. {len(runs)} "
        f"seed{'s' * (len(runs) > 1)}.",
        f"Three scatter plots. {_sides(every)}",
    )


def courses(runs: Sequence[StabilityRun]) -> Figure:
    """S, the batch sharpness and ||K|| along the first seed's trainings that begin on either side of S = 1."""
    import seaborn

    chosen = [t for t in runs[0].undiverged if t.criterion("mean_square") >= 0.5]
    panels = {
        "S": lambda t: t.result.mean_square,
        "batch sharpness / (2/η)": lambda t: t.result.sharpness,
        "‖K‖ / first": lambda t: t.result.exact_norm / t.result.exact_norm[0],
    }
    colours = seaborn.color_palette("colorblind", max(len(chosen), 1))
    with canvas("courses", height=6.6) as (figure, save):
        for axes, (label, values) in zip(figure.subplots(len(panels), sharex=True), panels.items(), strict=True):
            for k, (t, colour) in enumerate(zip(chosen, colours, strict=True)):
                y = np.where(np.isfinite(values(t)), values(t), np.nan)
                axes.plot(
                    t.result.measured, y, color=colour, marker=_MARKERS[k % len(_MARKERS)], markersize=4, linewidth=1.2,
                    linestyle="-" if t.outcome == "falling" else "--", label=f"{t.batch_size} at {t.multiple:g}",
                )  # fmt: skip
            if label != "‖K‖ / first":
                axes.axhline(1, color=INK, linewidth=1, linestyle=":", marker="")
            axes.set(ylabel=label)
        axes.set(xlabel="step")
        figure.legend(
            *axes.get_legend_handles_labels(), title="batch size at multiple", loc="outside upper center", ncols=4,
            fontsize=8, title_fontsize=9,
        )  # fmt: skip
    ends = "; ".join(
        f"batches of {t.batch_size} at {t.multiple:g}: from {number(t.criterion('mean_square'))} to "
        f"{number(t.criterion('mean_square', -1))}"
        for t in chosen
    )
    return save(
        "S, the batch sharpness and the norm of the kernel along the trainings of the first seed that begin with S of "
        "at least one half and do not diverge. Dashed: those that lose little of ‖K‖. An infinite S at the start is "
        "left out.",
        f"Three line plots over the steps. S goes, {ends}." if chosen else "Three empty plots.",
    )


def _above(runs: Sequence[StabilityRun], name: Criterion) -> np.ndarray:
    """Which fields a criterion at initialisation calls unstable, in most seeds; batch sizes downwards as drawn."""
    e = runs[0].experiment
    value = {cell: _median([run.trainings[cell].criterion(name) for run in runs]) for cell in e.cells}
    return np.array([[value[b, m] >= LINES[name] for m in e.multiples] for b in e.batch_sizes[::-1]])


def _border(axes: Axes, above: np.ndarray, colour: str, style: str, apart: float) -> None:
    """The edges between fields on the two sides."""
    rows, columns = above.shape
    lines = []
    for i in range(rows):
        lines += [([j, j], [i, i + 1]) for j in range(1, columns) if above[i, j] != above[i, j - 1]]
        if i:
            lines += [([j, j + 1], [i, i]) for j in range(columns) if above[i, j] != above[i - 1, j]]
    for x, y in lines:
        axes.plot(np.array(x) + apart, np.array(y) + apart, color=colour, linestyle=style, linewidth=2.5, marker="")


def _median(values: Sequence[float]) -> float:
    """NaN where most are."""
    values = np.asarray(values, float)
    return float("nan") if np.isnan(values).sum() * 2 > len(values) else float(np.nanmedian(values))


def _in_field(runs: Sequence[StabilityRun], cell: Cell, fall: float) -> str:
    if np.isnan(fall):
        return "diverges"
    spikes = int(
        np.median([len(run.trainings[cell].spikes) for run in runs if not run.trainings[cell].result.diverged])
    )
    return f"{_percent(fall)}\n{spikes}"


def _percent(fall: float) -> str:
    value = -100 * fall
    return f"{value:+.1f} %".replace("-", "−") if abs(value) < 9.95 else f"{value:+.0f} %".replace("-", "−")


def _row(runs: Sequence[StabilityRun], b: int, falls: dict[Cell, float]) -> str:
    return ", ".join(
        f"{m:g} " + ("diverges" if np.isnan(falls[b, m]) else f"changes ‖K‖ by {_percent(falls[b, m])}")
        for m in runs[0].experiment.multiples
    )


def _finite_limit(every: Sequence[Watched], name: Criterion) -> float:
    """Where infinite values are drawn."""
    known = [t.criterion(name) for t in every if np.isfinite(t.criterion(name))]
    return 2 * max(known) if len(known) < len(every) else max(known)


def _sides(every: Sequence[Watched]) -> str:
    known = [t for t in every if not t.result.diverged]
    sides = {
        side: [100 * t.fall for t in known if (t.criterion("mean_square") >= 1) == above]
        for side, above in (("below", False), ("above", True))
    }
    said = [f"With S {side} 1 ‖K‖ loses {number(min(v))} to {number(max(v))} %." for side, v in sides.items() if v]
    return " ".join([*said, f"{len(every) - len(known)} trainings diverge."])
