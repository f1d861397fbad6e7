"""Figures of section 4: catapults, test performance and the AGOP."""

import math

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..display import Figure, number
from ..experiments.agop_gd import RaisedRun
from ..experiments.agop_optimizers import TITLES, OptimizerRun
from ..experiments.agop_sgd import BatchRun
from ..experiments.learning import Trained, mean_and_deviation, performance_name, performances
from .base import INK, REST, TOP, TOTAL, canvas, plain_numbers

_MARKERS = "osv^D*P"


def catapults(run: RaisedRun) -> Figure:
    """Test performance and alignment against the number of catapults (Figs. 8, 25, 27, 28)."""
    dataset = run.experiment.dataset
    counts = [r.spikes for r in run.raised]
    panels = {
        performance_name(dataset): ([*performances(run.raised, dataset)], TOP, "o"),
        "AGOP alignment": ([r.alignment for r in run.raised], REST, "v"),
    }
    with canvas("catapults", height=4.2) as (figure, save):
        for axes, (title, (values, colour, marker)) in zip(
            figure.subplots(2, sharex=True), panels.items(), strict=True
        ):
            axes.plot(counts, values, color=colour, marker=marker, linestyle="", markersize=8)
            if run.small is not None:
                of_small = run.small.alignment if title == "AGOP alignment" else performances([run.small], dataset)[0]
                axes.axhline(of_small, color=INK, linestyle=":", label="small initialisation")
                axes.legend()
            axes.set(ylabel=title)
        axes.set(xlabel="catapults", ylim=(0, 1.05))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    listed = [
        f"{title}: " + ", ".join(f"{_number(v)} ({c})" for c, v in zip(counts, values, strict=True))
        for title, (values, _, _) in panels.items()
    ]
    small = " Dotted: from the small initialisation (Fig. 25)." if run.small is not None else ""
    return save(
        "Test performance and AGOP alignment at the best validation against the number of catapults, a mark "
        f"for each training (drawn like the paper's Fig. 8).{small}",
        f"Two plots of marks above each other. By number of catapults, {'; '.join(listed)}.",
    )


def validation(run: RaisedRun) -> Figure:
    """The validation loss or error of every training over the iterations (Fig. 24)."""
    labelled = {f"{k} raise{'s' * (k != 1)}": result for k, result in enumerate(run.raised)}
    if run.small is not None:
        labelled["small initialisation"] = run.small
    return _validation(
        labelled, run.experiment.dataset, "Each line is a training with another number of raises of the rate."
    )


def rates(run: RaisedRun) -> Figure | None:
    """Training loss and learning rate of the training with most raises; ``None`` where it took no step."""
    result = run.raised[-1]
    if not len(result.batch_loss):
        return None
    with canvas("rates", height=4.2) as (figure, save):
        above, below = figure.subplots(2, sharex=True)
        above.plot(result.batch_loss, color=TOTAL, marker="")
        above.set(yscale="log", ylabel="training loss")
        below.step(range(len(result.learning_rate)), result.learning_rate, where="post", color=INK, marker="")
        below.set(yscale="log", ylabel="learning rate", xlabel="iteration")
        for axes in (above, below):
            plain_numbers(axes.yaxis, *axes.get_ylim())
    loss = result.batch_loss[np.isfinite(result.batch_loss)]
    return save(
        "Training loss and learning rate of the training with most raises.",
        f"Two lines over the iterations, logarithmic axes. The loss starts at {number(loss[0])}, is at most "
        f"{number(loss.max())} and ends at {number(loss[-1])}; the learning rate goes from "
        f"{number(result.learning_rate[0])} to {number(result.learning_rate[-1])}, at most "
        f"{number(result.learning_rate.max())}.",
    )


def pictures(run: RaisedRun) -> Figure | None:
    """The first rows and columns of the AGOP as pictures (Fig. 26); ``None`` for images, of which they show nothing."""
    if run.experiment.strong is not None:
        return None
    most = max(run.raised, key=lambda r: r.spikes)
    results = {f"catapults: {result.spikes}": result for result in (run.raised[0], most)}
    if run.small is not None:
        results["small initialisation"] = run.small
    shown = {title: result.corner for title, result in results.items()} | {"true": most.true_corner}
    with canvas("pictures", height=2.0) as (figure, save):
        for axes, (title, corner) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
            low, high = corner.min(), corner.max()
            axes.imshow((corner - low) / (high - low if high > low else 1), cmap="cividis", vmin=0, vmax=1)
            axes.set_title(title, fontsize=9)
            axes.set(xticks=[], yticks=[])
    size = len(most.corner)
    return save(
        f"The first {size} rows and columns of the AGOP on the training inputs, and of the true one on the right; each "
        f"scaled to the range from 0 (dark) to 1 (light) (drawn like the paper's Fig. 26).",
        f"{len(shown)} square pictures of {size} by {size} fields: {', '.join(shown)}. Alignment with the true one: "
        f"{', '.join(f'{_number(result.alignment)} ({title})' for title, result in results.items())}.",
    )


def batch_sizes(run: BatchRun) -> Figure:
    """Catapults, test performance and alignment against the batch size (Figs. 9, 10, 29, 32)."""
    e = run.experiment
    title = performance_name(e.dataset)
    panels = {"catapults": "catapults", "test": title, "alignment": "AGOP alignment"}
    words = []
    with canvas("batch-sizes", height=6.0) as (figure, save):
        for axes, (what, label) in zip(figure.subplots(3, sharex=True), panels.items(), strict=True):
            for rate, colour, marker in zip(e.learning_rates, (TOP, REST), "ov", strict=False):
                means, deviations = zip(
                    *(mean_and_deviation(run.measured(rate, size)[what]) for size in e.batch_sizes), strict=True
                )
                bars = [0.0 if math.isnan(d) else d for d in deviations]
                name = f"η = {str(rate).replace('eta_crit', 'η_crit')}"
                axes.errorbar(e.batch_sizes, means, bars, color=colour, marker=marker, capsize=3, label=name)
                words.append(
                    f"{label} at {name}: "
                    + ", ".join(f"{_number(m)} ({s})" for m, s in zip(means, e.batch_sizes, strict=True))
                )
            axes.set(ylabel=label, xscale="log")
        figure.axes[0].set_yscale("symlog", linthresh=1)
        figure.axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        figure.axes[0].margins(y=0.1)
        figure.axes[0].set_ylim(bottom=0)
        if len(e.learning_rates) > 1:
            figure.axes[1].legend()
        figure.axes[2].set(xlabel="batch size", xticks=e.batch_sizes, xticklabels=map(str, e.batch_sizes))
        figure.axes[2].minorticks_off()
    spread = f"Mean and standard deviation over {len(e.seeds)} seeds" if len(e.seeds) > 1 else "One seed"
    return save(
        f"Number of catapults, {title} and AGOP alignment at the best validation, by batch size (drawn like the "
        f"paper's Fig. 9). {spread}.",
        f"Three plots above each other over the batch size, with error bars. {'; '.join(words)}.",
    )


def batch_validation(run: BatchRun, small: bool = False) -> Figure | None:
    """The validation loss or error over the steps, a line for each batch size (Figs. 30, 31, 34); ``small``: at the
    second rate, ``None`` where there is none."""
    e = run.experiment
    if small and len(e.learning_rates) < 2:
        return None
    rate = e.learning_rates[-1 if small else 0]
    labelled = {f"batch size {size}": run.of(rate, size)[0] for size in e.batch_sizes}
    note = f"Each line is the first seed's training with another batch size, at η = {rate}.".replace("eta_", "η_")
    return _validation(labelled, e.dataset, note, "-small" if small else "", log=True)


def optimizers(run: OptimizerRun) -> Figure:
    """Test performance against alignment, a mark for each training (Fig. 11)."""
    import seaborn as sns  # not before it is needed: it takes a second

    title = performance_name(run.experiment.dataset)
    words = []
    with canvas("optimizers", height=3.8) as (figure, save):
        axes = figure.subplots()
        of = [TITLES[name] for name in run.experiment.rates for _ in run.experiment.seeds]
        measured = {name: run.measured(name) for name in run.experiment.rates}
        sizes = dict(zip(dict.fromkeys(of), np.geomspace(340, 60, len(measured)), strict=True))  # none hides another
        sns.scatterplot(
            x=np.concatenate([values["alignment"] for values in measured.values()]),
            y=np.concatenate([values["test"] for values in measured.values()]),
            hue=of,
            style=of,
            palette=sns.color_palette("colorblind", len(measured)),
            markers=list(_MARKERS[: len(measured)]),
            size=of,
            sizes=sizes,
            ax=axes,
        )
        for name, values in measured.items():
            means = [mean_and_deviation(values[what])[0] for what in ("alignment", "test")]
            words.append(f"{TITLES[name]} {_number(means[0])} and {_number(means[1])}")
        axes.set(xlabel="AGOP alignment", ylabel=title)
        axes.legend(fontsize=9, labelspacing=0.9, loc="center left", bbox_to_anchor=(1, 0.5))
    return save(
        f"{title.capitalize()} against AGOP alignment, a mark for each optimiser and seed (drawn like the paper's "
        "Fig. 11).",
        f"Marks in a plane. Mean alignment and {title}: {'; '.join(words)}.",
    )


def _validation(labelled: dict[str, Trained], dataset: str, note: str, suffix: str = "", log: bool = False) -> Figure:
    title = performance_name(dataset).replace("test", "validation")
    colours = colormaps["viridis"](np.linspace(0.05, 0.75, len(labelled)))
    words = []
    with canvas(f"validation{suffix}", height=3.6) as (figure, save):
        axes = figure.subplots()
        for index, (label, result) in enumerate(labelled.items()):
            curve = result.validation_loss if title == "validation loss" else result.validation_error
            style = ("-", "--", "-.", ":")[index % 4]
            _line(axes, result.iterations, curve, color=colours[index], linestyle=style, label=label)
            words.append(f"{label}: from {number(curve[0])} to {number(np.nanmin(curve))} at best")
        axes.set(xlabel="iteration", ylabel=title)
        if title == "validation loss":
            axes.set_yscale("log")
            plain_numbers(axes.yaxis, *axes.get_ylim())
        if log and any(len(result.iterations) > 1 for result in labelled.values()):
            axes.set_xscale("log")  # from the first look after the start on
            plain_numbers(axes.xaxis, *axes.get_xlim())
        axes.legend(fontsize=9)
    return save(
        f"{title.capitalize()} along the trainings (drawn like the paper's Figs. 24 and 30). {note}",
        f"{len(labelled)} lines over the iterations. {'; '.join(words)}.",
    )


def _number(value: float) -> str:
    return "–" if math.isnan(value) else number(value)


def _line(axes: Axes, x: Int[np.ndarray, " e"], y: Float[np.ndarray, " e"], **style) -> None:
    axes.plot(x, y, marker="", linewidth=1.7, **style)
