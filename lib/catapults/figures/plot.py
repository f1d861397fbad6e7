"""Any training of the library as a picture: whatever its history has."""

import numpy as np
from matplotlib.axes import Axes

from ..display import Figure, number
from ..history import History
from .base import INK, NORM, REST, TOP, TOTAL, canvas, end_of, log_over_iterations, mark_exceeding, where_measured


def plot(history: History) -> Figure:
    """The loss with its split, the norm of the kernel with the line n / eta, and the validation loss, as far as they
    were measured. Dark bars along the bottom: steps at which the rate exceeds the critical one of the step's batch.

    In a notebook it shows itself; ``.svg`` is its text. Raises ``ValueError`` for a history without any step.
    """
    h = history
    if not len(h.learning_rate):
        raise ValueError("history: it has no step; allowed are trainings of at least one")
    panels = [_loss, *([_norm] if _any(h.kernel_norm) else []), *([_validation] if _any(h.validation_loss) else [])]
    with canvas("history", height=0.6 + 2.3 * len(panels)) as (figure, save):
        every = np.atleast_1d(figure.subplots(len(panels), sharex=True))
        said = [draw(axes, h) for draw, axes in zip(panels, every, strict=True)]
        for axes in every:
            log_over_iterations(axes, len(h.learning_rate))
        every[-1].set(xlabel="iteration")
    exceeding = h.exceeds if _any(h.batch_critical_learning_rate) else None
    bars = (
        "" if exceeding is None else f" The rate exceeds the critical one at {int(exceeding.sum())} steps, with bars."
    )
    return save(
        f"A training of {len(h.learning_rate)} steps: {', '.join(name for name, _ in said)}.{bars}",
        f"Line plots over the iterations, logarithmic axes. {' '.join(words for _, words in said)}{bars}",
    )


def _loss(axes: Axes, h: History) -> tuple[str, str]:
    known = h.loss if _any(h.loss) else np.append(h.batch_loss, np.nan)
    name = "the training loss" if _any(h.loss) else "the loss of each step's batch"
    _line(axes, known, color=TOTAL, linewidth=4, label="loss")
    if h.tops and _any(h.splits[:, -1, 0]):
        top, rest = h.split(h.tops[-1])
        _line(axes, top, color=TOP, label=f"$\\mathcal{{L}}_{{\\leq {h.tops[-1]}}}$")
        _line(axes, rest, color=REST, linestyle="--", label=f"$\\mathcal{{L}}_{{>{h.tops[-1]}}}$")
        name += f" and its part in the top-{h.tops[-1]} eigenspace"
        axes.legend(fontsize=9)
    if _any(h.batch_critical_learning_rate):
        mark_exceeding(axes, h)
    axes.set(ylabel="loss")
    finite = known[np.isfinite(known)]
    end = end_of(h) if _any(h.loss) else f"ends at {number(finite[-1])}"
    return name, f"The loss starts at {number(finite[0])}, is at most {number(finite.max())} and {end}."


def _norm(axes: Axes, h: History) -> tuple[str, str]:
    _line(axes, h.kernel_norm, color=NORM)
    _line(axes, h.kernel_norm * h.critical_learning_rate / h.rate_at_states, color=INK, linewidth=1, linestyle=":")
    axes.set(ylabel="norm ‖K‖")
    norm = h.kernel_norm[np.isfinite(h.kernel_norm)]
    return (
        "the norm of the tangent kernel, and n/η (dotted)",
        f"The norm of the kernel goes from {number(norm[0])} to {number(norm[-1])}.",
    )


def _validation(axes: Axes, h: History) -> tuple[str, str]:
    axes.plot(h.evaluated, h.validation_loss, color=TOP, marker=".")
    axes.set(ylabel="validation loss")
    return (
        "the validation loss",
        f"The validation loss goes from {number(h.validation_loss[0])} to {number(h.validation_loss[-1])}, "
        f"{number(np.nanmin(h.validation_loss))} at best.",
    )


def _line(axes: Axes, values: np.ndarray, **style) -> None:
    axes.plot(*where_measured(values), **({"marker": "", "linewidth": 1.5} | style))


def _any(column: np.ndarray) -> bool:
    return bool(np.isfinite(column).any())
