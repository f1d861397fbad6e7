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
_SHADED = "Shaded: iterations at which the learning rate exceeds the current critical rate {}."
_TOTAL, _TOP, _REST, _NORM = (sns.color_palette("colorblind")[i] for i in (7, 0, 1, 2))


def loss_curve(run: GDRun) -> Figure:
    """The training loss over the iterations (Fig. 2): the catapult."""
    with _canvas("catapult") as (figure, save):
        _draw_loss(figure.subplots(), run)
    return save(
        f"Training loss under gradient descent at {number(run.learning_rate / run.critical_learning_rate)} times the "
        f"critical learning rate (as the paper's Fig. 2). {_SHADED.format(run.threshold)}",
        f"Line plot, logarithmic loss axis. {_course(run)} {_when_unstable(run)}",
    )


def loss_and_norm(run: GDRun) -> Figure:
    """The training loss above, the spectral norm of the tangent kernel below (Fig. 13)."""
    h, norm = run.history, run.measured("kernel_norm")
    threshold = norm[0] * run.critical_learning_rate / run.learning_rate
    line = run.threshold.replace("‖K‖", "η")
    with _canvas("norm", height=4.2) as (figure, save):
        above, below = figure.subplots(2, sharex=True)
        _draw_loss(above, run)
        above.set_xlabel("")
        below.plot(h.iteration, h.kernel_norm, color=_NORM)
        below.axhline(threshold, color=_INK, linewidth=1, linestyle=":", marker="")
        below.text(1.01, threshold, line, transform=below.get_yaxis_transform(), va="center")
        below.set(ylabel="norm ‖K‖", xlabel="iteration")
        _finish(below, run)
    return save(
        "Training loss and spectral norm of the tangent kernel (as the paper's Fig. 13). Where ‖K‖ is above the dotted "
        f"line {line}, the learning rate exceeds the critical one. {_SHADED.format(run.threshold)}",
        f"Two line plots over the iterations, logarithmic axes. {_course(run)} The norm of the kernel starts at "
        f"{number(norm[0])}, is at most {number(norm.max())} and at least {number(norm.min())}, and ends at "
        f"{number(norm[-1])}; the line {line} is at {number(threshold)}. {_when_unstable(run)}",
    )


def loss_split(run: GDRun) -> Figure:
    """The loss split into the top-s eigenspace of the tangent kernel and the rest, eq. (2) (Fig. 3)."""
    h, s = run.history, run.experiment.top
    top, rest = run.measured("loss_top"), run.measured("loss_rest")
    with _canvas("split") as (figure, save):
        axes = figure.subplots()
        axes.plot(h.iteration, h.loss, color=_TOTAL, linewidth=5, marker="", alpha=0.8, label="loss")
        axes.plot(h.iteration, h.loss_top, color=_TOP, label=f"$\\mathcal{{L}}_{{\\leq {s}}}$")
        axes.plot(h.iteration, h.loss_rest, color=_REST, linestyle="--", label=f"$\\mathcal{{L}}_{{>{s}}}$")
        axes.set(ylabel="training loss", xlabel="iteration")
        axes.legend()
        _finish(axes, run)
    return save(
        f"The training loss (wide grey line) and its two parts: in the top-{s} eigenspace of the tangent kernel "
        f"(solid) and in the rest (dashed) (as the paper's Fig. 3). {_SHADED.format(run.threshold)}",
        f"Three lines over the iterations, logarithmic loss axis. {_course(run)} The part in the top-{s} eigenspace "
        f"goes from {number(top[0])} to at most {number(top.max())} and ends at {number(top[-1])}; the rest goes from "
        f"{number(rest[0])} to at most {number(rest.max())} and ends at {number(rest[-1])}.",
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
    for stretch in _unstable(run):
        axes.axvspan(stretch[0] - 0.5, stretch[-1] + 0.5, color=_INK, alpha=0.1, linewidth=0)


def _course(run: GDRun) -> str:
    h = run.history
    end = f"diverges after iteration {h.iteration[-1]}" if h.diverged else f"ends at {number(h.loss[-1])}"
    peak = f"peaks at {number(h.loss[run.peak])} at iteration {run.peak}" if run.peak else "never rises above that"
    return f"The loss starts at {number(h.loss[0])}, {peak} and {end}."


def _unstable(run: GDRun) -> list[np.ndarray]:
    """The iterations with eta > eta_crit, in stretches without a gap."""
    above = run.history.iteration[run.history.learning_rate > run.history.critical_learning_rate]
    return np.split(above, np.flatnonzero(np.diff(above) > 1) + 1) if len(above) else []


def _when_unstable(run: GDRun) -> str:
    stretches = ", ".join(f"{s[0]} to {s[-1]}" if len(s) > 1 else str(s[0]) for s in _unstable(run))
    return (
        f"The learning rate exceeds the critical one at {f'iterations {stretches}' if stretches else 'no iteration'}."
    )


@contextmanager
def _canvas(name: str, height: float = 3.0) -> Iterator[tuple[Canvas, object]]:
    """A canvas in the book's style, and the function that turns it into a figure with caption and alternative text."""
    with mpl.rc_context(_STYLE):
        figure = Canvas(figsize=(5.4, height), layout="constrained")
        figure.patch.set_alpha(0)
        svg = io.StringIO()

        def save(caption: str, alt: str) -> Figure:
            return Figure(svg.getvalue(), name, caption, alt)

        yield figure, save
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        figure.savefig(svg, format="svg", metadata={"Date": None})
