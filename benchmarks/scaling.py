"""Times the steps of the library's loop and plain ones: what computes the book's page on performance."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from catapults import data, models, tangent, training
from catapults.devices import device as find_device
from catapults.experiments.scaling import CNN, FCN, WARM_STEPS, Errors, Point, Scaled, Scaling
from jaxtyping import Float
from torch import Tensor, nn

IMAGE_CHANNELS = 3
_ROUNDS = 2, 30  # fewest and most
_COMPARED = 1000  # samples up to which a full eigendecomposition in float64 takes about a second


def compute(experiment: Scaling, task: Any, needed: tuple[Any, ...], device: str, **options: Any) -> Scaled:
    """Measure. Raises ``ValueError`` where the learning rate lets a training diverge within a few steps."""
    e, started = experiment, time.perf_counter()
    timed = networks(e, device)
    points = [[_measured(e, network, n) for n in e.samples] for network in timed.values()]
    n = max([n for n in e.samples if n <= _COMPARED], default=0)
    found = np.full((2, 3), np.nan)
    for row, net in enumerate(timed.values() if n else ()):
        compared = errors(net.model, net.inputs[:n], net.targets[:n], e.learning_rate, e.top)
        found[row] = compared.norm, compared.split_top, compared.split_rest

    def of(name: str) -> np.ndarray:
        return np.array([[getattr(point, name) for point in row] for row in points])

    columns = {name: of(name) for name in ("rounds", "plain", "ours", "first", "product", "expected_ratio")}
    place = str(find_device(device))
    return Scaled(**columns, compared=n, errors=found, device=place, seconds=time.perf_counter() - started)


def networks(e: Scaling, device: str) -> Mapping[str, "Timed"]:
    """Both networks at initialisation with the largest training set, by name, on the device."""
    place, pixels = find_device(device), e.image_size**2
    train = data.load("rank-2", e.samples[-1], seed=e.seed, dim=e.input_dim).train
    shape = (e.samples[-1], IMAGE_CHANNELS, e.image_size, e.image_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(e.seed))
    gain = {"gain": math.sqrt(2)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(e.seed)
        fcn = models.fcn(e.input_dim, e.width, 2, **gain)
        cnn = models.cnn(IMAGE_CHANNELS, e.image_size, e.channels, e.depth, **gain)
    hidden = [Layer(9 * e.channels, e.channels, pixels)] * (e.depth - 2)
    layers = {
        FCN: [Layer(e.input_dim, e.width), Layer(e.width, 1)],
        CNN: [Layer(9 * IMAGE_CHANNELS, e.channels, pixels), *hidden, Layer(e.channels * pixels, 1)],
    }
    return {
        name: Timed(model.to(place), inputs.to(place), train.targets.to(place), tuple(layers[name]))
        for name, model, inputs in ((FCN, fcn, train.inputs), (CNN, cnn, images))
    }


def _measured(e: Scaling, network: "Timed", n: int) -> Point:
    """Rounds in turn from the same weights, as many as the seconds allow; a plain step before them warms up."""
    model, inputs, targets = copy.deepcopy(network.model), network.inputs[:n], network.targets[:n]
    start = copy.deepcopy(model.state_dict())
    linearization = tangent.linearize(model, inputs)
    vector = targets[:, None]

    def one_round() -> tuple[list[float], ...]:
        model.load_state_dict(start)
        cold, warm, eta = our_steps(model, inputs, targets, e.learning_rate, e.top)
        model.load_state_dict(start)
        plain = plain_steps(model, inputs, targets, eta)
        return plain, warm, [cold], [_seconds(lambda: linearization @ vector, inputs.device)]

    plain_steps(model, inputs, targets, 0.0, steps=1)
    fewest, most = _ROUNDS
    until, rounds = time.perf_counter() + e.seconds, []
    while len(rounds) < fewest or (len(rounds) < most and time.perf_counter() < until):
        rounds.append(one_round())
    plain, ours, cold, product = (median(sum(times, [])) for times in zip(*rounds, strict=True))
    return Point(n, len(rounds), plain, ours, cold, product, network.expected_ratio(n))


def plain_steps(
    model: nn.Module, inputs: Float[Tensor, "n ..."], targets: Float[Tensor, " n"], eta: float, steps: int = WARM_STEPS
) -> list[float]:
    """Seconds of each step of gradient descent by autograd and ``torch.optim.SGD``, which measures nothing."""
    optimizer = torch.optim.SGD(model.parameters(), lr=eta)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs).flatten(), targets).backward()
        optimizer.step()

    return [_seconds(step, inputs.device) for _ in range(steps)]


def our_steps(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Float[Tensor, " n"],
    learning_rate: int | float | str,
    top: int,
    steps: int = WARM_STEPS,
) -> tuple[float, list[float], float]:
    """Seconds of the steps of :func:`catapults.training.gradient_descent`, as it records them: the first, the others.

    The first step starts its search of the top eigenspace from nothing, the others from the one before. The last entry
    of the history makes no update and is left out. Besides, the absolute learning rate.

    Raises ``ValueError`` where the training diverges.
    """
    history = training.gradient_descent(model, inputs, targets, learning_rate, steps + 1, top)
    if history.diverged:
        raise ValueError(f"learning_rate = {learning_rate!r}: diverges at once; allowed is a smaller one")
    first, *others = history.seconds[:-1].tolist()
    return first, others, float(history.learning_rate[0])


def errors(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    targets: Float[Tensor, " n"],
    learning_rate: int | float | str,
    top: int,
    decompose: Callable[[Tensor], tuple[Tensor, Tensor]] = torch.linalg.eigh,
) -> "Errors":
    """How far a warm-started step of our loop is from the whole route in float64 on the CPU at the same weights.

    ``decompose``: eigenvalues in ascending order, and eigenvectors as columns, at least of the top eigenspace. The
    model is trained by one step.
    """
    history = training.gradient_descent(model, inputs, targets, learning_rate, 1, top)
    exact = tangent.linearize(copy.deepcopy(model).cpu().double(), inputs.cpu().double())
    values, vectors = decompose(exact.kernel())
    split = tangent.split_by_eigenvectors(exact.outputs.flatten() - targets.cpu().double(), vectors[:, -top:])
    norm = abs(float(history.kernel_norm[1]) / values[-1].item() - 1)
    return Errors(
        norm, *(abs(ours / theirs - 1) for ours, theirs in zip(history.splits[1, 0].tolist(), split, strict=True))
    )


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """The time that a call takes, work that it left to an accelerator included."""
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type, lambda: None)
    wait()
    started = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Layer:
    """A layer's numbers of inputs and outputs at each of its positions, of which a linear layer on vectors has one."""

    inputs: int
    outputs: int
    positions: int = 1


@dataclass(frozen=True)
class Timed:
    """A network at initialisation with its training set."""

    model: nn.Module
    inputs: Float[Tensor, "n ..."]
    targets: Float[Tensor, " n"]
    layers: tuple[Layer, ...]

    def expected_ratio(self, n: int) -> float:
        """Multiplications of a step with the kernel, over those of a plain step.

        A plain step multiplies by each weight three times for each sample and position: forward, for the weight's own
        gradient and for that of the layer's inputs, which the first layer does without. The kernel adds, for each pair
        of samples, the products of the layer's inputs and of its derivatives or, where it has many positions, of the
        samples' weight gradients, which are formed first.
        """
        plain = kernel = 0.0
        for index, layer in enumerate(self.layers):
            weights = layer.inputs * layer.outputs
            plain += n * weights * layer.positions * (3 if index else 2)
            if layer.positions == 1:
                kernel += n * (n + 1) / 2 * (layer.inputs + layer.outputs)
            else:
                kernel += n * (n + 1) / 2 * weights + n * layer.positions * weights
        return 1 + kernel / plain
