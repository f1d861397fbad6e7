"""What was trained on what for a page of section 4, in words. Everything is read off results: nothing here trains."""

import re
from collections.abc import Sequence
from typing import Any

from ..compute import Results
from ..display import Text, number
from ..experiments.agop_gd import RaisedRun
from ..experiments.agop_optimizers import TITLES, OptimizerRun
from ..experiments.agop_sgd import BatchRun
from ..experiments.base import Rate
from ..experiments.causes import CausesRun, Without
from ..experiments.fits import Fitted, LearningPage, Strong, StrongModel
from .descriptions import cost, data_and_network, network, seeds
from .measurements import mean_and_deviation

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def describe(runs: Sequence[Any], results: Results) -> Text:
    """What was trained on what, until when, from which seeds, how it ended and took, and what was there already.

    ``runs``: those of a page; ``results``: its own, of which the strong model's is one. Raises ``KeyError`` where they
    lack that.
    """
    first, pages = runs[0], [run.experiment for run in runs]
    every = [result for run in runs for result in _fitted(run)]
    words = {RaisedRun: _raises, BatchRun: _batches, OptimizerRun: _optimizers, CausesRun: _causes}[type(first)](first)
    of_seeds = seeds(pages) if isinstance(first, RaisedRun) else _seeds(_listed(pages))
    parts = [
        _task(first.experiment, every, results),
        words,
        of_seeds,
        _ends(first.experiment, every),
        cost(pages, results),
    ]
    return Text(" ".join(part for part in parts if part), {"kind": "data", "source": every[0].source})


def _listed(pages: Sequence[LearningPage]) -> list[int]:
    """The seeds, of a page that lists them or of one for each."""
    listed = pages[0].seeds
    return listed if isinstance(listed, list) else [page.seed for page in pages]


def _fitted(run: RaisedRun | BatchRun | OptimizerRun | CausesRun) -> list[Fitted | Without]:
    """All trainings; first one that has the number of parameters."""
    if isinstance(run, CausesRun):
        return [result for group in run.groups.values() for result in group.values()]
    return run.results if isinstance(run, RaisedRun) else list(run.results.values())


def _raises(run: RaisedRun) -> str:
    e, raised = run.experiment, run.raised[1:]
    lowered = sum(result.lowered for result in raised)
    which = "none" if lowered == 0 else "each" if lowered == len(raised) else _counted(lowered)
    happened = f"happened in {which} of the {_counted(len(raised))} trainings with raises"
    if len(raised) == 1:
        happened = "happened" if lowered else "did not happen"
    text = (
        f"Learning rates: {_rate(e.learning_rate)}. Every {e.critical_every} iterations the critical rate is "
        f"measured. From {e.settle} iterations after the last raise on, a rate above the critical one is lowered to "
        f"half of the critical rate; this {happened}."
    )
    if run.literal is not None:
        text += f" The paper's own schedule, {_rate(e.literal_schedule)}, is tried as well."
    if run.small is not None:
        rate = _rate(e.small_learning_rate)
        text += f" The small initialisation has σ = {e.small_scale:g} and the learning rate {rate}."
    return text


def _batches(run: BatchRun) -> str:
    e = run.experiment
    shuffled = "drawn without replacement until all samples have been used"
    sampling = "drawn with replacement" if e.replacement else shuffled
    return (
        "If an epoch is longer than that, the loss is checked after each epoch. Learning rate: "
        f"{' and '.join(_with_critical(run, rate) for rate in e.learning_rates)}. Batches are {sampling}; a batch of "
        f"{e.n_train} is gradient descent."
    )


def _causes(run: CausesRun) -> str:
    e = run.experiment
    text = ""
    if e.batch_sizes:
        text = f"SGD has the learning rate {_rate(e.learning_rate)}, with batches drawn as in chapter 4. "
    if e.gd is not None:
        differs = {name: value for name, value in e.gd.items() if name in ("n_train", "labels")}
        but = "".join(f", {name} = {value}" for name, value in differs.items())
        text += f"Gradient descent has the learning rates {_rate(e.gd['learning_rate'])}{but}."
    return text.strip()


def _optimizers(run: OptimizerRun) -> str:
    e = run.experiment
    rates = ", ".join(f"{TITLES[name]} {rate:g}" for name, rate in e.rates.items())
    takes_all = "; GD takes all samples" if "gd" in e.rates else ""
    return (
        f"{_counted(len(e.rates)).capitalize()} optimisers with these learning rates: {rates}. Batches of "
        f"{e.batch_size}, drawn without replacement until all samples have been used{takes_all}."
    )


def _task(page: LearningPage, every: Sequence[Fitted | Without], results: Results) -> str:
    """Data, network, strong model and rule to stop."""
    source, *others = dict.fromkeys(result.source for result in every)
    if others:  # of several seeds, which are named elsewhere
        source = re.sub(r", seed \d+", "", source)
    strong = page.strong_model()
    egop = "The EGOP is exact." if strong is None else _strong(strong, results[strong])
    stop = f"Training ends when its loss is below {number(page.stop_below)}, or after {page.steps} steps"
    if page.patience is not None:
        stop += f", or {page.patience} checks after the best validation"
    return (
        f"{data_and_network(page, source, every[0].parameters)} Validation and test set have {page.n_validation} and "
        f"{page.n_test} samples. {egop} {stop}; the loss is checked every {page.evaluate_every} steps."
    )


def _strong(strong: StrongModel, result: Strong) -> str:
    return (
        f"A strong model stands for the true function: {network(strong.network(), result.parameters)}, trained with "
        f"Adam on {strong.n_train} samples. It gets {100 * (1 - result.test_error):.1f} % of {strong.n_test} test "
        "samples right. Its AGOP on its training inputs stands for the EGOP."
    )


def _with_critical(run: BatchRun, rate: Rate) -> str:
    """With the critical rate of the whole set, where it was measured."""
    every = [result for size in run.experiment.batch_sizes for result in run.of(rate, size)]
    critical, _ = mean_and_deviation(result.initial_critical_learning_rate for result in every)
    return _rate(rate) + (f" (η_crit = {number(critical)})" if critical == critical else "")


def _rate(rate: Rate) -> str:
    return str(rate).replace("eta_crit", "η_crit")


def _seeds(listed: Sequence[int]) -> str:
    if len(listed) == 1:
        return f"Seed {listed[0]}, which draws data, initial weights and batches."
    return f"Seeds {', '.join(map(str, listed))}; each draws data, initial weights and batches."


def _ends(page: LearningPage, every: Sequence[Fitted | Without]) -> str:
    diverged, converged = sum(r.diverged for r in every), sum(r.converged for r in every)
    reach = f"{converged} of {len(every)} trainings end below a loss of {number(page.stop_below)}"
    end = f"{reach}, {diverged} diverge{'s' * (diverged == 1)}."
    return end + (" Trainings that diverge are counted, but left out of every mean and comparison." if diverged else "")


def _counted(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
