"""Figures of trainings with and without catapults, and of single steps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from ..display import Figure, number
from ..experiments.causes import CausesRun, arm_words, control_words, group_words
from ..paper.measurements import ALIGNMENT, FVU
from .base import INK, NORM, REST, TOP, TOTAL, canvas

_MEASURED = FVU, ALIGNMENT
_COLOURS = {"as it is": TOP, "control": TOTAL}
_MOMENTS = (NORM, "-"), (TOP, "--"), (REST, ":")


def arms(runs: Sequence[CausesRun]) -> Figure:
    """Test performance and alignment of every kind of training, a row for each group; a dot a seed."""
    groups = runs[0].groups
    height = 0.7 + 0.36 * sum(map(len, groups.values())) + 0.35 * len(groups)
    rows = max(map(len, groups.values()))
    described = []
    with canvas("arms", height=height) as (figure, save):
        figure.set_figwidth(6.6)
        ratios = [len(arms_) / rows for arms_ in groups.values()]
        shape = {"squeeze": False, "sharey": "row", "height_ratios": ratios}
        every = figure.subplots(len(groups), len(_MEASURED), **shape)
        for (group, of_group), line in zip(groups.items(), every, strict=True):
            for axes, measurement in zip(line, _MEASURED, strict=True):
                means = _dots(axes, runs, group, list(of_group), measurement.of)
                named = (f"{_name(runs[0], group, arm)} {mean:.3f}" for arm, mean in means.items())
                described.append(f"{measurement.title} with {group_words(group)}: {', '.join(named)}")
            line[0].set_yticks(range(len(of_group)), [_name(runs[0], group, arm) for arm in of_group])
            line[0].invert_yaxis()
            line[0].set_title(group_words(group), fontsize=11, loc="left")
        for axes, measurement in zip(every[-1], _MEASURED, strict=True):
            axes.set_xlabel(measurement.title)
    return save(
        "Test performance and alignment with and without catapults. A dot is a seed, the bar their mean; dotted: "
        "the mean of the trainings as they are, and of the control. Where an intervention lies near the first line it "
        "keeps the gain; near the second it loses it.",
        f"Dot plots. {'; '.join(described)}.",
    )


def steps(runs: Sequence[CausesRun]) -> Figure | None:
    """What single steps change against their rate over the batch's critical one; ``None`` where there are none."""
    forks = [run.fork for run in runs if run.fork is not None]
    if not forks:
        return None
    e = runs[0].experiment
    panels = {
        "batch's loss": [f.batch_loss for f in forks],
        "whole loss": [f.whole_loss for f in forks],
        "norm ‖K‖": [f.norm for f in forks],
    }
    said = []
    with canvas("steps", height=5.6) as (figure, save):
        for axes, (label, values) in zip(figure.subplots(len(panels), sharex=True), panels.items(), strict=True):
            by_moment = np.concatenate(values, axis=1)  # moments x batches of all seeds x multiples
            for moment, ratios, (colour, style) in zip(e.moments, by_moment, _MOMENTS, strict=False):
                low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75), axis=0)
                axes.plot(e.multiples, middle, style, color=colour, label=f"after {moment} steps")
                axes.fill_between(e.multiples, low, high, color=colour, alpha=0.15, linewidth=0)
                said.append(f"{label} after {moment} steps at the largest rate {number(middle[-1])}")
            axes.axhline(1, color=INK, linewidth=1, linestyle=":", marker="")
            axes.axvline(1, color=INK, linewidth=1, linestyle=":", marker="")
            axes.set(ylabel=f"{label},\nafter / before", yscale="log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        figure.axes[0].legend(fontsize=9)
        axes.set(xlabel="learning rate of the step over the batch's critical rate")
    return save(
        f"Single steps of SGD with batches of {e.batch_sizes[0]} from the same weights: what they do to the loss of "
        "their batch, to that of the whole training set and to the norm of the kernel, against their rate. Lines: "
        "medians over batches and seeds; bands: the middle half.",
        f"Three line plots against the rate over the batch's critical rate, logarithmic axes. Medians: "
        f"{'; '.join(said)}.",
    )


def _name(run: CausesRun, group: str, arm: str) -> str:
    return control_words(run, group) if arm == "control" else arm_words(arm)


def _dots(axes: Axes, runs: Sequence[CausesRun], group: str, arms_: list[str], of) -> dict[str, float]:
    """Draws them, and returns the means; trainings that diverge are left out."""
    means = {}
    for place, arm in enumerate(arms_):
        results = [run.groups[group][arm] for run in runs]
        values = [of(r) for r in results if not r.diverged]
        colour = _COLOURS.get(arm, NORM)
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.45, markersize=4.5, linestyle="")
        if values:
            means[arm] = float(np.mean(values))
            axes.plot([means[arm]] * 2, [place - 0.3, place + 0.3], color=colour, marker="", linewidth=2.5)
    for arm, colour in _COLOURS.items():
        if arm in means:
            axes.axvline(means[arm], color=colour, linewidth=1, linestyle=":", marker="")
    axes.set_ylim(-0.6, len(arms_) - 0.4)
    return means
