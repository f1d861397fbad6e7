"""One plotting function for each kind of figure, in one style: SVG without background, colours that the colour-blind
tell apart and line styles that differ as well."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, NullFormatter

from .display import Figure, number
from .experiments import GDRun

_INK = "#222222"
_STYLE = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.marker": ".",
    "lines.markersize": 7,
    "svg.fonttype": "path",
    "svg.hashsalt": "catapults",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_TOTAL, _TOP, _REST, _NORM = (sns.color_palette("colorblind")[i] for i in (7, 0, 1, 2))


def loss_curve(run: GDRun) -> Figure:
    """The training loss over the iterations (Fig. 2): the catapult."""
    with _canvas("catapult") as (figure, save):
        _draw_loss(figure.subplots(), run)
    return save(
        f"Training loss under gradient descent at {number(run.learning_rate / run.critical_learning_rate)} times the "
        "critical learning rate. Shaded: iterations at which it exceeds the current critical rate n/‖K‖.",
        f"Line plot, logarithmic loss axis. {_course(run)}",
    )


def loss_and_norm(run: GDRun) -> Figure:
    """The training loss above, the spectral norm of the tangent kernel below (Fig. 13)."""
    h, n = run.history, run.history.steps[0]
    threshold = n.kernel_norm * n.critical_learning_rate / run.learning_rate
    with _canvas("norm", height=4.6) as (figure, save):
        loss, norm = figure.subplots(2, sharex=True)
        _draw_loss(loss, run)
        loss.set_xlabel("")
        norm.plot(h.iteration, h.kernel_norm, color=_NORM)
        norm.axhline(threshold, color=_INK, linewidth=1, linestyle=":", marker="")
        norm.text(1.01, threshold, "n/η", transform=norm.get_yaxis_transform(), va="center")
        norm.set(ylabel="norm ‖K‖", xlabel="iteration")
        _finish(norm, run)
    return save(
        "Training loss and spectral norm of the tangent kernel. Above the dotted line, ‖K‖ > n/η, the learning rate "
        "exceeds the critical one.",
        f"Two line plots over the iterations, logarithmic axes. {_course(run)} The norm of the kernel goes from "
        f"{number(h.kernel_norm[0])} over at most {number(np.nanmax(h.kernel_norm))} to {number(h.kernel_norm[-1])}; "
        f"the line n/η is at {number(threshold)}.",
    )


def loss_split(run: GDRun) -> Figure:
    """The loss split into the top-s eigenspace of the tangent kernel and the rest, eq. (2) (Fig. 3)."""
    h, s = run.history, run.experiment.top
    with _canvas("split") as (figure, save):
        axes = figure.subplots()
        axes.plot(h.iteration, h.loss, color=_TOTAL, linewidth=5, marker="", alpha=0.45, label="loss")
        axes.plot(h.iteration, h.loss_top, color=_TOP, label=f"$\\mathcal{{L}}_{{\\leq {s}}}$")
        axes.plot(h.iteration, h.loss_rest, color=_REST, linestyle="--", label=f"$\\mathcal{{L}}_{{>{s}}}$")
        axes.set(ylabel="training loss", xlabel="iteration")
        axes.legend()
        _finish(axes, run)
    return save(
        f"The training loss and its two parts: in the top-{s} eigenspace of the tangent kernel (solid) and in the rest "
        "(dashed). Shaded as in the first figure.",
        f"Three lines over the iterations, logarithmic loss axis. {_course(run)} The part in the top-{s} eigenspace "
        f"goes from {number(h.loss_top[0])} over at most {number(np.nanmax(h.loss_top))} to {number(h.loss_top[-1])}, "
        f"the rest from {number(h.loss_rest[0])} to {number(h.loss_rest[-1])}.",
    )


def _draw_loss(axes: Axes, run: GDRun) -> None:
    axes.plot(run.history.iteration, run.history.loss, color=_TOP)
    axes.set(ylabel="training loss", xlabel="iteration")
    _finish(axes, run)


def _finish(axes: Axes, run: GDRun) -> None:
    """Logarithmic axis with plain numbers, and a mark on the iterations with eta > eta_crit."""
    h = run.history
    axes.set(yscale="log", xlim=(-0.5, h.iteration[-1] + 0.5))
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    for iteration in h.iteration[h.learning_rate > h.critical_learning_rate]:
        axes.axvspan(iteration - 0.5, iteration + 0.5, color=_INK, alpha=0.1, linewidth=0)


def _course(run: GDRun) -> str:
    h = run.history
    end = f"diverges after iteration {h.iteration[-1]}" if h.diverged else f"ends at {number(h.loss[-1])}"
    peak = f"peaks at {number(h.loss[run.peak])} at iteration {run.peak}" if run.peak else "never rises above that"
    return f"The loss starts at {number(h.loss[0])}, {peak} and {end}."


@contextmanager
def _canvas(name: str, height: float = 3.2) -> Iterator[tuple[Canvas, object]]:
    """A canvas in the book's style, and the function that turns it into a figure with caption and alternative text."""
    with mpl.rc_context(_STYLE):
        figure = Canvas(figsize=(6.4, height), layout="constrained")
        figure.patch.set_alpha(0)
        svg = io.StringIO()

        def save(caption: str, alt: str) -> Figure:
            return Figure(svg.getvalue(), name, caption, alt)

        yield figure, save
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        figure.savefig(svg, format="svg", metadata={"Date": None})
