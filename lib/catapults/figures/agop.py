"""Figures of section 4: catapults, test performance and the AGOP."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.style
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..display import Figure, number
from ..experiments.agop_gd import RaisedRun
from ..experiments.agop_optimizers import TITLES, OptimizerRun
from ..experiments.agop_sgd import BatchRun
from ..experiments.base import Rate
from ..experiments.fits import Fitted, undiverged
from ..paper.measurements import (
    ALIGNMENT,
    STEPS_ABOVE,
    Measurement,
    catapults_of,
    linear_fvu,
    mean_and_deviation,
    performance,
)
from .base import INK, REST, TOP, TOTAL, canvas, plain_numbers

_SHAPES = "os^Dv*x+ph8"
_FAINT = {"linestyle": "", "markersize": 4, "alpha": 0.35}
_COLOURS = matplotlib.style.library["seaborn-v0_8-colorblind"]["axes.prop_cycle"].by_key()["color"]


def catapults(run: RaisedRun, others: Sequence[RaisedRun] = ()) -> Figure:
    """Test performance and alignment against the number of catapults (Figs. 8, 25, 27, 28).

    ``others``: of other seeds, behind it and faint.
    """
    compared = undiverged(run.raised)
    counts = [catapults_of(result) for result in compared]
    test, small = performance(run.experiment.measure), run.small
    panels = {test.title: (test, TOP, "o"), "AGOP alignment": (ALIGNMENT, REST, "v")}
    listed = []
    with canvas("catapults", height=4.2) as (figure, save):
        for axes, (title, (measurement, colour, marker)) in zip(
            figure.subplots(2, sharex=True), panels.items(), strict=True
        ):
            for other in others:
                pairs = [(catapults_of(r), measurement.of(r)) for r in undiverged(other.raised)]
                axes.plot(*zip(*pairs, strict=True), **_FAINT, color=colour, marker=marker) if pairs else None
            values = [measurement.of(result) for result in compared]
            axes.plot(counts, values, color=colour, marker=marker, linestyle="", markersize=8)
            if small is not None and not small.diverged:
                axes.axhline(measurement.of(small), color=INK, linestyle=":", marker="", label="small initialisation")
            if measurement is test:
                _references(axes, run.results)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=8)
            axes.set(ylabel=title)
            pairs = zip(values, counts, strict=True)
            listed.append(f"{title}: {', '.join(f'{_number(v)} ({c})' for v, c in pairs) or 'none'}")
        axes.set(xlabel="catapults", ylim=(0, 1.05))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    caption = (
        "Test performance and AGOP alignment at the best validation against the number of catapults, a mark for each "
        f"training (drawn like the paper's Fig. 8).{_others(others)}{_left_out(run.raised)}"
    )
    if small is not None:
        end = "The training from the small initialisation diverges"
        caption += f" {end if small.diverged else 'Dotted: from the small initialisation (Fig. 25)'}."
    return save(caption, f"Two scatter plots, one above the other. By number of catapults, {'; '.join(listed)}.")


def _references(axes: Axes, results: Iterable[Fitted]) -> None:
    """For regression: what a constant and the best linear predictor reach."""
    linear = linear_fvu(results)
    if not math.isnan(linear):
        axes.axhline(1, color=INK, linewidth=0.8, linestyle="--", marker="", label="a constant")
        axes.axhline(linear, color=INK, linewidth=0.8, linestyle="-.", marker="", label="the best linear predictor")


def _others(others: Sequence[RaisedRun]) -> str:
    return f" Small and faint: {len(others)} other seed{'s' * (len(others) > 1)}." if others else ""


def validation(run: RaisedRun) -> Figure:
    """The validation loss or error of every training over the iterations (Fig. 24)."""
    labelled = {f"{k} raise{'s' * (k != 1)}": result for k, result in enumerate(run.raised)}
    if run.small is not None:
        labelled["small initialisation"] = run.small
    return _validation(labelled, "Each line is a training with a different number of raises of the rate.")


def rates(run: RaisedRun) -> Figure | None:
    """Training loss and learning rate of the training with the most raises; ``None`` where it took no step."""
    result = run.raised[-1]
    if not result.steps:
        return None
    with canvas("rates", height=4.2) as (figure, save):
        above, below = figure.subplots(2, sharex=True)
        above.plot(result.curve, result.loss, color=TOTAL, marker="")
        above.set(yscale="log", ylabel="training loss")
        below.step(result.curve, result.learning_rate, where="post", color=INK, marker="")
        below.set(yscale="log", ylabel="learning rate", xlabel="iteration")
        for axes in (above, below):
            plain_numbers(axes.yaxis, *axes.get_ylim())
    loss = result.loss[np.isfinite(result.loss)]
    return save(
        "Training loss and learning rate of the training with the most raises.",
        f"Two lines over the iterations, logarithmic axes. The loss starts at {number(loss[0])}, is at most "
        f"{number(loss.max())} and ends at {number(loss[-1])}; the learning rate goes from "
        f"{number(result.learning_rate[0])} to {number(result.learning_rate[-1])}, at most "
        f"{number(result.learning_rate.max())}.",
    )


def pictures(run: RaisedRun) -> Figure | None:
    """The first rows and columns of the AGOP as pictures (Fig. 26); ``None`` for images, of which they show nothing."""
    if run.experiment.strong is not None:
        return None
    most = max(undiverged(run.raised) or run.raised, key=catapults_of)
    results = {f"catapults: {catapults_of(result)}": result for result in (run.raised[0], most)}
    if run.small is not None:
        results["small initialisation"] = run.small
    shown = {title: result.corner for title, result in results.items()} | {"true": most.true_corner}
    with canvas("pictures", height=2.0) as (figure, save):
        for axes, (title, corner) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
            low, high = corner.min(), corner.max()
            axes.imshow((corner - low) / (high - low if high > low else 1), cmap="cividis", vmin=0, vmax=1)
            axes.set_title(title, fontsize=9)
            axes.set(xticks=[], yticks=[])
    size = len(most.corner)
    return save(
        f"The first {size} rows and columns of the AGOP on the training inputs, and of the true one on the right; each "
        f"scaled to the range from 0 (dark) to 1 (light) (drawn like the paper's Fig. 26).",
        f"{len(shown)} square pictures of {size} by {size} fields: {', '.join(shown)}. Alignment with the true one: "
        f"{', '.join(f'{_number(result.alignment)} ({title})' for title, result in results.items())}.",
    )


def batch_sizes(run: BatchRun) -> Figure:
    """Steps above the critical rate, test performance and alignment against the batch size (Figs. 9, 10, 29, 32)."""
    e = run.experiment
    test = performance(e.measure)
    panels = {"steps above": STEPS_ABOVE, test.title: test, "AGOP alignment": ALIGNMENT}
    words = []
    with canvas("batch-sizes", height=6.0) as (figure, save):
        for axes, (label, measurement) in zip(figure.subplots(3, sharex=True), panels.items(), strict=True):
            styles = marks(list(map(str, e.learning_rates))).values()
            for index, (rate, (shape, colour)) in enumerate(zip(e.learning_rates, styles, strict=True)):
                style = {"marker": shape, "color": colour, "linestyle": ("-", "--", "-.", ":")[index % 4]}
                name = f"η = {str(rate).replace('eta_crit', 'η_crit')}"
                words.append(f"{label} at {name}: {_means(axes, run, rate, measurement, label=name, **style)}")
            if measurement is test:
                _references(axes, run.results.values())
            axes.set(ylabel=label, xscale="log")
        figure.axes[0].set_yscale("symlog", linthresh=1)
        figure.axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        figure.axes[0].margins(y=0.1)
        figure.axes[0].set_ylim(bottom=-0.2)  # marks at 0 are whole
        if len(e.learning_rates) > 1 or len(figure.axes[1].get_lines()) > 1:
            figure.axes[1].legend(fontsize=8)
        figure.axes[2].set(xlabel="batch size", xticks=e.batch_sizes, xticklabels=map(str, e.batch_sizes))
        figure.axes[2].minorticks_off()
    many = f"Mean and standard deviation over {len(e.seeds)} seeds, and faint each of them"
    spread = many if len(e.seeds) > 1 else "One seed"
    most = any(not run.compared(rate, size) for rate in e.learning_rates for size in e.batch_sizes)
    return save(
        f"Steps above the batch's critical rate until the best validation (the paper counts them as catapults), "
        f"{test.title} and AGOP alignment, by batch size (drawn like the paper's Fig. 9). {spread}."
        f"{_left_out(run.results.values(), ', and all with a batch size at which most diverge' if most else '')}",
        f"Three plots, one above the other, over the batch size, with error bars. {'; '.join(words)}.",
    )


def _means(axes: Axes, run: BatchRun, rate: Rate, measurement: Measurement, **style: str) -> str:
    """Draw a measurement's means over the seeds by batch size; their numbers in words."""
    sizes = run.experiment.batch_sizes
    compared = [run.compared(rate, size) for size in sizes]
    values = [mean_and_deviation(measurement.of(result) for result in results) for results in compared]
    bars = [0.0 if math.isnan(deviation) else deviation for _, deviation in values]
    means = [mean for mean, _ in values]
    for seed in run.experiment.seeds if len(run.experiment.seeds) > 1 else ():
        known = {s: r for s in sizes if not (r := run.results[rate, s, seed]).diverged and run.compared(rate, s)}
        axes.plot(list(known), [measurement.of(r) for r in known.values()], marker="", alpha=0.25, color=style["color"])
    axes.errorbar(sizes, means, bars, capsize=3, markersize=8, markerfacecolor="none", **style)
    return ", ".join(f"{_number(mean)} ({size})" for mean, size in zip(means, sizes, strict=True))


def batch_validation(run: BatchRun, small: bool = False) -> Figure | None:
    """The validation loss or error over the steps, a line for each batch size (Figs. 30, 31, 34); ``small``: at the
    second rate, ``None`` where there is none."""
    e = run.experiment
    if small and len(e.learning_rates) < 2:
        return None
    rate = e.learning_rates[-1 if small else 0]
    labelled = {f"batch size {size}": run.of(rate, size)[0] for size in e.batch_sizes}
    note = f"Each line is the first seed's training with a different batch size, at η = {rate}.".replace("eta_", "η_")
    return _validation(labelled, note, "-small" if small else "", log=True)


def learned(run: BatchRun, size: int) -> Figure:
    """What the first rate's training on batches of one size learns: the validation loss of all seeds, and the first
    rows and columns of the first seed's AGOP beside the true one. The axes are the same for every size."""
    rate = run.experiment.learning_rates[0]
    every = [result for of in run.experiment.batch_sizes for result in undiverged(run.of(rate, of))]
    shown = undiverged(run.of(rate, size))
    first = shown[0]
    corners = {"AGOP": first.corner, "the true one": first.true_corner}
    with canvas(f"learned-{size}", height=2.4) as (figure, save):
        left, *right = figure.subplots(1, 3, width_ratios=(2.2, 1, 1))
        for result in shown[::-1]:
            style = {"linewidth": 2} if result is first else {"linewidth": 0.8, "alpha": 0.3}
            left.plot(result.evaluated, _fvu(result), color=TOP, marker="", **style)
        values = np.concatenate([_fvu(result) for result in every])
        left.set(yscale="log", xlabel="step", ylabel="validation FVU")
        left.set(xlim=(0, max(r.evaluated[-1] for r in every)), ylim=(values.min() * 0.9, values.max() * 1.1))
        plain_numbers(left.yaxis, *left.get_ylim())
        for axes, (title, corner) in zip(right, corners.items(), strict=True):
            low, high = corner.min(), corner.max()
            axes.imshow((corner - low) / (high - low if high > low else 1), cmap="cividis", vmin=0, vmax=1)
            axes.set_title(title, fontsize=9)
            axes.set(xticks=[], yticks=[])
    return save(
        "The validation loss over the steps, as the fraction of variance unexplained (FVU), for all seeds; and the "
        "first rows and columns of the AGOP of one of them, beside the true one, each from 0 (dark) to 1 (light).",
        f"Lines over the steps, and two square pictures. The validation FVU of {len(shown)} trainings is at best "
        f"{number(min(_fvu(r).min() for r in shown))}. The AGOP's alignment is {_number(first.alignment)}.",
    )


def _fvu(result: Fitted) -> np.ndarray:
    return result.validation_loss / result.test_variance


def optimizers(run: OptimizerRun) -> Figure:
    """Test performance against alignment, a mark for each training (Fig. 11).

    Marks are outlines of different shapes, so that those of equal trainings lie in each other and none is hidden.
    """
    test = performance(run.experiment.measure)
    words = []
    with canvas("optimizers", height=3.8) as (figure, save):
        axes = figure.subplots()
        for name, (shape, colour) in marks(list(run.experiment.rates)).items():
            compared = undiverged(run.of(name))
            x, y = ([measurement.of(result) for result in compared] for measurement in (ALIGNMENT, test))
            style = {"marker": shape, "linestyle": "", "markersize": 9, "markeredgewidth": 1.6}
            axes.plot(x, y, markerfacecolor="none", markeredgecolor=colour, label=TITLES[name], **style)
            words.append(f"{TITLES[name]} {' and '.join(_number(mean_and_deviation(values)[0]) for values in (x, y))}")
        axes.set(xlabel="AGOP alignment", ylabel=test.title)
        axes.legend(fontsize=9, labelspacing=0.9, loc="center left", bbox_to_anchor=(1, 0.5))
    return save(
        f"{test.title.capitalize()} against AGOP alignment, a mark for each optimiser and seed (drawn like the paper's "
        f"Fig. 11).{_left_out(run.results.values())}",
        f"Scatter plot. Mean alignment and {test.title}: {'; '.join(words)}.",
    )


def marks(names: list[str]) -> dict[str, tuple[str, str]]:
    """A shape and a colour for each, no two of them the same while there are fewer than their product."""
    pairs = zip(
        itertools.cycle(_SHAPES), itertools.cycle(_COLOURS), strict=True
    )  # their numbers have no factor in common
    return dict(zip(names, pairs, strict=False))


def _validation(labelled: Mapping[str, Fitted], note: str, suffix: str = "", log: bool = False) -> Figure:
    measure = next(iter(labelled.values())).measure
    colours = colormaps["viridis"](np.linspace(0.05, 0.75, len(labelled)))
    words = []
    with canvas(f"validation{suffix}", height=3.6) as (figure, save):
        axes = figure.subplots()
        for index, (label, result) in enumerate(labelled.items()):
            name = label + (" (diverges)" if result.diverged else "")
            style = {"color": colours[index], "linestyle": ("-", "--", "-.", ":")[index % 4], "label": name}
            axes.plot(result.evaluated, result.validation, marker="", linewidth=1.7, **style)
            words.append(f"{name}: from {number(result.validation[0])} to {number(result.best_validation)} at best")
        axes.set(xlabel="iteration", ylabel=f"validation {measure}")
        if measure == "loss":
            axes.set_yscale("log")
            plain_numbers(axes.yaxis, *axes.get_ylim())
        if log and any(len(result.evaluated) > 1 for result in labelled.values()):
            axes.set_xscale("log")  # from the first evaluation after the start on
            plain_numbers(axes.xaxis, *axes.get_xlim())
        axes.legend(fontsize=9)
    return save(
        f"Validation {measure} along the trainings (drawn like the paper's Figs. 24 and 30). {note}",
        f"{len(labelled)} lines over the iterations. {'; '.join(words)}.",
    )


def _left_out(results: Iterable[Fitted], others: str = "") -> str:
    """A sentence on those that diverged, and others; empty where there are none."""
    every = list(results)
    count = sum(result.diverged for result in every)
    return f" Left out: {count} of {len(every)} trainings, which diverge{'s' * (count == 1)}{others}." if count else ""


def _number(value: float) -> str:
    return "–" if math.isnan(value) else number(value)
