"""How long a training takes and how much memory it needs, roughly, before it begins."""

import math
from collections.abc import Mapping

import psutil

from .. import data
from ..experiments import Experiment, Network
from ..experiments.descent import GradientDescent, Restart
from ..experiments.expansion import ExpandedDescent
from ..experiments.fits import Fit, StrongModel
from ..experiments.recurrence import Recurrence
from ..experiments.scaling import Scaling
from ..experiments.stochastic import StochasticDescent

_PER_SECOND = 4e10  # multiplications of one core in float32, measured with networks of every kind
_OVERHEAD = 2e-4  # seconds of a layer's part in a small step
_MEASURING = 4  # small steps in the time of one that measures the kernel
_PRODUCTS = 50  # with vectors, instead of a kernel that does not fit
_HESSIAN = 12  # gradients in the time of a measurement of the Hessian
_EXPANDED = {"linear": 3, "quadratic": 5, "frozen gates": 3}  # steps of the network in the time of one of these models
_START = 1.0  # seconds of a process to begin and to read data
_TIMING = 60.0  # seconds of the page on performance with the sizes of laptop
_LONGEST = 30 * 24 * 3600.0  # seconds that a training may be estimated to take
_LAYERS = {"vit": 12, "wrn": 3}  # calls of layers for each of ``depth``, where that is not one
_SIDE = {"usps": 16, "fashion-mnist": 28}  # of images, in pixels; others have 32
_VECTOR = 100  # inputs of the synthetic tasks
_COPIES = 6  # of all parameters that a training holds: weights, gradient, the best ones, an optimiser's, a step's


def seconds(experiment: Experiment) -> float:
    """Of one core, roughly, if all steps are taken: trainings that stop early take less.

    One second for an experiment of an unknown kind.
    """
    e = experiment
    if isinstance(e, Restart):
        return seconds(e.of) * (e.steps / e.of.steps)
    network = e.network() if isinstance(e, StrongModel) else e
    hessian, times = 0.0, 1
    if isinstance(e, GradientDescent):
        batch, kernels, passes = e.n_train, {e.n_train: 1}, 0.0
        hessian = _number(batch) * _HESSIAN / (e.hessian_every or math.inf)
    elif isinstance(e, ExpandedDescent):
        batch, kernels, passes = e.n_train, {e.n_train: 1}, 0.0
        times = len(e.multiples) * _EXPANDED[e.model]
    elif isinstance(e, StochasticDescent):
        batch, kernels = e.batch_size, {e.batch_size: 1, e.n_train: e.kernel_every or math.inf}
        passes = e.n_train / (3 * e.loss_every)
        hessian = _number(batch) * _HESSIAN / (e.hessian_every or math.inf)
    elif isinstance(e, Recurrence):
        batch, kernels = e.batch_size, {e.batch_size: 1, e.n_train: e.criteria_every}
        passes = e.n_train / (3 * e.loss_every) + 3 * e.n_train / e.norm_every
    elif isinstance(e, Fit):
        batch, kernels = e.batch_size, {e.batch_size: e.critical_every or math.inf}
        passes = (e.n_train + e.n_validation) / (3 * e.evaluate_every)
    elif isinstance(e, StrongModel):
        batch, kernels, passes = e.batch_size, {}, e.n_train / 60
    else:
        return _TIMING if isinstance(e, Scaling) else 1.0
    _, multiplications, pair = size(network)
    outputs = data.n_outputs(network.dataset) or 1
    layers = _number(network.depth) * _LAYERS.get(network.architecture, 1)
    overhead = _OVERHEAD * layers * (_MEASURING if kernels.get(e.n_train) == 1 else 1)
    arithmetic = ((1 + 3 * outputs) * _number(batch) + 4 * (passes + hessian)) * multiplications
    for n, every in kernels.items():
        rows = _number(n) * outputs
        arithmetic += min(rows**2 * pair, _PRODUCTS * 4 * rows * multiplications) / every
    return _START + times * _number(e.steps) * (overhead + arithmetic / _PER_SECOND)


def size(network: Network) -> tuple[float, float, float]:
    """Parameters, multiplications of a forward pass on one sample, and of the kernel for a pair of samples."""
    base = network.dataset.partition(":")[0].removesuffix("-2")
    side = _number(network.image_size or _SIDE.get(base, 32))
    channels = 1 if base in _SIDE else 3
    w, depth, pixels = _number(network.width), _number(network.depth), side**2
    if network.architecture == "fcn":
        inputs = _VECTOR if data.is_synthetic(network.dataset) else channels * pixels
        parameters = inputs * w + (depth - 2) * w * w + w
        return parameters, parameters, inputs + 2 * (depth - 1) * w
    if network.architecture == "cnn":
        layers = 9 * channels * w + (depth - 2) * 9 * w * w
        return layers + w * pixels, layers * pixels, layers + w * pixels
    if network.architecture == "vit":
        layers = 12 * depth * w * w
        return layers, layers * (pixels / 16 + 1), layers
    if network.architecture == "myrtle":
        layers = 9 * (channels * w + 4 * w * w)
        return layers, layers * pixels / 2, layers
    blocks = (depth - 4) / 6
    groups = [2 * blocks * 9 * (16 * w * k) ** 2 for k in (1, 2, 4)]
    return sum(groups), sum(of * pixels / 4**k for k, of in enumerate(groups)), sum(groups)


def refuse_impossible(experiment: Experiment, device: str) -> None:
    """Raise ``ValueError`` for an experiment that needs more memory than this machine has, or a month of one core.

    The tangent kernel does not count: where it does not fit, its eigenspace comes from products with vectors.
    """
    e = experiment.of if isinstance(experiment, Restart) else experiment
    network = e.network() if isinstance(e, StrongModel) else e
    if not isinstance(network, Network):
        return
    parameters, *_ = size(network)
    samples = network.n_train + getattr(e, "n_validation", 0) + getattr(e, "n_test", 0)
    inputs = _VECTOR if data.is_synthetic(network.dataset) else 3 * _number(network.image_size or 32) ** 2
    pixels = "" if network.image_size is None else f", image_size = {_shown(network.image_size)}"
    steps = experiment.steps
    needs: Mapping[str, float] = {
        f"width = {_shown(network.width)}, depth = {_shown(network.depth)}{pixels}: {parameters:.3g} parameters": (
            4 * _COPIES * parameters
        ),
        f"n_train = {_shown(network.n_train)}{pixels}: {_shown(samples)} samples": 4 * _number(samples) * inputs,
        f"steps = {_shown(steps)}: its history": 8 * 8 * _number(steps),
    }
    there = psutil.virtual_memory().total
    for what, memory in needs.items():
        if not memory <= there:
            allowed = f"allowed is what fits into {there / 2**30:.0f} GiB"
            raise ValueError(f"{what} would need {memory / 2**30:.3g} GiB; {allowed}")
    time = seconds(experiment)
    if not time <= _LONGEST:
        days = time / (24 * 3600)
        raise ValueError(f"steps = {_shown(steps)}: would take about {days:.3g} days of one core; allowed are 30")


def _number(value: int) -> float:
    """In a float, whose products do not overflow at once."""
    return float(min(value, 10**100))


def _shown(value: int) -> str:
    return str(value) if value < 10**24 else f"about 10^{int(value.bit_length() * math.log10(2))}"
