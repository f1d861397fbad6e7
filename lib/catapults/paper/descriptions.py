"""What was trained on what for a page, in words: chapters 1 to 3 and the page on performance."""

from collections.abc import Sequence
from typing import Any

from ..compute import Results
from ..display import Text, number
from ..experiments import Network, Page
from ..experiments.gd_catapult import GDRun
from ..experiments.match_rates import NETWORKS, MatchRun
from ..experiments.multiple_catapults import MultipleRun
from ..experiments.phases import PhasesRun
from ..experiments.scaling import CNN, FCN, WARM_STEPS, ScalingRun
from ..experiments.sgd_spikes import SGDRun
from ..experiments.stability import StabilityRun
from .provenance import origins, outcomes_of


def describe(runs: Sequence[Any], results: Results) -> Text:
    """What was trained on what, how many seeds there are, how long it took and what was there already.

    ``runs``: those of a page, one for each seed.
    """
    first, pages = runs[0], [run.experiment for run in runs]
    if isinstance(first, ScalingRun):
        return Text(f"{_scaling(first)} {cost(pages, results, 'measurement')}")
    if isinstance(first, MatchRun):
        source = first.networks["shallow"].runs[0].source.replace(f", seed {first.experiment.seeds[0]}", "")
        return Text(f"{_match_rates(first, source)}\n\n{cost(pages, results)}", {"kind": "data", "source": source})
    if isinstance(first, PhasesRun):
        parts = [_phases(first), seeds(pages), cost(pages, results)]
        return Text(" ".join(part for part in parts if part), {"kind": "data", "source": first.source})
    if isinstance(first, StabilityRun):
        result = next(iter(first.trainings.values())).result
        about = data_and_network(first.experiment, result.source, result.parameters)
        parts = [about, _watched(runs), seeds(pages), cost(pages, results)]
        return Text(" ".join(part for part in parts if part), {"kind": "data", "source": result.source})
    words = {GDRun: _descent, MultipleRun: _schedules, SGDRun: _sgd}[type(first)](first)
    about = data_and_network(first.experiment, first.source, first.parameters)
    parts = [about, words, seeds(pages), cost(pages, results)]
    return Text(" ".join(part for part in parts if part), {"kind": "data", "source": first.source})


def data_and_network(page: Network, source: str, parameters: int) -> str:
    """Sentences; ``source``: of the data, as a result has it; ``parameters``: their number."""
    size = "" if page.image_size is None else f", pooled to {page.image_size}×{page.image_size} pixels"
    return f"Data: {source} {page.n_train} samples{size}. Network: {network(page, parameters)}."


def network(page: Network, parameters: int) -> str:
    """Without a full stop; ``parameters``: their number."""
    words = {
        "fcn": f"fully connected, {page.depth} weight layers with {page.width} neurons",
        "cnn": f"convolutional, {page.depth} weight layers with {page.width} channels",
        "vit": f"vision transformer, {page.depth} blocks with {page.width} features, 4×4-pixel patches, 4 heads",
        "myrtle": f"Myrtle, 5 weight layers with {page.width} channels",
        "wrn": f"Wide ResNet {page.depth}-{page.width} "
        + ("without a norm" if page.norm is None else "with a norm over each sample instead of batch norm"),
    }[page.architecture]
    form = {"ntk": f"NTK parameterisation with gain {number(page.gain)}", "pytorch": "PyTorch's parameterisation"}
    biases = "with biases" if page.bias else "no biases"
    return f"{words}, {parameters:,} parameters, {form[page.parameterization]}, {biases}"


def cost(pages: Sequence[Page], results: Results, what: str = "training") -> str:
    """A sentence: how long the trainings took, and where they come from unless all were computed for this page."""
    outcomes = outcomes_of([experiment for page in pages for experiment in page.experiments()], results)
    seconds = number(sum(outcome.made["seconds"] for outcome in outcomes))
    many = f"The {len(outcomes)} {what}s" if len(outcomes) > 1 else f"The {what}"
    earlier = "" if all(outcome.computed for outcome in outcomes) else f" ({', '.join(origins(outcomes))})"
    return f"{many} took {seconds} s of one core{earlier}."


def seeds(pages: Sequence[Page]) -> str:
    """Which they are, and what shows which; empty for one."""
    if len(pages) == 1:
        return ""
    numbers = ", ".join(str(page.seed) for page in pages)
    return f"Seeds: {numbers}. Figures and sentences show the first; the table of claims counts all of them."


def _descent(run: GDRun) -> str:
    return f"Training: {run.experiment.steps} steps at learning rate {number(run.learning_rate)}."


def _phases(run: PhasesRun) -> str:
    e = run.experiment
    widths = ", ".join(map(str, e.widths))
    multiples = ", ".join(f"{multiple:g}" for multiple in e.multiples)
    size = "" if e.image_size is None else f", pooled to {e.image_size}×{e.image_size} pixels"
    return (
        f"Data: {run.source} {e.n_train} samples{size}. Networks: {e.architecture}, {e.depth} weight layers, of the "
        f"widths {widths}. Training: {e.steps} steps at {multiples} times the critical rate at initialisation."
    )


def _watched(runs: Sequence[StabilityRun]) -> str:
    e = runs[0].experiment
    sizes, multiples = ", ".join(map(str, e.batch_sizes)), ", ".join(f"{multiple:g}" for multiple in e.multiples)
    drawn = "drawn with replacement" if e.replacement else "by going through the shuffled training set"
    every = [t.result for run in runs for t in run.trainings.values()]
    diverged, converged = sum(r.diverged for r in every), sum(r.converged for r in every)
    return (
        f"Training: SGD with batches of {sizes}, {drawn}, at {multiples} times the critical rate at initialisation, "
        f"for {e.steps} steps or until the loss is below {number(e.stop_below)}. The loss of the whole training set is "
        f"measured every {e.loss_every} steps, ‖K‖ every {e.norm_every}, the criteria every {e.criteria_every}. Of the "
        f"{len(every)} trainings {converged} end below that loss, and {diverged} diverge."
    )


def _schedules(run: MultipleRun) -> str:
    restarts = f"at most {run.experiment.restart_steps} from the start at either final rate"
    return f"Training: {run.experiment.steps} steps under each schedule, {restarts}."


def _sgd(run: SGDRun) -> str:
    e, h = run.experiment, run.history
    fixed = "" if e.train_last_layer else "Its last layer is not trained. "
    drawn = "drawn with replacement" if e.replacement else "by going through the shuffled training set"
    end = "diverges" if h.diverged else f"ends below a loss of {number(e.stop_below)}" if h.converged else "ends"
    return f"{fixed}Training: SGD with batches of {e.batch_size}, {drawn}; it {end} after {len(h)} steps."


def _match_rates(run: MatchRun, source: str) -> str:
    e = run.experiment
    lines = [f"- {NETWORKS[name]}: {_setting(rates.runs[0])}" for name, rates in run.networks.items()]
    return (
        f"Data: {source} {e.n_train} samples, batches of {e.batch_size}, until the training loss is below "
        f"{number(e.stop_below)} or for {e.steps} steps; seeds {', '.join(map(str, e.seeds))}.\n\n" + "\n".join(lines)
    )


def _setting(run: SGDRun) -> str:
    e = run.experiment
    size = "" if e.image_size is None else f" on {e.image_size}×{e.image_size} pixels"
    rate = str(e.learning_rate).replace("eta_crit", "η_crit")
    return f"{network(e, run.parameters)}{size}; labels {e.labels}, learning rate {rate}."


def _scaling(run: ScalingRun) -> str:
    e = run.experiment
    rounds = [point.rounds for points in run.points.values() for point in points]
    counted = f"{min(rounds)} to {max(rounds)}" if min(rounds) < max(rounds) else str(min(rounds))
    return (
        f"The {FCN} has {e.width} neurons and {e.input_dim} inputs; the {CNN} has {e.depth} weight layers, "
        f"{e.channels} channels and images of {e.image_size}×{e.image_size} pixels in 3 colours. Both were trained on "
        f"{run.device} at learning rate {e.learning_rate}, in each round from the same weights. A round has "
        f"{WARM_STEPS} plain steps, and {WARM_STEPS} of ours after a first one; there were {counted} rounds."
    )
