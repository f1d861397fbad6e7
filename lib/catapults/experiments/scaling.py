"""What measuring the kernel at every step costs, over the number of samples: the book's performance page."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from .. import data, devices, models, tangent, training
from ..display import Text, number
from ..schedules import LearningRate
from .base import Experiment, PositiveInt

FCN, CNN = "two-layer net", "convolutional net"
WARM_STEPS = 2  # of our loop that a round times
IMAGE_CHANNELS = 3
_ROUNDS = 2, 30  # fewest and most
_COMPARED = 1000  # samples up to which a full eigendecomposition in float64 takes about a second


class Scaling(Experiment):
    """Times a step that measures nothing and a step of the library's loop on two networks, for each number of samples.

    The two-layer net gets the inputs of the task rank-2, N(0, I); the convolutional net random images.
    """

    samples: list[Annotated[int, Field(ge=2)]]
    input_dim: Annotated[int, Field(ge=2)]
    width: PositiveInt
    channels: PositiveInt
    image_size: PositiveInt
    depth: Annotated[int, Field(ge=3)]
    learning_rate: int | float | str
    top: PositiveInt
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    device: str

    @field_validator("learning_rate")
    @classmethod
    def _readable(cls, value: int | float | str) -> int | float | str:
        LearningRate.parse(value)
        return value

    @field_validator("device")
    @classmethod
    def _there(cls, value: str) -> str:
        devices.device(value)
        return value

    @model_validator(mode="after")
    def _samples_ascend(self) -> "Scaling":
        if not self.samples or sorted(set(self.samples)) != self.samples:
            raise ValueError(f"samples = {self.samples!r}: allowed are one or several whole numbers that ascend")
        if self.top >= self.samples[0]:
            raise ValueError(f"top = {self.top!r}: allowed are whole numbers from 1 to {self.samples[0] - 1}")
        return self

    def task(self) -> data.Task:
        """The two-layer net's data, and the targets of both networks."""
        return data.load("rank-2", self.samples[-1], seed=self.seed, dim=self.input_dim)

    def networks(self) -> Mapping[str, "Network"]:
        """Both networks at initialisation with the largest training set, by name, on the device."""
        device, train, pixels = devices.device(self.device), self.task().train, self.image_size**2
        shape = (self.samples[-1], IMAGE_CHANNELS, self.image_size, self.image_size)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed))
        gain = {"gain": math.sqrt(2)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            fcn = models.fcn(self.input_dim, self.width, 2, **gain)
            cnn = models.cnn(IMAGE_CHANNELS, self.image_size, self.channels, self.depth, **gain)
        hidden = [Layer(9 * self.channels, self.channels, pixels)] * (self.depth - 2)
        layers = {
            FCN: [Layer(self.input_dim, self.width), Layer(self.width, 1)],
            CNN: [
                Layer(9 * IMAGE_CHANNELS, self.channels, pixels),
                *hidden,
                Layer(self.channels * pixels, 1),
            ],
        }
        return {
            name: Network(model.to(device), inputs.to(device), train.targets.to(device), tuple(layers[name]))
            for name, model, inputs in ((FCN, fcn, train.inputs), (CNN, cnn, images))
        }

    def run(self) -> "ScalingRun":
        """Measure. Raises ``ValueError`` where the learning rate lets a training diverge within a few steps."""
        started = time.perf_counter()
        networks = self.networks()
        points = {name: [self._measured(network, n) for n in self.samples] for name, network in networks.items()}
        n = max([n for n in self.samples if n <= _COMPARED], default=0)
        compared = {
            name: errors(net.model, net.inputs[:n], net.targets[:n], self.learning_rate, self.top)
            for name, net in (networks.items() if n else ())
        }
        device = str(devices.device(self.device))
        return ScalingRun(self, device, points, n, compared, time.perf_counter() - started)

    def _measured(self, network: "Network", n: int) -> "Point":
        """Rounds in turn from the same weights, as many as the seconds allow; a plain step before them warms up."""
        model, inputs, targets = copy.deepcopy(network.model), network.inputs[:n], network.targets[:n]
        start = copy.deepcopy(model.state_dict())
        linearization = tangent.linearize(model, inputs)
        vector = targets[:, None]

        def one_round() -> tuple[list[float], ...]:
            model.load_state_dict(start)
            cold, warm, eta = our_steps(model, inputs, targets, self.learning_rate, self.top)
            model.load_state_dict(start)
            plain = plain_steps(model, inputs, targets, eta)
            return plain, warm, [cold], [_seconds(lambda: linearization @ vector, inputs.device)]

        plain_steps(model, inputs, targets, 0.0, steps=1)
        fewest, most = _ROUNDS
        until, rounds = time.perf_counter() + self.seconds, []
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
    return first, others, history.steps[0].learning_rate


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
    step = training.gradient_descent(model, inputs, targets, learning_rate, 1, top).steps[1]
    exact = tangent.linearize(copy.deepcopy(model).cpu().double(), inputs.cpu().double())
    values, vectors = decompose(exact.kernel())
    split = tangent.split_by_eigenvectors(exact.outputs.flatten() - targets.cpu().double(), vectors[:, -top:])
    norm = abs(step.kernel_norm / values[-1].item() - 1)
    return Errors(norm, *(abs(ours / theirs - 1) for ours, theirs in zip(step.splits[0], split, strict=True)))


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
class Network:
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


@dataclass(frozen=True)
class Point:
    """Medians over the rounds at n samples, in seconds."""

    n: int
    rounds: int
    plain: float  # a step that measures nothing
    ours: float  # a step of the library's loop after the first
    first: float  # its first step
    product: float  # of the kernel with a vector, without the kernel
    expected_ratio: float  # by counting multiplications

    @property
    def ratio(self) -> float:
        return self.ours / self.plain

    @property
    def kernel_mib(self) -> float:
        return self.n**2 * 4 / 2**20


@dataclass(frozen=True)
class Errors:
    """Relative differences from the full route in float64."""

    norm: float
    split_top: float
    split_rest: float

    @property
    def largest(self) -> float:
        return max(self.norm, self.split_top, self.split_rest)


@dataclass(frozen=True)
class ScalingRun:
    """What was measured, for each network at each number of samples."""

    experiment: Scaling
    device: str
    points: Mapping[str, list[Point]]
    compared: int  # samples at which values were compared with float64; 0 where all numbers of samples are too large
    errors: Mapping[str, Errors]
    seconds: float

    def describe(self) -> Text:
        """What was timed on what, in words."""
        e = self.experiment
        rounds = [point.rounds for points in self.points.values() for point in points]
        counted = f"{min(rounds)} to {max(rounds)}" if min(rounds) < max(rounds) else str(min(rounds))
        return Text(
            f"The {FCN} has {e.width} neurons and {e.input_dim} inputs; the {CNN} has {e.depth} weight layers, "
            f"{e.channels} channels and images of {e.image_size}×{e.image_size} pixels in {IMAGE_CHANNELS} colours. "
            f"Both were trained at learning rate {e.learning_rate}, in each round from the same weights. A round has "
            f"{WARM_STEPS} plain steps and {WARM_STEPS} of ours after a first one; there were {counted} "
            f"rounds. All took {number(self.seconds)} s on {self.device}."
        )
