"""A picture of any history, whatever was measured in it."""

import re
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..catapult import above
from ..display import Figure, number
from ..history import History
from .base import INK, NORM, REST, TOP, TOTAL, canvas, log_over_iterations, stretches, where_measured

_MANY = 60  # states from which lines have no markers
_HEIGHT = 2.2  # of a panel, in inches


def plot(history: History, title: str = "") -> Figure:
    """All that a training has measured along its steps, a panel for each.

    - The training loss, or that of the batches where it was not measured; dashed, the validation loss. Shaded: the
      steps with eta > eta_crit(X_batch), where a batch's critical rate counts as unchanged until it is measured again.
    - The norm of the tangent kernel, with n / eta, above which eta exceeds the critical rate.
    - The parts of the loss of eq. (2), for each s of ``history.tops``.
    - A person's own quantities.

    ``title``: what the caption begins with; the figure is named after it. In a notebook it shows itself; ``.svg`` is
    its text. Raises ``ValueError`` for a history without any step.
    """
    if not len(history):
        raise ValueError("history: it has no step; allowed are trainings of at least one")
    panels = _panels(history)
    name = "-".join(re.findall("[a-z0-9]+", title.lower())) or "history"
    with canvas(name, height=0.8 + _HEIGHT * len(panels)) as (figure, save):
        every = np.atleast_1d(figure.subplots(len(panels), sharex=True))
        said = [draw(axes, history) for axes, draw in zip(every, panels, strict=True)]
        for axes in every:
            _finish(axes, history)
        every[-1].set(xlabel="iteration")
    captions, alts = (" ".join(filter(None, texts)) for texts in zip(*said, strict=True))
    kind = f"{len(panels)} line plots" if len(panels) > 1 else "Line plot"
    return save(f"{f'{title}: ' * bool(title)}{captions}", f"{kind} over the {len(history)} steps. {alts}")


Panel = Callable[[Axes, History], tuple[str, str]]  # draws, and says so in the caption and in the alternative text


def _panels(h: History) -> list[Panel]:
    """Of what was measured along the steps."""
    panels: list[Panel] = [_draw_loss]
    if _often(h.kernel_norm) and (h.kernel_norm > 0).any():
        panels.append(_draw_norm)
    if h.tops and _often(h.splits[:, 0, 0]):
        panels += [lambda axes, h, s=s: _draw_split(axes, h, s) for s in h.tops]
    return panels + [lambda axes, h, name=name: _draw_quantity(axes, h, name) for name in h.quantities]


def _draw_loss(axes: Axes, h: History) -> tuple[str, str]:
    what, alt = [], []
    if _often(h.loss):
        _line(axes, h.iteration, h.loss, color=TOP, label="training")
        what.append("The training loss")
        alt.append(f"The training loss starts at {number(h.loss[0])}, {_course(h.loss)}.")
    elif not len(h.evaluated):
        _line(axes, h.iteration[:-1], h.batch_loss, color=TOP, label="batch")
        what.append("The loss on each step's batch")
        alt.append(f"The loss on the batches starts at {number(h.batch_loss[0])}, {_course(h.batch_loss)}.")
    if len(h.evaluated):
        _line(axes, h.evaluated, h.validation_loss, color=REST, linestyle="--", label="validation")
        what.append("the validation loss (dashed)" if what else "The validation loss")
        alt.append(f"The validation loss starts at {number(h.validation_loss[0])}, {_course(h.validation_loss)}.")
    axes.set(ylabel="loss", yscale="log")
    if len(what) > 1:
        axes.legend()
    exceeds = above(h.learning_rate, h.batch_critical_learning_rate)
    steps = [(s[0] - 0.5, s[-1] - s[0] + 1) for s in stretches(np.flatnonzero(exceeds), gap=1 + len(h) // 800)]
    axes.broken_barh(steps, (0, 1), transform=axes.get_xaxis_transform(), color=INK, alpha=0.1, linewidth=0)
    if np.isfinite(h.batch_critical_learning_rate).any():
        what.append("shaded where the learning rate η exceeds the critical one of the step's batch")
        alt.append(f"The learning rate exceeds the critical one at {int(exceeds.sum())} of {len(h)} steps.")
    if h.diverged:
        alt.append("The training diverges.")
    return f"{', '.join(what)}.", " ".join(alt)


def _draw_norm(axes: Axes, h: History) -> tuple[str, str]:
    _line(axes, h.iteration, h.kernel_norm, color=NORM)
    first = np.flatnonzero(h.kernel_norm > 0)[0]
    threshold = h.kernel_norm[first] * h.critical_learning_rate[first] / h.rate_at_states
    axes.plot(h.iteration, threshold, color=INK, linewidth=1, linestyle=":", marker="")
    axes.text(1.01, threshold[-1], "n/η", transform=axes.get_yaxis_transform(), va="center")
    axes.set(ylabel="norm ‖K‖", yscale="log")
    norm = h.kernel_norm[np.isfinite(h.kernel_norm)]
    return (
        "The norm of the tangent kernel K on the whole training set, of n outputs; above the dotted line n/η the "
        "learning rate exceeds the critical one.",
        f"The norm of the kernel starts at {number(norm[0])}, {_course(norm)}; the line n/η ends at "
        f"{number(threshold[-1])}.",
    )


def _draw_split(axes: Axes, h: History, s: int) -> tuple[str, str]:
    top, rest = h.split(s)
    _line(axes, h.iteration, h.loss, color=TOTAL, linewidth=5, alpha=0.8, label="loss", marker="")
    _line(axes, h.iteration, top, color=TOP, label=f"$\\mathcal{{L}}_{{\\leq {s}}}$")
    _line(axes, h.iteration, rest, color=REST, linestyle="--", label=f"$\\mathcal{{L}}_{{>{s}}}$")
    axes.set(ylabel="training loss", yscale="log")
    axes.legend()
    return (
        f"The loss (wide grey line), its part in the top-{s} eigenspace of K (solid) and the rest (dashed).",
        f"The part in the top-{s} eigenspace {_course(top)}; the rest {_course(rest)}.",
    )


def _draw_quantity(axes: Axes, h: History, name: str) -> tuple[str, str]:
    values = h.quantity(name)
    _line(axes, h.iteration, values, color=NORM)
    axes.set(ylabel=name)
    return f"{name[:1].upper()}{name[1:]}.", f"{name} {_course(values)}."


def _line(axes: Axes, iterations: np.ndarray, values: np.ndarray, **style) -> None:
    """What was measured and is finite, without a gap where it was not."""
    there, known = where_measured(values)
    marker = "." if len(known) < _MANY else ""
    axes.plot(iterations[there], known, **({"marker": marker, "linewidth": 1.5} | style))


def _finish(axes: Axes, h: History) -> None:
    if axes.get_yscale() == "log":
        log_over_iterations(axes, len(h))
    else:
        axes.set(xlim=(-0.5, len(h) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _often(values: np.ndarray) -> bool:
    """Whether it was measured in more states than the first and the last."""
    return bool((~np.isnan(values)).sum() >= min(3, len(values)))


def _course(values: np.ndarray) -> str:
    """Where they lie and end, for an alternative text."""
    values = values[np.isfinite(values)]
    if not len(values):
        return "was never finite"
    return f"lies between {number(values.min())} and {number(values.max())} and ends at {number(values[-1])}"
