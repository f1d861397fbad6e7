"""Curves of several trainings over each other."""

from collections.abc import Mapping

import numpy as np

from ..display import Figure, number
from ..history import History
from .base import canvas, end_of, log_over_iterations, plain_numbers

# seaborn's palette for all kinds of colour vision, and a dash for each: colour alone does not tell lines apart
_LINES = [("#0173b2", "-"), ("#d55e00", "--"), ("#029e73", "-."), ("#cc78bc", ":"), ("#949494", (0, (5, 1)))]


def curves(histories: Mapping[str, History]) -> Figure:
    """Training loss and, where it was measured, the norm of the kernel over the iterations, a line for each name."""
    measured = {name: np.isfinite(h.kernel_norm).sum() > 1 for name, h in histories.items()}
    with canvas("curves", height=4.4 if any(measured.values()) else 3.0) as (figure, save):
        axes = np.atleast_1d(figure.subplots(1 + any(measured.values()), sharex=True))
        for (name, h), (colour, dash) in zip(histories.items(), _cycled(len(histories)), strict=True):
            style = {"color": colour, "linestyle": dash, "linewidth": 1.5, "marker": ""}
            axes[0].plot(*_there(h.loss), label=name, **style)
            if measured[name]:
                axes[1].plot(*_there(h.kernel_norm), **style)
        axes[0].set(ylabel="training loss")
        axes[0].legend(fontsize=9)
        last = max(len(h.loss) for h in histories.values()) - 1
        for one, label in zip(axes, ("training loss", "norm ‖K‖"), strict=False):
            one.set(ylabel=label)
            log_over_iterations(one, last)
            plain_numbers(one.yaxis, *one.get_ylim())
        axes[-1].set(xlabel="iteration")
    courses = "; ".join(f"{name}: it starts at {number(h.loss[0])} and {end_of(h)}" for name, h in histories.items())
    norms = " Below, the norm of the tangent kernel." if any(measured.values()) else ""
    return save(
        f"The training loss of {' and '.join(histories)}.{norms}",
        f"Line plots over the iterations, logarithmic axes. The training loss of each: {courses}.",
    )


def _there(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    iterations = np.flatnonzero(np.isfinite(column))
    return iterations, column[iterations]


def _cycled(count: int) -> list[tuple[str, object]]:
    return [_LINES[k % len(_LINES)] for k in range(count)]
