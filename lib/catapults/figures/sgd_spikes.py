"""Figures of spikes in the training loss of SGD."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from ..catapult import Spike
from ..display import Figure, number
from ..experiments.sgd_spikes import SGDRun
from ..history import History
from .base import (
    INK,
    NORM,
    REST,
    TOP,
    TOTAL,
    canvas,
    draw_faint,
    log_over_iterations,
    mathtext,
    other_seeds,
    plain_numbers,
    stretches,
)

_MARKS = "Bar along the bottom: steps with η > η_crit of the batch."
_CIRCLES = "Circles: the peaks that are counted as spikes."
_BELOW = 100  # times below the smallest loss a part of it is cut off
_CUT = "Values below a hundredth of the smallest loss are cut off."
_SEEN = 800  # steps that can be told apart along an axis
_AROUND = 15  # iterations on either side of the spike that is drawn large


def critical_rates(run: SGDRun, others: Sequence[SGDRun] = ()) -> Figure:
    """The critical rates of the batches with the learning rate above, the training loss below (Figs. 5, 6a).

    ``others``: of other seeds, whose loss is drawn behind it and faint.
    """
    return _critical_rates(run, run.history, "critical-rates", "", [other.history for other in others])


def calm(run: SGDRun, others: Sequence[SGDRun] = ()) -> Figure | None:
    """The same for the training at a rate below; None where there is none."""
    histories = [other.calm for other in others if other.calm is not None]
    return None if run.calm is None else _critical_rates(run, run.calm, "calm", " at the smaller rate", histories)


def loss_and_norm(run: SGDRun, others: Sequence[SGDRun] = ()) -> Figure | None:
    """The training loss above, the norm of the kernel on the whole training set below (Figs. 7, 13, 19); None where it
    was not measured along the run. ``others``: of other seeds."""
    h = run.history
    norm = h.kernel_norm[np.isfinite(h.kernel_norm)]
    if len(norm) < 2:
        return None
    with canvas("norm", height=4.2) as (figure, save):
        above, below = figure.subplots(2, sharex=True)
        _draw_loss(above, h, run.spikes, [other.history for other in others])
        draw_faint(below, (other.history.kernel_norm for other in others), NORM, h.kernel_norm)
        _line(below, h.kernel_norm, color=NORM)
        below.set(ylabel="norm ‖K‖", xlabel="iteration")
        log_over_iterations(below, len(h))
    return save(
        "Training loss and spectral norm of the tangent kernel on the whole training set (drawn like the paper's "
        f"Fig. 7). {_marks(run.spikes)}{other_seeds(others)}",
        f"Two line plots over the iterations, logarithmic axes. {_course(run, h)} The norm of the kernel goes from "
        f"{number(norm[0])} to {number(norm[-1])}, between {number(norm.min())} and {number(norm.max())}.",
    )


def loss_split(run: SGDRun) -> Figure | None:
    """The loss split into the top-s eigenspace of the tangent kernel and the rest (Figs. 6b, 7); None where it was not
    measured along the run."""
    h, s = run.history, run.experiment.top
    if np.isfinite(h.kernel_norm).sum() < 2:
        return None
    with canvas("split") as (figure, save):
        axes = figure.subplots()
        _draw_split(axes, run)
        axes.set(xlabel="iteration")
    return save(
        f"The training loss (wide grey line) and its two parts: in the top-{s} eigenspace of the tangent kernel of the "
        f"whole training set (solid) and in the rest (dashed); drawn like the paper's Fig. 7. {_CUT} {_MARKS}",
        f"Three lines over the iterations, logarithmic loss axis. {_course(run, h)} {_course_of_parts(run)}",
    )


def highest_spike(run: SGDRun) -> Figure | None:
    """The highest spike close up: split of the loss above, norm of the kernel below; None where there is none, or
    where the kernel was not measured along the run."""
    h, found = run.history, run.spikes
    if not found or np.isfinite(h.kernel_norm).sum() < 2:
        return None
    top = max(found, key=lambda s: h.loss[s.peak])
    first, last = max(0, top.peak - _AROUND), min(len(h), top.peak + _AROUND)
    with canvas("spike", height=4.2) as (figure, save):
        above, below = figure.subplots(2, sharex=True)
        _draw_split(above, run, slice(first, last + 1))
        _line(below, h.kernel_norm, slice(first, last + 1), color=NORM, marker=".")
        below.set(ylabel="norm ‖K‖", xlabel="iteration")
        log_over_iterations(below, last, first)
    return save(
        f"A close-up of the highest spike: iterations {first} to {last}. Above, the loss (wide grey line) and its two "
        f"parts, in the top-{run.experiment.top} eigenspace (solid) and in the rest (dashed); below, the norm of the "
        f"tangent kernel. {_CUT} {_MARKS}",
        f"Two plots over iterations {first} to {last}, logarithmic axes. The loss rises from "
        f"{number(h.loss[top.start])} at iteration {top.start} to {number(h.loss[top.peak])} at iteration {top.peak} "
        f"and is {number(h.loss[top.end])} at iteration {top.end}; the norm goes "
        f"{' → '.join('unknown' if np.isnan(norm) else number(norm) for norm in run.norms(top))}.",
    )


def hessian(run: SGDRun) -> Figure | None:
    """The batches' critical rates by the kernel against those by the Hessian, one dot a step (Fig. 12); None where the
    Hessian was not measured."""
    exact, kernel = run.hessian
    if not len(exact):
        return None
    limits = [0.9 * float(min(exact.min(), kernel.min())), 1.1 * float(max(exact.max(), kernel.max()))]
    name = mathtext("b/‖K‖" if run.outputs == 1 else "bc/‖K‖")
    with canvas("hessian", height=3.6) as (figure, save):
        axes = figure.subplots()
        axes.plot(limits, limits, color=INK, linewidth=1, linestyle=":", marker="")
        axes.plot(exact, kernel, color=TOP, linestyle="", alpha=0.6)
        axes.set(
            xlabel=r"$2/\lambda_{\max}(H)$ of the batch", ylabel=f"{name} of the batch", xscale="log", yscale="log"
        )
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            plain_numbers(axis, *limits)
    return save(
        "The critical learning rate of the batches by the tangent kernel against that by the Hessian of the batch's "
        "loss, one dot per step (drawn like the paper's Fig. 12). The dotted diagonal is equality.",
        f"Scatter plot of {len(exact)} steps, logarithmic axes, with the diagonal dotted. The rates by the Hessian lie "
        f"between {number(exact.min())} and {number(exact.max())}, those by the kernel between {number(kernel.min())} "
        f"and {number(kernel.max())}.",
    )


def _critical_rates(run: SGDRun, h: History, name: str, where: str, others: list[History]) -> Figure:
    steps, batch = np.arange(len(h)), h.batch_critical_learning_rate
    spikes = run.spikes if h is run.history else run.calm_spikes
    with canvas(name, height=4.2) as (figure, save):
        above, below = figure.subplots(2, sharex=True)
        for these, colour, marker in ((~h.exceeds, REST, "."), (h.exceeds, TOP, "v")):
            above.plot(steps[these], batch[these], color=colour, linestyle="", marker=marker, markersize=4)
        above.plot(steps, h.learning_rate, color=INK, linewidth=1.5, marker="")
        above.text(1.01, h.learning_rate[-1], "η", transform=above.get_yaxis_transform(), va="center")
        above.set(ylabel="critical rate of the batch")
        log_over_iterations(above, len(h))
        _draw_loss(below, h, spikes, others)
        below.set(xlabel="iteration")
    least = "triangles are below it" if h.exceeds.any() else "none is below it"
    return save(
        f"Above, the critical learning rate of each step's batch{where}, with the learning rate η as a line: {least}. "
        f"Below, the loss on the whole training set (drawn like the paper's Fig. "
        f"{'5' if run.experiment.batch_size == 1 else '6a'}). {_marks(spikes)}{other_seeds(others)}",
        f"Two plots over the iterations, logarithmic axes. Above, dots between {number(batch.min())} and "
        f"{number(batch.max())}; the learning rate, from {number(h.learning_rate.min())} to "
        f"{number(h.learning_rate.max())}, exceeds {int(h.exceeds.sum())} of {len(h)}. {_course(run, h)}",
    )


def _draw_loss(axes: Axes, h: History, spikes: list[Spike], others: list[History]) -> None:
    draw_faint(axes, (other.loss for other in others), TOP, h.loss)
    _line(axes, h.loss, color=TOP)
    if peaks := [spike.peak for spike in spikes]:
        axes.plot(peaks, h.loss[peaks], color=INK, linestyle="", marker="o", markerfacecolor="none", markersize=8)
    axes.set(ylabel="training loss")
    _mark(axes, h, slice(0, len(h)))
    log_over_iterations(axes, len(h))


def _draw_split(axes: Axes, run: SGDRun, part: slice = slice(None)) -> None:
    h, s = run.history, run.experiment.top
    in_top, rest = h.split(s)
    marker = "" if part == slice(None) else "."
    _line(axes, h.loss, part, color=TOTAL, linewidth=5, alpha=0.8, label="loss")
    _line(axes, in_top, part, color=TOP, marker=marker, label=f"$\\mathcal{{L}}_{{\\leq {s}}}$")
    _line(axes, rest, part, color=REST, marker=marker, linestyle="--", label=f"$\\mathcal{{L}}_{{>{s}}}$")
    axes.set(ylabel="training loss")
    axes.legend()
    first, last, _ = part.indices(len(h) + 1)
    _mark(axes, h, slice(first, last - 1))
    axes.set_yscale("log")
    low, lowest = axes.get_ylim()[0], np.nanmin(h.loss[part])
    if lowest > 0 and low < lowest / _BELOW:
        axes.set_ylim(bottom=lowest / _BELOW)
    log_over_iterations(axes, last - 1, first)


def _line(axes: Axes, values: np.ndarray, part: slice = slice(None), **style) -> None:
    """What was measured, over the iterations, without a gap where it was not."""
    iterations = np.arange(len(values))[part]
    there = np.isfinite(values[part])
    axes.plot(iterations[there], values[part][there], **({"marker": "", "linewidth": 1.5} | style))


def _mark(axes: Axes, h: History, part: slice) -> None:
    """One bar for steps without a gap that could be seen, since ticks would run together."""
    steps = np.arange(len(h))[part]
    found = stretches(steps[h.exceeds[part]], gap=1 + len(steps) // _SEEN)
    for stretch in found:
        axes.axvspan(stretch[0], stretch[-1] + 1, ymax=0.025, color=INK, linewidth=0)


def _marks(spikes: list[Spike]) -> str:
    return f"{_MARKS} {_CIRCLES}" if spikes else _MARKS


def _course(run: SGDRun, h: History) -> str:
    loss = h.loss[np.isfinite(h.loss)]
    count = len(run.spikes if h is run.history else run.calm_spikes)
    end = "diverges" if h.diverged else f"ends at {number(loss[-1])}"
    spikes = "1 spike" if count == 1 else f"{count or 'no'} spikes"
    return (
        f"The loss starts at {number(loss[0])}, is at most {number(loss.max())}, has {spikes} and {end} after {len(h)} "
        f"steps; at {int(h.exceeds.sum())} of them the rate exceeds the batch's critical one."
    )


def _course_of_parts(run: SGDRun) -> str:
    top, rest = (part[np.isfinite(part)] for part in run.history.split(run.experiment.top))
    return (
        f"The part in the top-{run.experiment.top} eigenspace goes from {number(top[0])} to at most "
        f"{number(top.max())} and ends at {number(top[-1])}; the rest goes from {number(rest[0])} to at most "
        f"{number(rest.max())} and ends at {number(rest[-1])}."
    )
