"""What a page of section 4 trained on what, in words. Everything is read off results: nothing here trains."""

import re
from collections.abc import Mapping, Sequence

from ..display import Text, number
from ..experiments import Experiment, Network
from ..experiments.agop_gd import RaisedRun
from ..experiments.agop_optimizers import TITLES, OptimizerRun
from ..experiments.agop_sgd import BatchRun
from ..experiments.base import Rate
from ..experiments.fits import Fitted, LearningPage, Strong, StrongModel
from .measurements import mean_and_deviation

Results = Mapping[Experiment, object]
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def describe_raises(runs: Sequence[RaisedRun], results: Results) -> Text:
    """A page of gradient descent; ``results`` has that of its strong model. Raises ``KeyError`` where it has not."""
    run = runs[0]
    e, raised = run.experiment, run.raised[1:]
    lowered = sum(result.lowered for result in raised)
    which = "none" if lowered == 0 else "each" if lowered == len(raised) else _counted(lowered)
    happened = f"happened in {which} of the {_counted(len(raised))} trainings with raises"
    if len(raised) == 1:
        happened = "happened" if lowered else "did not happen"
    text = (
        f"{_task(e, [result for run in runs for result in run.results], results)} Learning rates: "
        f"{_rate(e.learning_rate)}. The critical rate is measured every {e.critical_every} iterations. From {e.settle} "
        "iterations after the last raise on, a rate above the critical one is lowered to half of that; this "
        f"{happened}."
    )
    if run.literal is not None:
        text += f" The paper's own schedule, {_rate(e.literal_schedule)}, is tried as well."
    if run.small is not None:
        text += (
            f" The small initialisation has σ = {e.small_scale:g} and the learning rate {_rate(e.small_learning_rate)}."
        )
    seeds = [run.experiment.seed for run in runs]
    if len(seeds) > 1:
        text += f" Seeds {seeds[0]} to {seeds[-1]}: the figures show seed {seeds[0]}."
    return Text(text)


def describe_batches(runs: Sequence[BatchRun], results: Results) -> Text:
    """A page of batch sizes; arguments and errors as in :func:`describe_raises`."""
    (run,) = runs
    e, every = run.experiment, list(run.results.values())
    shuffled = "drawn without replacement until all samples have been used"
    sampling = "drawn with replacement" if e.replacement else shuffled
    return Text(
        f"{_task(e, every, results)} Where an epoch is longer than that, it is checked after each epoch. Learning "
        f"rate: {' and '.join(_with_critical(run, rate) for rate in e.learning_rates)}. Batches are {sampling}; a batch of "
        f"{e.n_train} is gradient descent. {_seeds(e.seeds)} {_ends(every)}"
    )


def describe_optimizers(runs: Sequence[OptimizerRun], results: Results) -> Text:
    """A page of optimisers; arguments and errors as in :func:`describe_raises`."""
    (run,) = runs
    e, every = run.experiment, list(run.results.values())
    rates = ", ".join(f"{TITLES[name]} {rate:g}" for name, rate in e.rates.items())
    takes_all = "; GD takes all samples" if "gd" in e.rates else ""
    how_many = _counted(len(e.rates)).capitalize()
    return Text(
        f"{_task(e, every, results)} {how_many} optimisers with these learning rates: {rates}. Batches of "
        f"{e.batch_size}, drawn without replacement until all samples have been used{takes_all}. {_seeds(e.seeds)} "
        f"{_ends(every)}"
    )


def _task(page: LearningPage, every: Sequence[Fitted], results: Results) -> str:
    """Data, network, strong model and rule to stop."""
    source, *others = dict.fromkeys(result.source for result in every)
    if others:  # of several seeds, which are named elsewhere
        source = re.sub(r", seed \d+", "", source)
    size = "" if page.image_size is None else f", pooled to {page.image_size}×{page.image_size} pixels"
    strong = page.strong_model()
    egop = "The EGOP is exact." if strong is None else _strong(strong, results[strong])
    stop = f"Training ends when its loss is below {number(page.stop_below)}, or after {page.steps} steps"
    if page.patience is not None:
        stop += f", or {page.patience} evaluations after the best one"
    return (
        f"Data: {source} {page.n_train} samples{size}. Network: {network_in_words(page, every[0].parameters)}. "
        f"Validation and test set have {page.n_validation} and {page.n_test} samples. {egop} {stop}; the loss is "
        f"checked every {page.evaluate_every} steps."
    )


def _strong(strong: StrongModel, result: Strong) -> str:
    network = network_in_words(strong.network(), result.parameters)
    return (
        f"A strong model stands for the true function: {network}, trained with Adam on {strong.n_train} samples. It "
        f"gets {100 * (1 - result.test_error):.1f} % of {strong.n_test} test samples right. Its AGOP on its training inputs "
        "stands for the EGOP."
    )


def network_in_words(network: Network, parameters: int) -> str:
    """Without a full stop; ``parameters``: how many there are."""
    depth, width = network.depth, network.width
    form = {
        "fcn": f"fully connected, {depth} weight layers with {width} neurons",
        "cnn": f"convolutional, {depth} weight layers with {width} channels",
        "vit": f"vision transformer, {depth} blocks with {width} features, 4×4-pixel patches, 4 heads",
        "myrtle": f"Myrtle, 5 weight layers with {width} channels",
        "wrn": f"Wide ResNet {depth}-{width} "
        + ("without a norm" if network.norm is None else "with a norm over each sample instead of batch norm"),
    }[network.architecture]
    parameterization = {
        "ntk": f"NTK parameterisation with gain {number(network.gain)}",
        "pytorch": "PyTorch's parameterisation",
    }[network.parameterization]
    biases = "with biases" if network.bias else "no biases"
    return f"{form}, {parameters:,} parameters, {parameterization}, {biases}"


def _with_critical(run: BatchRun, rate: Rate) -> str:
    """With the critical rate of the whole set, where it was measured."""
    every = [result for size in run.experiment.batch_sizes for result in run.of(rate, size)]
    critical, _ = mean_and_deviation(result.initial_critical_learning_rate for result in every)
    return _rate(rate) + (f" (η_crit = {number(critical)})" if critical == critical else "")


def _rate(rate: Rate) -> str:
    return str(rate).replace("eta_crit", "η_crit")


def _seeds(seeds: Sequence[int]) -> str:
    named = f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return f"{named}; each draws data, initial weights and batches."


def _ends(every: Sequence[Fitted]) -> str:
    diverged, converged = sum(r.diverged for r in every), sum(r.converged for r in every)
    end = f"{converged} of {len(every)} trainings reach that loss, {diverged} diverge{'s' * (diverged == 1)}."
    return end + (" What diverges is counted, and left out of every mean and comparison." if diverged else "")


def _counted(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)
