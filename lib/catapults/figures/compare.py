"""Curves of several trainings over each other."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np

from ..display import Figure, number
from ..history import History
from .base import NORM, REST, TOP, TOTAL, canvas, end_of, log_over_iterations, where_measured

# each with a dash of its own: colour alone does not tell lines apart
_LINES = [(TOP, "-"), (REST, "--"), (NORM, "-."), ("#cc79a7", ":"), (TOTAL, (0, (5, 1)))]


def curves(histories: Mapping[str, History]) -> Figure:
    """Training loss and, where it was measured, the norm of the kernel over the iterations, a line for each name."""
    measured = {name: np.isfinite(h.kernel_norm).sum() > 1 for name, h in histories.items()}
    with canvas("curves", height=4.4 if any(measured.values()) else 3.0) as (figure, save):
        axes = np.atleast_1d(figure.subplots(1 + any(measured.values()), sharex=True))
        for (name, h), (colour, dash) in zip(histories.items(), cycle(_LINES), strict=False):
            style = {"color": colour, "linestyle": dash, "linewidth": 1.5, "marker": ""}
            axes[0].plot(*where_measured(h.loss), label=name, **style)
            if measured[name]:
                axes[1].plot(*where_measured(h.kernel_norm), **style)
        axes[0].legend(fontsize=9)
        last = max(len(h.loss) for h in histories.values()) - 1
        for one, label in zip(axes, ("training loss", "norm ‖K‖"), strict=False):
            one.set(ylabel=label)
            log_over_iterations(one, last)
        axes[-1].set(xlabel="iteration")
    courses = "; ".join(f"{name}: it starts at {number(h.loss[0])} and {end_of(h)}" for name, h in histories.items())
    norms = " Below, the norm of the tangent kernel." if any(measured.values()) else ""
    return save(
        f"The training loss of {' and '.join(histories)}.{norms}",
        f"Line plots over the iterations, logarithmic axes. The training loss of each: {courses}.",
    )
