"""Figures of catapults in full-batch gradient descent."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from ..display import Figure, number
from ..experiments.gd_catapult import GDRun
from .base import (
    INK,
    NORM,
    REST,
    SHADED,
    TOP,
    canvas,
    draw_faint,
    draw_split,
    end_of,
    finish,
    mathtext,
    other_seeds,
    plain_numbers,
    when_unstable,
)


def loss_curve(run: GDRun, others: Sequence[GDRun] = ()) -> Figure:
    """The training loss over the iterations (Fig. 2): the catapult. ``others``: of other seeds, behind it and faint."""
    with canvas("catapult") as (figure, save):
        _draw_loss(figure.subplots(), run, others)
    return save(
        f"Training loss under gradient descent at {number(run.learning_rate / run.critical_learning_rate)} times the "
        f"critical learning rate (drawn like the paper's Fig. 2). {SHADED.format(run.threshold)}{other_seeds(others)}",
        f"Line plot, logarithmic loss axis. {_course(run)} {when_unstable(run.history)}",
    )


def loss_and_norm(run: GDRun, others: Sequence[GDRun] = ()) -> Figure:
    """The training loss above, the spectral norm of the tangent kernel below (Fig. 13); ``others``: of other seeds."""
    h, norm = run.history, run.measured("kernel_norm")
    threshold = norm[0] * run.critical_learning_rate / run.learning_rate
    line = run.threshold.replace("‖K‖", "η")
    with canvas("norm", height=4.2) as (figure, save):
        above, below = figure.subplots(2, sharex=True)
        _draw_loss(above, run, others)
        above.set_xlabel("")
        draw_faint(below, (other.history.kernel_norm for other in others), NORM, h.kernel_norm)
        below.plot(h.iteration, h.kernel_norm, color=NORM)
        below.axhline(threshold, color=INK, linewidth=1, linestyle=":", marker="")
        below.text(1.01, threshold, line, transform=below.get_yaxis_transform(), va="center")
        below.set(ylabel="norm ‖K‖", xlabel="iteration")
        finish(below, run.history)
    return save(
        "Training loss and spectral norm of the tangent kernel (drawn like the paper's Fig. 13). Where ‖K‖ is "
        f"above the dotted line {line}, the learning rate exceeds the critical one. {SHADED.format(run.threshold)}"
        f"{other_seeds(others)}",
        f"Two line plots over the iterations, logarithmic axes. {_course(run)} The norm of the kernel starts at "
        f"{number(norm[0])}, is at most {number(norm.max())} and at least {number(norm.min())}, and ends at "
        f"{number(norm[-1])}; the line {line} is at {number(threshold)}. {when_unstable(run.history)}",
    )


def loss_split(run: GDRun) -> Figure:
    """The loss split into the top-s eigenspace of the tangent kernel and the rest, for each s (eq. 2, Figs. 3, 16)."""
    h, tops = run.history, run.history.tops
    with canvas("split", height=0.6 + 2.4 * len(tops)) as (figure, save):
        for axes, s in zip(np.atleast_1d(figure.subplots(len(tops), sharex=True)), tops, strict=True):
            draw_split(axes, h, s)
        axes.set(xlabel="iteration")
    *first, last = map(str, tops)
    parts = f"its two parts: in the top-{last} eigenspace"
    if first:
        parts = f"its two parts, one panel for each s = {', '.join(first)} and {last}: in the top-s eigenspace"
    return save(
        f"The training loss (wide grey line) and {parts} of the tangent "
        f"kernel (solid) and in the rest (dashed); drawn like the paper's Fig. {'16' if len(tops) > 1 else '3'}. "
        f"{SHADED.format(run.threshold)}",
        f"Three lines over the iterations{', a panel per dimension' if len(tops) > 1 else ''}, logarithmic loss axis. "
        f"{_course(run)} {' '.join(_course_of_parts(run, s) for s in tops)}",
    )


def hessian_along(run: GDRun) -> Figure:
    """The critical rates of Hessian and kernel over the iterations, and against each other (Fig. 12)."""
    iterations, exact, approximate = run.hessian
    with canvas("hessian", height=2.8) as (figure, save):
        left, right = figure.subplots(1, 2)
        left.plot(iterations, exact, color=TOP, label=r"$2/\lambda_{\max}(H)$")
        left.plot(iterations, approximate, color=REST, linestyle="--", label=mathtext(run.threshold))
        left.set(xlabel="iteration", ylabel="critical learning rate")
        left.legend()
        finish(left, run.history)
        limits = [0.9 * float(min(exact.min(), approximate.min())), 1.1 * float(max(exact.max(), approximate.max()))]
        right.plot(limits, limits, color=INK, linewidth=1, linestyle=":", marker="")
        right.plot(exact, approximate, color=NORM, linestyle="")
        right.set(xlabel=r"$2/\lambda_{\max}(H)$", ylabel=mathtext(run.threshold), xscale="log", yscale="log")
        right.set(xlim=limits, ylim=limits)
        for axis in (right.xaxis, right.yaxis):
            plain_numbers(axis, *limits)
    if len(iterations) == 1:
        course = (
            f"Each holds one dot: at iteration {iterations[0]} the Hessian's critical rate is {number(exact[0])}, "
            f"{run.threshold} is {number(approximate[0])}."
        )
    else:
        course = (
            f"The Hessian's critical rate goes from {number(exact[0])} to {number(exact[-1])}, {run.threshold} from "
            f"{number(approximate[0])} to {number(approximate[-1])}, at {len(iterations)} iterations."
        )
    return save(
        f"The critical learning rate by the Hessian of the loss and by the tangent kernel, over the iterations (left) "
        "and against each other, one dot per iteration (right; the dotted diagonal is equality; drawn like the paper's "
        "Fig. 12, which is for SGD). "
        f"{SHADED.format(run.threshold)}",
        "Left, two lines over the iterations, right, one against the other as dots with the diagonal dotted, all axes "
        f"of rates logarithmic. {course}",
    )


def _course_of_parts(run: GDRun, s: int) -> str:
    top, rest = (part[: run.history.measured] for part in run.history.split(s))
    return (
        f"The part in the top-{s} eigenspace goes from {number(top[0])} to at most {number(top.max())} and ends at "
        f"{number(top[-1])}; the rest goes from {number(rest[0])} to at most {number(rest.max())} and ends at "
        f"{number(rest[-1])}."
    )


def _draw_loss(axes: Axes, run: GDRun, others: Sequence[GDRun]) -> None:
    draw_faint(axes, (other.history.loss for other in others), TOP, run.history.loss)
    axes.plot(run.history.iteration, run.history.loss, color=TOP)
    axes.set(ylabel="training loss", xlabel="iteration")
    finish(axes, run.history)


def _course(run: GDRun) -> str:
    h = run.history
    peak = f", peaks at {number(h.loss[run.peak])} at iteration {run.peak}" if run.peak else ", never rises above that"
    return f"The loss starts at {number(h.loss[0])}{'' if h.diverged else peak} and {end_of(h)}."
