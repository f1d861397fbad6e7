"""What the paper states about batch size, catapults, test performance and the AGOP (section 4, appendix E; Table 1)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..display import Text, number, table
from ..experiments.agop_sgd import BatchRun
from ..experiments.learning import Rate, mean_and_deviation, performance_name
from .claims import Claim, Claims, verdict
from .correlation import STRONG, decimals, percent_or_loss, plus_minus, signed, spearman, together

ALIGNMENT, LOSS = 0.03, 0.1  # tolerances of Table 1


def claims(run: BatchRun, quoted: Mapping[str, Any]) -> Claims:
    """The claims of section 4 for one run; ``quoted`` holds the paper's Table 1 as ``alignment_5``, ``test_loss_5``."""
    large = run.experiment.learning_rates[0]
    every = [result for size in run.experiment.batch_sizes for result in run.of(large, size)]
    theirs = "smaller batches improve the test performance through the alignment (section 4)"
    found = {
        "catapults": _trend(run, large, "catapults", -1),
        "performance": _trend(run, large, "test", 1),
        "alignment": _trend(run, large, "alignment", -1),
        "correlation": together(every, run.experiment.dataset, theirs),
        "validation": _trend(run, large, "validation", 1),
    }
    if len(run.experiment.learning_rates) > 1:
        found |= {"small_catapults": _no_catapults(run), "small_spread": _spread(run)}
    for size in run.experiment.batch_sizes:
        if f"alignment_{size}" in quoted:
            found[f"table_{size}"] = _table_1(run, large, size, quoted)
    return Claims(found)


def batch_table(run: BatchRun) -> Text:
    """Means and standard deviations over the seeds, for each rate and batch size."""
    e, loss = run.experiment, _is_loss(run)
    rows = []
    for rate in e.learning_rates:
        for size in e.batch_sizes:
            m = {name: mean_and_deviation(values) for name, values in run.measured(rate, size).items()}
            results = run.of(rate, size)
            rows.append(
                (
                    _rate(rate),
                    "GD" if size == e.n_train else str(size),
                    plus_minus(*m["catapults"], digits=0),
                    plus_minus(*m["test"], digits=3) if loss else plus_minus(*m["test"], 1, 100, " %"),
                    plus_minus(*m["alignment"], digits=3),
                    number(float(np.mean([len(r.batch_loss) for r in results]))),
                    f"{sum(r.converged for r in results)} of {len(results)}"
                    + (f", {diverged} diverge" if (diverged := sum(r.diverged for r in results)) else ""),
                )
            )
    title = performance_name(e.dataset)
    return Text(table(("rate", "batch size", "catapults", title, "alignment", "steps", "converged"), rows))


def _is_loss(run: BatchRun) -> bool:
    return performance_name(run.experiment.dataset) == "test loss"


def _rate(rate: Rate) -> str:
    return str(rate).replace("eta_crit", "η_crit")


def _means(run: BatchRun, rate: Rate, what: str) -> list[float]:
    if what == "validation":
        field = "validation_loss" if _is_loss(run) else "validation_error"
        return [
            float(np.mean([getattr(r, field)[r.best] for r in run.of(rate, s)])) for s in run.experiment.batch_sizes
        ]
    return [mean_and_deviation(run.measured(rate, size)[what])[0] for size in run.experiment.batch_sizes]


def _trend(run: BatchRun, rate: Rate, what: str, sign: int) -> Claim:
    """Whether a mean over the seeds goes with the batch size: ``sign`` +1 up, -1 down."""
    sizes, values = run.experiment.batch_sizes, _means(run, rate, what)
    rank = spearman(sizes, values) if len(sizes) > 2 else math.nan
    performance = performance_name(run.experiment.dataset)
    title = {
        "catapults": "number of catapults",
        "test": performance,
        "validation": performance.replace("test", "best validation"),
    }.get(what, what)
    better = "falls" if sign > 0 else "grows"
    write = {
        "catapults": lambda v: f"{v:.0f}",
        "alignment": lambda v: decimals(v, 3),
    }.get(what, lambda v: percent_or_loss(v, _is_loss(run)))
    listed = ", ".join(f"{write(value)} ({size})" for size, value in zip(sizes, values, strict=True))
    change = values[-1] - values[0]
    holds = None if math.isnan(rank + change) else sign * rank >= STRONG and sign * change > 0
    return Claim(
        f"the {title} {better} as batches get smaller",
        "as the test performance (Figs. 30, 31)" if what == "validation" else "across all tasks (section 4, Fig. 9)",
        f"{listed}; rank correlation with the batch size {signed(rank)}",
        f"Spearman's rank correlation of batch size and mean at least {STRONG:g} in size, with the paper's sign",
        verdict(holds),
        f"At the rate {_rate(rate)} the {title} by batch size is {listed}.",
        ("figure 30", "figure 31") if what == "validation" else (),
    )


def _no_catapults(run: BatchRun) -> Claim:
    small = run.experiment.learning_rates[-1]
    counts = _means(run, small, "catapults")
    return Claim(
        "at the small rate there are no catapults",
        "none for any batch size (section 4)",
        f"at most {number(max(counts))} for a batch size",
        "none",
        verdict(max(counts) == 0),
        f"At the rate {_rate(small)} the largest mean number of catapults of a batch size is {number(max(counts))}.",
        ("figure 10", "figure 34"),
    )


def _spread(run: BatchRun) -> Claim:
    large, small = run.experiment.learning_rates[0], run.experiment.learning_rates[-1]
    spreads = [float(np.ptp(_means(run, rate, "test"))) for rate in (large, small)]
    words = [percent_or_loss(spread, _is_loss(run)) for spread in spreads]
    title = performance_name(run.experiment.dataset)
    return Claim(
        f"at the small rate the batch size has little effect on the {title}",
        "little (section 4, Figs. 10, 34)",
        f"means over the batch sizes differ by {words[1]}; at the large rate by {words[0]}",
        "at most half as much as at the large rate",
        verdict(spreads[1] <= spreads[0] / 2),
        f"Between the batch sizes the mean {title} differs by {words[0]} at the rate {_rate(large)} and by {words[1]} "
        f"at {_rate(small)}.",
        ("figure 10", "figure 34"),
    )


def _table_1(run: BatchRun, rate: Rate, size: int, quoted: Mapping[str, Any]) -> Claim:
    measured = {name: mean_and_deviation(values) for name, values in run.measured(rate, size).items()}
    theirs = quoted[f"alignment_{size}"], quoted[f"test_loss_{size}"]
    ours = measured["alignment"][0], measured["test"][0]
    of_paper = all(getattr(run.experiment, name) == value for name, value in quoted.get("settings", {}).items())
    meets = abs(ours[0] - theirs[0]) <= ALIGNMENT and abs(ours[1] - theirs[1]) <= LOSS
    values = f"{plus_minus(*measured['alignment'], digits=3)} and {plus_minus(*measured['test'], digits=3)}"
    return Claim(
        f"alignment and test loss at batch size {size}",
        f"{theirs[0]:g} and {theirs[1]:g} (Table 1)",
        values,
        f"{ALIGNMENT:g} and {LOSS:g}; only at the paper's sizes",
        verdict(meets if of_paper and not math.isnan(sum(ours)) else None),
        f"At batch size {size} alignment and test loss are {values}; Table 1 has {theirs[0]:g} and {theirs[1]:g}.",
        ("table 1",),
    )
