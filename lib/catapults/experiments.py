"""Descriptions of the book's experiments: typed, validated before any work starts, and what running one gives."""

import math
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import Tensor, nn

from . import data, hessian, models, training
from .display import Text, number
from .training import History, LearningRate

PositiveInt = Annotated[int, Field(ge=1)]


class ParameterError(ValueError):
    """One or several parameters of an experiment are not allowed; the message has a line for each."""


class Experiment(BaseModel):
    """An immutable description. Its fields have no defaults: those stand in the parameters cell of the chapter."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def create(cls, **values: Any) -> "Experiment":
        """Validate the values. Raises :class:`ParameterError`, which names parameter, value and what is allowed."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise ParameterError("\n".join(_explain(detail, values) for detail in error.errors())) from None

    @classmethod
    def from_namespace(cls, namespace: dict[str, Any]) -> "Experiment":
        """The same from a notebook's ``globals()``, of which only the names of the fields are read."""
        return cls.create(**{name: namespace[name] for name in cls.model_fields if name in namespace})


class GDCatapult(Experiment):
    """Full-batch gradient descent at a constant rate on a small training set (section 3.1, appendix F.1)."""

    dataset: str
    architecture: Literal["fcn", "cnn"]
    depth: Annotated[int, Field(ge=2)]
    width: PositiveInt
    image_size: PositiveInt | None
    n_train: Annotated[int, Field(ge=2)]
    labels: Literal["zero-one", "plus-minus"]
    parameterization: Literal["ntk", "pytorch"]
    gain: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    bias: bool
    learning_rate: int | float | str
    steps: PositiveInt
    top: PositiveInt
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    device: str

    @field_validator("learning_rate")
    @classmethod
    def _readable(cls, value: int | float | str) -> int | float | str:
        LearningRate.parse(value)
        return value

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str) -> str:
        data.check_name(value, "dataset")
        return value

    @field_validator("device")
    @classmethod
    def _there(cls, value: str) -> str:
        models.device(value)
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> "GDCatapult":
        outputs = data.n_outputs(self.dataset)
        if outputs is not None and self.top >= self.n_train * outputs:
            raise ValueError(f"top = {self.top!r}: allowed are whole numbers from 1 to {self.n_train * outputs - 1}")
        if data.is_synthetic(self.dataset):
            if self.architecture == "cnn":
                raise ValueError(f"architecture = 'cnn': {self.dataset!r} holds vectors; allowed is 'fcn'")
            if self.image_size is not None:
                raise ValueError(f"image_size = {self.image_size!r}: {self.dataset!r} holds vectors; allowed is None")
            if self.labels != "zero-one":
                raise ValueError(f"labels = {self.labels!r}: {self.dataset!r} has no classes; allowed is 'zero-one'")
        if self.parameterization == "pytorch" and self.gain != 1:
            raise ValueError(f"gain = {self.gain!r}: PyTorch's default parameterisation has none; allowed is 1")
        return self

    def task(self) -> data.Task:
        """The data. Raises the errors of :func:`catapults.data.load`."""
        return data.load(self.dataset, self.n_train, seed=self.seed, labels=self.labels, image_size=self.image_size)

    def model(self, inputs: Float[Tensor, "n ..."], outputs: int) -> nn.Module:
        """The network at initialisation, drawn on the CPU so that a seed gives the same weights on every device."""
        options = {"gain": self.gain, "bias": self.bias, "parameterization": self.parameterization}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            if self.architecture == "fcn":
                return models.fcn(inputs[0].numel(), self.width, self.depth, outputs, **options)
            channels, size = inputs.shape[1:3]
            return models.cnn(channels, size, self.width, self.depth, outputs, **options)

    def run(self, progress: bool = False) -> "GDRun":
        """Load the data, initialise, measure the Hessian's critical rate, descend.

        Raises the errors of :func:`catapults.data.load`.
        """
        started = time.perf_counter()
        device = models.device(self.device)
        task = self.task()
        inputs, targets = task.train.inputs.to(device), task.train.targets.to(device)
        outputs = 1 if targets.dim() == 1 else targets.shape[1]
        model = self.model(inputs, outputs).to(device)
        hessian_rate = hessian.critical_learning_rate(model, inputs, targets)
        history = training.gradient_descent(
            model, inputs, targets, self.learning_rate, self.steps, self.top, progress=progress
        )
        size = sum(p.numel() for p in model.parameters())
        seconds = time.perf_counter() - started
        return GDRun(self, task.source, str(device), hessian_rate, history, size, outputs, seconds)


@dataclass(frozen=True)
class GDRun:
    """What an experiment gave, and the numbers that describe its catapult."""

    experiment: GDCatapult
    source: str
    device: str
    hessian_critical_learning_rate: float  # at initialisation
    history: History
    parameters: int
    outputs: int
    seconds: float

    def describe(self) -> Text:
        """What was trained on what, in words."""
        e = self.experiment
        unit = {"fcn": "neurons", "cnn": "channels"}[e.architecture]
        kind = {"fcn": "fully connected", "cnn": "convolutional"}[e.architecture]
        form = {"ntk": f"NTK parameterisation with gain {number(e.gain)}", "pytorch": "PyTorch's parameterisation"}
        size = "" if e.image_size is None else f", pooled to {e.image_size}×{e.image_size} pixels"
        biases = "with biases" if e.bias else "no biases"
        return Text(
            f"Data: {self.source} {e.n_train} samples{size}. Network: {kind}, {e.depth} weight layers with {e.width} "
            f"{unit}, {self.parameters:,} parameters, {form[e.parameterization]}, {biases}. Training: {e.steps} steps "
            f"at learning rate {number(self.learning_rate)}; it took {number(self.seconds)} s."
        )

    @property
    def threshold(self) -> str:
        """How the critical learning rate is written for this run's number of outputs."""
        return "n/‖K‖" if self.outputs == 1 else "nc/‖K‖"

    def measured(self, name: str) -> np.ndarray:
        """A column of the history up to the last step at which there was something to measure."""
        return getattr(self.history, name)[: len(self.history) - self.history.diverged]

    @property
    def learning_rate(self) -> float:
        return self.history.steps[0].learning_rate

    @property
    def critical_learning_rate(self) -> float:
        """n / ||K|| at initialisation (n c / ||K|| for c outputs)."""
        return self.history.steps[0].critical_learning_rate

    @property
    def peak(self) -> int:
        """The iteration with the largest loss; 0 when the loss never rises above its initial value."""
        return int(self.history.loss.argmax())

    @property
    def back(self) -> int | None:
        """The first iteration after the peak with a loss below the initial one; None if there is none."""
        loss = self.history.loss
        below = (loss[self.peak :] < loss[0]).nonzero()[0]
        return None if self.peak == 0 or len(below) == 0 else self.peak + int(below[0])

    @property
    def share_of_spike_in_top(self) -> float:
        """Part of the loss's rise, from the start to the peak, that lies in the top eigenspace; NaN without a rise."""
        first, peak = self.history.steps[0], self.history.steps[self.peak]
        rise = peak.loss - first.loss
        return (peak.loss_top - first.loss_top) / rise if 0 < rise < math.inf else math.nan

    @property
    def largest_rise_of_rest(self) -> float:
        """The most that L_>s ever exceeds its smallest value so far, as a fraction of its initial value."""
        rest = self.measured("loss_rest")
        lowest, largest = math.inf, 0.0
        for value in rest:
            lowest = min(lowest, value)
            largest = max(largest, value - lowest)
        return float(largest / rest[0]) if rest[0] > 0 else 0.0


def _explain(detail: Any, values: dict[str, Any]) -> str:
    """One line on one of pydantic's error details, in the form ``name = value: what is allowed``."""
    message = detail["msg"].removeprefix("Value error, ")
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if not name or message.startswith((f"{name} =", f"{name}:")):
        return message
    if detail["type"] == "missing":
        return f"{name}: missing; it has to be given"
    if detail["type"] == "extra_forbidden":
        return f"{name}: unknown parameter"
    return f"{name} = {values[name]!r}: {message[0].lower()}{message[1:]}"
