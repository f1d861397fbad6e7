"""The style that all figures share, and what belongs to every plot over the iterations."""

import io
import re
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ..display import Figure, number
from ..history import History

INK = "#222222"
_STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.marker": ".",
    "lines.markersize": 7,
    "path.simplify_threshold": 0.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "catapults",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_FAR = 10  # times beyond the range of the seed that is drawn: there other seeds leave the picture
SHADED = "Shaded: iterations at which the learning rate exceeds the current critical rate {}."
TOTAL = "#949494"
# seaborn's palette for all kinds of colour vision as matplotlib holds it: seaborn takes a second to import
TOP, NORM, REST = mpl.style.library["seaborn-v0_8-colorblind"]["axes.prop_cycle"].by_key()["color"][:3]


@contextmanager
def canvas(name: str, height: float = 3.0) -> Iterator[tuple[Canvas, object]]:
    """A canvas in the book's style, and the function that turns it into a figure with caption and alternative text."""
    with mpl.style.context(["default", _STYLE]):  # whatever the reader's own matplotlibrc asks for, such as LaTeX
        figure = Canvas(figsize=(5.4, height), layout="constrained")
        figure.patch.set_alpha(0)
        svg = io.StringIO()

        def save(caption: str, alt: str) -> Figure:
            return Figure(_shorter(svg.getvalue()), name, caption, alt)

        yield figure, save
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        figure.savefig(svg, format="svg", metadata={"Date": None})


def _shorter(svg: str) -> str:
    """The same picture with coordinates to a hundredth of a point, at half the size."""
    paths = re.compile(r'(?<= (?:d|x|y)=")[^"]+')
    return paths.sub(lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]).replace("\n", ""), svg)


def finish(axes: Axes, history: History, shade: bool = True) -> None:
    """Logarithmic axis with plain numbers; shaded, where ``shade``, at the iterations with eta > eta_crit."""
    log_over_iterations(axes, int(history.iteration[-1]))
    for stretch in unstable(history) if shade else ():
        axes.axvspan(stretch[0] - 0.5, stretch[-1] + 0.5, color=INK, alpha=0.1, linewidth=0)


def log_over_iterations(axes: Axes, last: int, first: int = 0) -> None:
    """A logarithmic axis with plain numbers over whole iterations."""
    axes.set(yscale="log", xlim=(first - 0.5, last + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain_numbers(axes.yaxis, *axes.get_ylim())


def plain_numbers(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis that covers this range, without exponents."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def draw_split(axes: Axes, history: History, s: int) -> None:
    """The loss and its two parts, eq. (2)."""
    top, rest = history.split(s)
    axes.plot(history.iteration, history.loss, color=TOTAL, linewidth=5, marker="", alpha=0.8, label="loss")
    axes.plot(history.iteration, top, color=TOP, label=f"$\\mathcal{{L}}_{{\\leq {s}}}$")
    axes.plot(history.iteration, rest, color=REST, linestyle="--", label=f"$\\mathcal{{L}}_{{>{s}}}$")
    axes.set(ylabel="training loss")
    axes.legend()
    finish(axes, history)


def draw_faint(axes: Axes, columns: Iterable[np.ndarray], colour: str, main: np.ndarray) -> None:
    """The same quantity of other seeds over the iterations, where it was measured.

    One that leaves the range of ``main`` far behind, as in a training that diverges, does not stretch the axis.
    """
    known = main[np.isfinite(main)]
    low, high = known.min() / _FAR, known.max() * _FAR
    for column in columns:
        iterations = np.flatnonzero(np.isfinite(column))
        line = Line2D(iterations, column[iterations], color=colour, alpha=0.25, linewidth=0.8, marker="", zorder=1)
        axes.add_artist(line)
        near = iterations[(column[iterations] >= low) & (column[iterations] <= high)]
        if len(near):
            axes.update_datalim(np.column_stack([near, column[near]]))


def other_seeds(others: Sized) -> str:
    """A sentence of a caption on the faint lines; empty where there are none."""
    count = len(others)
    return f" Faint: {count} other seed{'s' * (count > 1)}." if count else ""


def mathtext(threshold: str) -> str:
    """n/‖K‖ as matplotlib sets it, which lacks the sign in its text font."""
    return f"${threshold.replace('‖K‖', chr(92) + 'Vert K' + chr(92) + 'Vert')}$"


def end_of(history: History) -> str:
    """What becomes of the loss in the end, for an alternative text."""
    last, end = history.iteration[-1], history.loss[-1]
    if history.diverged:
        return f"diverges: at iteration {last} it is {number(end) if np.isfinite(end) else 'no longer finite'}"
    return f"ends at {number(end)}"


def unstable(history: History) -> list[np.ndarray]:
    """The iterations with eta > eta_crit, in stretches without a gap."""
    return stretches(history.iteration[history.rate_at_states > history.critical_learning_rate])


def stretches(iterations: np.ndarray, gap: int = 1) -> list[np.ndarray]:
    """Ascending iterations, cut where the next one is further than ``gap`` away."""
    return np.split(iterations, np.flatnonzero(np.diff(iterations) > gap) + 1) if len(iterations) else []


def when_unstable(history: History) -> str:
    """The same in words, for an alternative text."""
    every = ", ".join(f"{s[0]} to {s[-1]}" if len(s) > 1 else str(s[0]) for s in unstable(history))
    return f"The learning rate exceeds the critical one at {f'iterations {every}' if every else 'no iteration'}."
