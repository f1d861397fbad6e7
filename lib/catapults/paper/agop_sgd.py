"""What the paper states about batch size, catapults, test performance and the AGOP (section 4, appendix E; Table 1)."""

import math
from collections.abc import Sequence

import numpy as np

from ..display import Text, number, table
from ..experiments.agop_sgd import BatchRun
from ..experiments.base import Rate
from . import quotes
from .claims import Claim, Claims, over_seeds, verdict
from .correlation import Order, correlated, follows
from .measurements import ALIGNMENT, STEPS_ABOVE, Measurement, ends, performance, validation

ALIGNED, AT_LOSS = 0.03, 0.1  # tolerances of Table 1


def claims(runs: Sequence[BatchRun]) -> Claims:
    """The claims of section 4 and appendix E on each run."""
    return over_seeds([_claims(run) for run in runs])


def batch_table(run: BatchRun) -> Text:
    """Means and standard deviations over the trainings that did not diverge, for each rate and batch size."""
    e, test = run.experiment, performance(run.experiment.measure)
    rows = []
    for rate in e.learning_rates:
        for size in e.batch_sizes:
            every, compared = run.of(rate, size), run.compared(rate, size)
            until = sum(int(r.evaluated[r.best]) for r in compared)
            share = f"{100 * sum(r.catapults for r in compared) / until:.0f} %" if until else "–"
            rows.append(
                (
                    written(rate),
                    "GD" if size == e.n_train else str(size),
                    STEPS_ABOVE.write_mean(compared),
                    share,
                    test.write_mean(compared),
                    ALIGNMENT.write_mean(compared),
                    number(float(np.mean([r.steps for r in every]))),
                    ends(every),
                )
            )
    measured = "steps above", "share of steps", test.title, ALIGNMENT.title, "steps", "converged"
    return Text(table(("rate", "batch size", *measured), rows))


def table_1(run: BatchRun) -> Text | None:
    """The paper's Table 1 beside what the run gave; ``None`` where the page is on something else."""
    large, test = run.experiment.learning_rates[0], performance(run.experiment.measure)
    rows = []
    for size, quote in _quoted(run).items():
        compared = run.compared(large, size)
        paper = f"{quote.alignment:g}", f"{quote.test_loss:g}"
        rows.append((str(size), paper[0], ALIGNMENT.write_mean(compared), paper[1], test.write_mean(compared)))
    header = "batch size", "alignment, paper", "alignment, here", "test loss, paper", "test loss, here"
    return Text(table(header, rows)) if rows else None


def written(rate: Rate) -> str:
    """A rate as prose has it."""
    return str(rate).replace("eta_crit", "η_crit")


def _claims(run: BatchRun) -> Claims:
    e, large = run.experiment, run.experiment.learning_rates[0]
    test, valid = performance(e.measure), validation(e.measure)
    across = "across all tasks (section 4, Fig. 9)"
    theirs = "smaller batches improve the test performance through the alignment (section 4)"
    compared = [result for size in e.batch_sizes for result in run.compared(large, size)]
    found = {
        "catapults": _trend(run, STEPS_ABOVE, True, f"{across}, as the number of catapults"),
        "performance": _trend(run, test, False, across),
        "alignment": _trend(run, ALIGNMENT, True, across),
        "correlation": correlated(compared, test, theirs, left_out(run, large)),
        "validation": _trend(run, valid, False, "as the test performance (Figs. 30, 31)", "figure 30", "figure 31"),
    }
    if len(e.learning_rates) > 1:
        found |= {"small_catapults": _none_above(run), "small_spread": _spread(run)}
    found |= {f"table_{size}": _in_table_1(run, size, quote) for size, quote in _quoted(run).items()}
    return Claims(found)


def left_out(run: BatchRun, rate: Rate) -> str:
    """A note on the trainings that diverge; empty where there are none."""
    seeds = len(run.experiment.seeds)
    notes = [
        f"{count} of {seeds} trainings at batch size {size}"
        + ("" if run.compared(rate, size) else ", which is not compared")
        for size, count in run.left_out(rate).items()
    ]
    return f"left out, because they diverge at the rate {written(rate)}: {'; '.join(notes)}" if notes else ""


def _sizes(run: BatchRun, *rates: Rate) -> list[int]:
    """The batch sizes that can be compared at these rates."""
    return [size for size in run.experiment.batch_sizes if all(run.compared(rate, size) for rate in rates)]


def _trend(run: BatchRun, measurement: Measurement, grows: bool, paper: str, *shown_in: str) -> Claim:
    """Whether a mean over the seeds goes with the batch size, at the large rate."""
    rate = run.experiment.learning_rates[0]
    sizes = _sizes(run, rate)
    beginning = f"at the rate {written(rate)} "
    order = Order("batch size", "as batches get smaller", -1, sizes, beginning, left_out(run, rate))
    values = [measurement.mean(run.compared(rate, size)) for size in sizes]
    return follows(measurement, grows, order, values, paper, *shown_in)


def _none_above(run: BatchRun) -> Claim:
    small = run.experiment.learning_rates[-1]
    most = max(float(result.catapults) for size in run.experiment.batch_sizes for result in run.of(small, size))
    return Claim(
        "at the small rate no step is above the batch's critical rate",
        "no catapults for any batch size (section 4)",
        "in no training" if most == 0 else f"up to {number(most)} in a training",
        "none",
        verdict(most == 0),
        f"At the rate {written(small)} {f'up to {number(most)}' if most else 'none'} of a training's steps are above "
        "their batch's critical rate.",
        ("figure 10", "figure 34"),
    )


def _spread(run: BatchRun) -> Claim:
    """Over the batch sizes that can be compared at both rates."""
    rates = run.experiment.learning_rates[0], run.experiment.learning_rates[-1]
    sizes, test = _sizes(run, *rates), performance(run.experiment.measure)
    means = [[test.mean(run.compared(rate, size)) for size in sizes] for rate in rates]
    large, small = (float(np.ptp(values)) if len(sizes) > 1 else math.nan for values in means)
    note = "".join(f"; {note}" for rate in rates if (note := left_out(run, rate)))
    return Claim(
        f"at the small rate the batch size has little effect on the {test.title}",
        "little (section 4, Figs. 10, 34)",
        f"the means of the batch sizes differ by {test.write(small)}; at the large rate by {test.write(large)}{note}",
        "at most half as much as at the large rate",
        verdict(None if math.isnan(large + small) else small <= large / 2),
        f"Between the batch sizes the mean {test.title} differs by {test.write(large)} at the rate {written(rates[0])} "
        f"and by {test.write(small)} at {written(rates[1])}{note}.",
        ("figure 10", "figure 34"),
    )


def _quoted(run: BatchRun) -> dict[int, quotes.Aligned]:
    """What Table 1 has on the run's batch sizes."""
    sizes = run.experiment.batch_sizes
    return {size: quote for size, quote in quotes.table_1(run.experiment).items() if size in sizes}


def _in_table_1(run: BatchRun, size: int, quote: quotes.Aligned) -> Claim:
    compared = run.compared(run.experiment.learning_rates[0], size)
    test = performance(run.experiment.measure)
    off = ALIGNMENT.mean(compared) - quote.alignment, test.mean(compared) - quote.test_loss
    ours = f"{ALIGNMENT.write_mean(compared)} and {test.write_mean(compared)}"
    theirs = f"{quote.alignment:g} and {quote.test_loss:g}"
    elsewhere = quote.elsewhere(run.experiment)
    return Claim(
        f"alignment and test loss at batch size {size}",
        f"{theirs} (Table 1)",
        ours,
        f"{ALIGNED:g} and {AT_LOSS:g}; only at the paper's sizes",
        verdict(None if elsewhere or math.isnan(sum(off)) else abs(off[0]) <= ALIGNED and abs(off[1]) <= AT_LOSS),
        f"At batch size {size} alignment and test loss are {ours}; Table 1 has {theirs}"
        f"{f', with {elsewhere}' if elsewhere else ''}.",
        ("table 1",),
    )
