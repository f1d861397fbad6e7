"""A picture of what a monitor has read: loss, rate and critical rate, and what the probe says."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from ..display import Figure, number
from .base import INK, NORM, REST, TOP, canvas, log_over_iterations, stretches, where_measured

if TYPE_CHECKING:  # which imports PyTorch, and no figure needs it
    from ..monitor import Readings

_HEIGHT = 2.2  # of a panel, in inches
_MANY = 60  # measurements from which lines have no markers


def plot(readings: "Readings", title: str = "", rise: float = 2.0) -> Figure:
    """Of a :class:`catapults.monitor.Monitor`'s readings, a panel for each of these, as far as it was measured:

    - the loss of each step's batch, with its spikes shaded;
    - the rate that was applied, the one that was asked for where it was lowered (dotted), and the critical one;
    - on the probe: the norm of the kernel; the alignment of its AGOP with the first one.

    ``title``: what the caption begins with, and the figure is named after; ``rise``: the factor of a spike.

    Raises ``ValueError`` for readings without a step.
    """
    if not len(readings):
        raise ValueError("readings: they have no step; allowed are trainings of at least one")
    panels: list[Callable[[Axes, Readings], tuple[str, str]]] = [lambda axes, r: _loss(axes, r, rise), _rates]
    panels += [
        lambda axes, r, name=name: _probed(axes, r, name)
        for name in _PROBED
        if np.isfinite(readings.column(name)).any()
    ]
    name = "-".join(re.findall("[a-z0-9]+", title.lower())) or "monitor"
    with canvas(name, height=0.8 + _HEIGHT * len(panels)) as (figure, save):
        every = np.atleast_1d(figure.subplots(len(panels), sharex=True))
        said = [draw(axes, readings) for axes, draw in zip(every, panels, strict=True)]
        every[-1].set(xlabel="step")
    captions, alts = (" ".join(texts) for texts in zip(*said, strict=True))
    return save(f"{f'{title}: ' * bool(title)}{captions}", f"Line plots over {len(readings)} steps. {alts}")


def _loss(axes: Axes, readings: "Readings", rise: float) -> tuple[str, str]:
    loss, found = readings.column("loss"), readings.diagnoses(rise)
    _line(axes, loss, color=TOP)
    log_over_iterations(axes, len(readings))
    axes.set(ylabel="batch loss")
    for diagnosis in found:
        axes.axvspan(diagnosis.start, diagnosis.end, color=INK, alpha=0.1, linewidth=0)
    known = loss[np.isfinite(loss)]
    alt = (
        f"The loss begins at {number(known[0])} and ends at {number(known[-1])}." if len(known) else "No loss is known."
    )
    spikes = f"{len(found)} spike{'s' * (len(found) != 1)}"
    return f"The loss on each step's batch, with {spikes} (shaded)." if found else "The loss on each step's batch.", (
        f"{alt} It has {spikes}."
    )


def _rates(axes: Axes, readings: "Readings") -> tuple[str, str]:
    asked, applied, critical = (readings.column(name) for name in ("rate", "applied", "critical"))
    lowered = bool((applied < asked).any())
    _line(axes, np.where(np.isfinite(critical), critical, np.nan), color=NORM, label="critical")
    _line(axes, applied, color=INK, marker="", label="rate")
    if lowered:
        _line(axes, asked, color=INK, linestyle=":", marker="", linewidth=1, label="asked for")
    log_over_iterations(axes, len(readings))
    axes.set(ylabel="learning rate")
    axes.legend()
    measured = [row.exceeds for row in readings.rows if row.exceeds is not None]
    above = np.array([bool(row.exceeds) for row in readings.rows])
    for stretch in stretches(np.flatnonzero(above), gap=1 + len(readings) // 800):
        axes.axvspan(stretch[0], stretch[-1] + 1, ymax=0.025, color=INK, linewidth=0)
    bars = " Bars at the bottom: steps measured to exceed." if above.any() else ""
    asked_for = ", the rate that was asked for (dotted)" if lowered else ""
    return (
        f"The rate of each step{asked_for} and the critical rate of its batch where it was measured.{bars}",
        f"The rate exceeds the critical one at {sum(map(bool, measured))} of {len(measured)} measured steps.",
    )


_PROBED = {
    "norm": ("norm ‖K‖", "The norm of the probe's tangent kernel.", REST),
    "alignment": ("alignment", "The alignment of the probe's AGOP with the first one.", TOP),
}


def _probed(axes: Axes, readings: "Readings", name: str) -> tuple[str, str]:
    label, caption, colour = _PROBED[name]
    values = readings.column(name)
    _line(axes, values, color=colour)
    if name == "norm":
        log_over_iterations(axes, len(readings))
    axes.set(ylabel=label)
    known = values[np.isfinite(values)]
    return caption, f"{caption.removesuffix('.')} begins at {number(known[0])} and ends at {number(known[-1])}."


def _line(axes: Axes, values: np.ndarray, **style) -> None:
    """What was measured and is finite, without a gap where it was not."""
    there, known = where_measured(values)
    axes.plot(there, known, **({"marker": "." if len(known) < _MANY else "", "linewidth": 1.5} | style))
