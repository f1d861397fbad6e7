"""What the descriptions of experiments share: validation with messages for people, a network and its training set."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import Tensor, nn

from .. import data, devices, models
from ..display import number

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
            problems: dict[str, list[str]] = {}  # several on one value where a union allows several types
            for detail in error.errors():
                start, message = _explain(detail, values)
                problems.setdefault(start, []).append(message)
            lines = (start + _either(messages) for start, messages in problems.items())
            raise ParameterError("\n".join(lines)) from None

    @classmethod
    def from_namespace(cls, namespace: dict[str, Any]) -> "Experiment":
        """The same from a notebook's ``globals()``, of which only the names of the fields are read."""
        return cls.create(**{name: namespace[name] for name in cls.model_fields if name in namespace})


class NetworkExperiment(Experiment):
    """What the experiments on a network and a small training set have in common."""

    dataset: str
    architecture: Literal["fcn", "cnn", "wrn", "vit", "myrtle"]
    norm: Literal["layer"] | None
    depth: PositiveInt
    width: PositiveInt
    image_size: PositiveInt | None
    n_train: Annotated[int, Field(ge=2)]
    labels: Literal["zero-one", "plus-minus"]
    parameterization: Literal["ntk", "pytorch"]
    gain: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    bias: bool
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    device: str

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str) -> str:
        data.check_name(value, "dataset")
        return value

    @field_validator("device")
    @classmethod
    def _there(cls, value: str) -> str:
        devices.device(value)
        return value

    @model_validator(mode="after")
    def _network_fits_the_data(self) -> "NetworkExperiment":
        if data.is_synthetic(self.dataset):
            if self.architecture != "fcn":
                held = f"{self.dataset!r} holds vectors"
                raise ValueError(f"architecture = {self.architecture!r}: {held}; allowed is 'fcn'")
            if self.image_size is not None:
                raise ValueError(f"image_size = {self.image_size!r}: {self.dataset!r} holds vectors; allowed is None")
            if self.labels != "zero-one":
                raise ValueError(f"labels = {self.labels!r}: {self.dataset!r} has no classes; allowed is 'zero-one'")
        if self.architecture in ("fcn", "cnn") and self.depth < 2:
            raise ValueError(f"depth = {self.depth!r}: allowed are whole numbers of at least 2")
        if self.architecture == "myrtle" and self.depth != 5:
            raise ValueError(f"depth = {self.depth!r}: the Myrtle network has 5 weight layers; allowed is 5")
        if self.architecture == "vit" and self.width % 4:
            raise ValueError(f"width = {self.width!r}: a transformer with 4 heads allows multiples of 4")
        if self.architecture == "wrn" and (self.depth < 10 or self.depth % 6 != 4):
            raise ValueError(f"depth = {self.depth!r}: a Wide ResNet allows 6 b + 4 for b blocks a group (10, 16, ...)")
        if self.architecture in ("wrn", "vit", "myrtle") and self.image_size is not None and self.image_size % 4:
            raise ValueError(
                f"image_size = {self.image_size!r}: architecture {self.architecture!r} allows multiples of 4"
            )
        if self.architecture != "wrn" and self.norm is not None:
            raise ValueError(f"norm = {self.norm!r}: architecture {self.architecture!r} has none; allowed is None")
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
            if self.architecture == "cnn":
                return models.cnn(channels, size, self.width, self.depth, outputs, **options)
            if self.architecture == "vit":
                return models.vit(channels, size, self.width, self.depth, outputs, **options)
            if self.architecture == "myrtle":
                return models.myrtle(channels, size, self.width, outputs, **options)
            return models.wide_resnet(channels, size, self.width, self.depth, outputs, norm=self.norm, **options)

    def start(self) -> "Start":
        """Data on the device, network at initialisation. Raises the errors of :func:`catapults.data.load`."""
        device = devices.device(self.device)
        task = self.task()
        inputs, targets = task.train.inputs.to(device), task.train.targets.to(device)
        outputs = 1 if targets.dim() == 1 else targets.shape[1]
        return Start(inputs, targets, self.model(inputs, outputs).to(device), task.source, str(device), outputs)

    def describe(self, source: str, parameters: int) -> str:
        """Data and network in words; ``source`` as in the task, ``parameters`` their number."""
        size = "" if self.image_size is None else f", pooled to {self.image_size}×{self.image_size} pixels"
        return f"Data: {source} {self.n_train} samples{size}. Network: {self.describe_network(parameters)}."

    def describe_network(self, parameters: int) -> str:
        """The network in words, without a full stop; ``parameters`` their number."""
        network = {
            "fcn": f"fully connected, {self.depth} weight layers with {self.width} neurons",
            "cnn": f"convolutional, {self.depth} weight layers with {self.width} channels",
            "vit": f"vision transformer, {self.depth} blocks with {self.width} features, 4×4-pixel patches, 4 heads",
            "myrtle": f"Myrtle, 5 weight layers with {self.width} channels",
            "wrn": f"Wide ResNet {self.depth}-{self.width} "
            + ("without a norm" if self.norm is None else "with a norm over each sample instead of batch norm"),
        }[self.architecture]
        form = {"ntk": f"NTK parameterisation with gain {number(self.gain)}", "pytorch": "PyTorch's parameterisation"}
        biases = "with biases" if self.bias else "no biases"
        return f"{network}, {parameters:,} parameters, {form[self.parameterization]}, {biases}"


@dataclass(frozen=True)
class Start:
    """Where a training begins."""

    inputs: Float[Tensor, "n ..."]
    targets: Float[Tensor, "n ..."]
    model: nn.Module
    source: str
    device: str
    outputs: int

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())


def threshold(outputs: int) -> str:
    """How the critical learning rate is written for a number of outputs."""
    return "n/‖K‖" if outputs == 1 else "nc/‖K‖"


def check_tops(top: int | list[int], n_train: int, dataset: str) -> None:
    """Raise ``ValueError`` unless these are dimensions of top eigenspaces of the kernel, in ascending order."""
    tops = top if isinstance(top, list) else [top]
    outputs = data.n_outputs(dataset)
    largest = math.inf if outputs is None else n_train * outputs - 1
    if not tops or sorted(set(tops)) != tops or not 1 <= tops[0] <= tops[-1] <= largest:
        limits = "of at least 1" if outputs is None else f"from 1 to {largest}"
        raise ValueError(f"top = {top!r}: allowed are whole numbers {limits}, one or several that ascend")


def _explain(detail: Any, values: dict[str, Any]) -> tuple[str, str]:
    """What one of pydantic's error details says: ``name = value: `` and ``what is allowed``."""
    message = detail["msg"].removeprefix("Value error, ")
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if not name or message.startswith((f"{name} =", f"{name}:")):
        return message, ""
    if detail["type"] == "missing":
        return f"{name}: ", "missing; it has to be given"
    if detail["type"] == "extra_forbidden":
        return f"{name}: ", "unknown parameter"
    return f"{name} = {values[name]!r}: ", f"{message[0].lower()}{message[1:]}"


def _either(messages: list[str]) -> str:
    """Messages on one value, of which any one has to be followed."""
    first, *others = dict.fromkeys(messages)
    return ", or ".join([first, *(message.removeprefix("input should be ") for message in others)])
