"""Figures of several catapults in one training."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from ..display import Figure, number
from ..experiments.multiple_catapults import MultipleRun, Phase
from ..history import History
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
    other_seeds,
    when_unstable,
)

_RATES = "Triangles: the iterations at which another rate is set."


def loss_and_norm(phase: Phase, name: str, whose: str, others: Sequence[Phase] = ()) -> Figure:
    """The training loss above, the norm of the kernel and the line n / eta below (Fig. 4). ``others``: other seeds'."""
    h = phase.history
    with canvas(name, height=4.2) as (figure, save):
        above, below = figure.subplots(2, sharex=True)
        draw_faint(above, (other.history.loss for other in others), TOP, h.loss)
        draw_faint(below, (other.history.kernel_norm for other in others), NORM, h.kernel_norm)
        above.plot(h.iteration, h.loss, color=TOP, markersize=4)
        above.set(ylabel="training loss")
        below.plot(h.iteration, h.kernel_norm, color=NORM, markersize=4)
        line = h.kernel_norm * h.critical_learning_rate / h.rate_at_states
        below.step(h.iteration, line, where="mid", color=INK, linewidth=1, linestyle=":", marker="")
        name_of_line = phase.threshold.replace("‖K‖", "η")
        below.text(1.01, line[h.measured - 1], name_of_line, transform=below.get_yaxis_transform(), va="center")
        below.set(ylabel="norm ‖K‖", xlabel="iteration")
        for axes in (above, below):
            finish(axes, h)
        _mark_rates(above, phase)
    return save(
        f"Training loss and spectral norm of the tangent kernel under {whose} schedule (drawn like the paper's Fig. "
        f"4). Where ‖K‖ is above the dotted line {name_of_line}, the learning rate exceeds the critical one. "
        f"{SHADED.format(phase.threshold)} {_RATES}{other_seeds(others)}",
        f"Two line plots over the iterations, logarithmic axes. {_rates(phase)} {_course(h)} {_spikes(phase)} The norm "
        f"of the kernel goes from {number(h.kernel_norm[0])} to {number(h.kernel_norm[h.measured - 1])}. "
        f"{when_unstable(h)}",
    )


def loss_split(phase: Phase, name: str, whose: str) -> Figure:
    """The loss split into the top-s eigenspace of the tangent kernel and the rest (Fig. 17)."""
    h, s = phase.history, phase.history.tops[-1]
    top, rest = h.loss_top[: h.measured], h.loss_rest[: h.measured]
    with canvas(name) as (figure, save):
        axes = figure.subplots()
        draw_split(axes, h, s)
        axes.set(xlabel="iteration")
        for line in axes.lines:
            line.set_markersize(3)
        _mark_rates(axes, phase)
    return save(
        f"The training loss (wide grey line) under {whose} schedule and its two parts: in the top-{s} eigenspace of "
        f"the tangent kernel (solid) and in the rest (dashed); drawn like the paper's Fig. 17. "
        f"{SHADED.format(phase.threshold)} {_RATES}",
        f"Three lines over the iterations, logarithmic loss axis. {_course(h)} {_spikes(phase)} The part in the "
        f"top-{s} eigenspace goes from {number(top[0])} to at most {number(top.max())} and ends at {number(top[-1])}; "
        f"the rest goes from {number(rest[0])} to at most {number(rest.max())} and ends at {number(rest[-1])}.",
    )


def restarts(run: MultipleRun) -> Figure:
    """The loss of trainings that begin at the rates with which the schedules end (Fig. 18)."""
    paper, ours = run.paper_restart, run.our_restart
    with canvas("restarts") as (figure, save):
        axes = figure.subplots()
        for phase, color, style, label in ((ours, REST, "--", "our schedule's"), (paper, TOP, "-", "the paper's")):
            h = phase.history
            label = f"{label} final rate, {number(phase.final_rate)}"
            axes.plot(h.iteration, h.loss, color=color, linestyle=style, label=label)
        longest = max((paper, ours), key=lambda phase: len(phase.history))
        finish(axes, longest.history, shade=False)
        axes.set(ylabel="training loss", xlabel="iteration")
        axes.legend()
    return save(
        "Training loss of gradient descent from the start at the rates with which the two schedules end (drawn "
        "like the paper's Fig. 18). Where a line breaks off, training diverges.",
        f"Two lines over the iterations, logarithmic loss axis. At the paper's final rate, {number(paper.final_rate)}: "
        f"{_course(paper.history)} At ours, {number(ours.final_rate)}: {_course(ours.history)}",
    )


def _mark_rates(axes: Axes, phase: Phase) -> None:
    for stretch in phase.stretches[1:]:
        axes.plot(stretch.first, 1.0, marker="v", color=INK, transform=axes.get_xaxis_transform(), clip_on=False)


def _rates(phase: Phase) -> str:
    stretches = [f"{number(s.learning_rate)} from iteration {s.first} on" for s in phase.stretches]
    return f"The learning rate is {', '.join(stretches)}."


def _course(h: History) -> str:
    most = "" if h.diverged else f", is at most {number(h.loss.max())}"
    return f"The loss starts at {number(h.loss[0])}{most} and {end_of(h)}."


def _spikes(phase: Phase) -> str:
    found = [f"iteration {c.peak} ({number(phase.history.loss[c.peak])})" for c in phase.catapults]
    return f"Catapults peak at {', '.join(found)}." if found else "There is no catapult."
