"""What the paper states about batch size, catapults, test performance and the AGOP (section 4, appendix E; Table 1)."""

import math
from collections.abc import Sequence

import numpy as np

from ..display import Text, number, table
from ..experiments.agop_sgd import BatchRun
from ..experiments.base import Rate
from ..experiments.fits import undiverged
from . import quotes
from .claims import COMPARED, NOT_COMPARED, Claim, Claims, Tolerance, of_share, within
from .correlation import Order, follows, together
from .measurements import (
    ALIGNMENT,
    NORM,
    STEPS_ABOVE,
    TEST_LOSS,
    Measurement,
    ends,
    linear_fvu,
    nothing_to_compare,
    performance,
    told_apart,
    validation,
)

ALIGNED, AT_LOSS = 0.03, 0.1  # tolerances of Table 1
LITTLE = Tolerance("at most half as much as at the large rate", lambda spreads: spreads[1] <= spreads[0] / 2)


def claims(runs: Sequence[BatchRun]) -> Claims:
    """The claims of section 4 and appendix E over the seeds, which are all in one run."""
    (run,) = runs
    return _claims(run)


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
                    NORM.write_mean(compared),
                    number(float(np.mean([r.steps for r in every]))),
                    ends(every),
                )
            )
    measured = "steps above", "share of steps", test.title, ALIGNMENT.title, "‖K‖, best / first", "steps", "converged"
    text = table(("rate", "batch size", *measured), rows)
    linear = linear_fvu(run.results.values())
    if not math.isnan(linear):
        text += f"\n\nA constant has the FVU 1, the best linear predictor {linear:.2f}."
    return Text(text)


def table_1(run: BatchRun) -> Text | None:
    """The paper's Table 1 beside what the run gave; ``None`` where the page is on something else."""
    large, test = run.experiment.learning_rates[0], TEST_LOSS
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
    unless = nothing_to_compare(compared, run.strong, e.classes)
    apart = told_apart(compared, e.measure, e.n_test * len(e.seeds))
    rows = [undiverged(run.results[large, size, s] for size in _sizes(run, large)) for s in e.seeds]
    thirty = ("figure 30", "figure 31")
    found = {
        "steps_above": _trend(run, STEPS_ABOVE, True, f"{across}, as the number of catapults"),
        "performance": _trend(run, test, False, across, unless=unless, apart=apart),
        "alignment": _trend(run, ALIGNMENT, True, across, unless=unless),
        "correlation": together(rows, test, theirs, left_out(run, large), unless),
        "validation": _trend(run, valid, False, "as the test performance (Figs. 30, 31)", *thirty, unless=unless),
    }
    if len(e.learning_rates) > 1:
        found |= {"small_catapults": _none_above(run), "small_spread": _spread(run, unless)}
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


def _trend(
    run: BatchRun,
    measurement: Measurement,
    grows: bool,
    paper: str,
    *shown_in: str,
    unless: str = "",
    apart: float = 0.0,
) -> Claim:
    """Whether a measurement goes with the batch size, at the large rate."""
    rate = run.experiment.learning_rates[0]
    order = Order("batch size", "as batches get smaller", -1, f"at the rate {written(rate)} ", left_out(run, rate))
    by_seed = _by_seed(run, rate, measurement)
    return follows(measurement, grows, order, by_seed, paper, *shown_in, unless=unless, apart=apart)


def _by_seed(run: BatchRun, rate: Rate, measurement: Measurement, *others: Rate) -> list[dict[float | int, float]]:
    """A measurement by batch size for each seed, of the trainings that do not diverge, at sizes at which most do not;
    with ``others``, at sizes for which that holds at these rates, too."""
    sizes = _sizes(run, rate, *others)
    of_seeds = ({size: run.results[rate, size, seed] for size in sizes} for seed in run.experiment.seeds)
    return [{size: measurement.of(r) for size, r in results.items() if not r.diverged} for results in of_seeds]


def _none_above(run: BatchRun) -> Claim:
    e, small = run.experiment, run.experiment.learning_rates[-1]
    most = [max(run.results[small, size, seed].catapults for size in e.batch_sizes) for seed in e.seeds]
    held = most.count(0), len(most)
    ours = "in no training" if max(most) == 0 else f"up to {number(max(most))} in a training"
    return Claim(
        "at the small rate no step is above the batch's critical rate",
        "no catapults for any batch size (section 4)",
        ours,
        "none in a seed's trainings",
        of_share(*held),
        f"At the rate {written(small)} steps above their batch's critical rate are found {ours}.",
        ("figure 10", "figure 34"),
        held,
    )


def _spread(run: BatchRun, unless: str) -> Claim:
    """Over the batch sizes that can be compared at both rates."""
    rates = run.experiment.learning_rates[0], run.experiment.learning_rates[-1]
    test = performance(run.experiment.measure)
    of_rates = [_by_seed(run, rate, test, *rates) for rate in rates]
    spreads = [
        (float(np.ptp([a[s] for s in both])), float(np.ptp([b[s] for s in both])))
        for a, b in zip(*of_rates, strict=True)
        if len(both := sorted(a.keys() & b.keys())) > 1
    ]
    held = sum(map(LITTLE.holds, spreads)), len(spreads)
    large, small = (float(np.median([pair[k] for pair in spreads])) if spreads else math.nan for k in (0, 1))
    note = "".join(f"; {note}" for rate in rates if (note := left_out(run, rate)))
    compared = spreads and not unless
    return Claim(
        f"at the small rate the batch size has little effect on the {test.title}",
        "little (section 4, Figs. 10, 34)",
        f"between batch sizes a seed differs by {test.write(small)} in the median; at the large rate by "
        f"{test.write(large)}{note}",
        LITTLE.words,
        of_share(*held) if compared else NOT_COMPARED,
        f"Between the batch sizes a seed's {test.title} differs by {test.write(large)} at the rate {written(rates[0])} "
        f"and by {test.write(small)} at {written(rates[1])}, in the median of the seeds{note}.",
        ("figure 10", "figure 34"),
        held if compared else None,
        why=unless
        or ("" if spreads else "there are not two batch sizes at which trainings at both rates do not diverge"),
    )


def _quoted(run: BatchRun) -> dict[int, quotes.Aligned]:
    """What Table 1 has on the run's batch sizes."""
    sizes = run.experiment.batch_sizes
    return {size: quote for size, quote in quotes.table_1(run.experiment).items() if size in sizes}


def _in_table_1(run: BatchRun, size: int, quote: quotes.Aligned) -> Claim:
    """By the means over the seeds, as the paper's are."""
    compared = run.compared(run.experiment.learning_rates[0], size)
    of_alignment, of_loss = within(ALIGNED, quote.alignment), within(AT_LOSS, quote.test_loss)
    verdicts = [of_alignment.judge(ALIGNMENT.mean(compared)), of_loss.judge(TEST_LOSS.mean(compared))]
    ours = f"{ALIGNMENT.write_mean(compared)} and {TEST_LOSS.write_mean(compared)}"
    theirs = f"{quote.alignment:g} and {quote.test_loss:g}"
    elsewhere = quote.elsewhere(run.experiment)
    unless = f"Table 1 is for {elsewhere}" if elsewhere else "" if compared else "most trainings diverge"
    verdict = max(verdicts, key=COMPARED.index) if not unless and NOT_COMPARED not in verdicts else NOT_COMPARED
    return Claim(
        f"alignment and test loss at batch size {size}",
        f"{theirs} (Table 1)",
        ours,
        f"the means over the seeds {of_alignment.words} and {of_loss.words}",
        verdict,
        f"At batch size {size} alignment and test loss are {ours}; Table 1 has {theirs}"
        f"{f', with {elsewhere}' if elsewhere else ''}.",
        ("table 1",),
        why=unless,
    )
