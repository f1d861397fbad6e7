"""How long a training takes and how much memory it needs, roughly, before it begins."""

import math
from collections.abc import Mapping

import psutil

from ..experiments import Experiment, Network
from ..experiments.descent import GradientDescent, Restart
from ..experiments.fits import Fit, StrongModel
from ..experiments.stochastic import StochasticDescent

_PER_SECOND = 2e10  # multiplications of one core in float32, measured with the fully connected networks
_OVERHEAD = 3e-4  # seconds of a small step
_SIDE = {"usps": 16, "fashion-mnist": 28}  # of images, in pixels; others have 32
_VECTOR = 100  # inputs of the synthetic tasks
_COPIES = 6  # of all parameters: weights, gradient, best ones, the state of an optimiser, what a step makes


def seconds(experiment: Experiment) -> float:
    """Of one core, at most: trainings that stop early take less. One second for one that is not known here."""
    e = experiment
    if isinstance(e, Restart):
        return seconds(e.of) * e.steps / e.of.steps
    if isinstance(e, GradientDescent):
        network, samples, steps = e, e.n_train, e.steps
    elif isinstance(e, StochasticDescent):
        whole = e.n_train / (e.kernel_every or e.loss_every * 3)
        network, samples, steps = e, e.batch_size + whole, e.steps
    elif isinstance(e, Fit):
        network, samples, steps = e, e.batch_size + (e.n_train + e.n_validation) / (3 * e.evaluate_every), e.steps
    elif isinstance(e, StrongModel):
        network, samples, steps = e.network(), e.batch_size + e.n_train / 60, e.steps
    else:
        return 1.0
    _, multiplications = size(network)
    return steps * (_OVERHEAD + 4 * samples * multiplications / _PER_SECOND)


def size(network: Network) -> tuple[float, float]:
    """Parameters, and multiplications of a forward pass on one sample."""
    base = network.dataset.partition(":")[0].removesuffix("-2")
    side = network.image_size or _SIDE.get(base, 32)
    channels = 1 if base in _SIDE else 3
    w, depth, pixels = float(network.width), network.depth, side**2
    if network.architecture == "fcn":
        vectors = network.image_size is None and base.startswith(("rank", "full", "sphere"))
        inputs = _VECTOR if vectors else channels * pixels
        parameters = inputs * w + (depth - 2) * w * w + w
        return parameters, parameters
    if network.architecture == "cnn":
        layers = 9 * channels * w + (depth - 2) * 9 * w * w
        return layers + w * pixels, layers * pixels
    if network.architecture == "vit":
        return 12 * depth * w * w, 12 * depth * w * w * (pixels / 16 + 1)
    if network.architecture == "myrtle":
        layers = 9 * (channels * w + 4 * w * w)
        return layers, layers * pixels / 2
    blocks = (depth - 4) / 6
    groups = [2 * blocks * 9 * (16 * w * k) ** 2 for k in (1, 2, 4)]
    return sum(groups), sum(of * pixels / 4**k for k, of in enumerate(groups))


def refuse_impossible(experiment: Experiment, device: str) -> None:
    """Raise ``ValueError`` for an experiment that needs more memory than this machine has, naming what is too large."""
    e = experiment.of if isinstance(experiment, Restart) else experiment
    network = e.network() if isinstance(e, StrongModel) else e
    if not isinstance(network, Network):
        return
    parameters, _ = size(network)
    samples = network.n_train + getattr(e, "n_validation", 0) + getattr(e, "n_test", 0)
    inputs = 3 * (network.image_size or 32) ** 2
    needs: Mapping[str, float] = {
        f"width = {network.width}, depth = {network.depth}: {parameters:.3g} parameters": 4 * _COPIES * parameters,
        f"n_train = {network.n_train}: {samples} samples": 4.0 * samples * inputs,
        f"steps = {getattr(e, 'steps', 0)}: its history": 8 * 8.0 * getattr(e, "steps", 0),
    }
    there = psutil.virtual_memory().total
    for what, memory in needs.items():
        if not memory <= there:
            shown = f"{memory / 2**30:,.0f} GiB" if math.isfinite(memory) else "without limit"
            raise ValueError(f"{what} would need {shown}; allowed is what fits into {there / 2**30:.0f} GiB")
