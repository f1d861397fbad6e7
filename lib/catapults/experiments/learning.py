"""One training of section 4, with its test performance and its AGOP; and the strong model that stands for f*."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from .. import catapult, data, devices, generalization, schedules, store
from ..agop import agop, alignment
from ..data import Split
from ..display import Text, number
from ..generalization import Optimizer
from ..sweep import Sweep, check_scheduler, sweep
from .base import Experiment, NetworkExperiment, ParameterError, PositiveInt

CORNER = 10  # rows and columns of an AGOP that are kept (Fig. 26)
Rate = int | float | str
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Strong:
    """What a strong model gave: its AGOP on its training inputs, and the fraction of test images that it gets wrong."""

    egop: Float[np.ndarray, "d d"]
    test_error: float
    source: str
    parameters: int
    seconds: float


class StrongModel(Experiment):
    """A network trained with Adam on as much as there is, in PyTorch's parameterisation: its AGOP stands for the EGOP
    of a real data set (appendix F, "EGOP")."""

    Result: ClassVar[type] = Strong

    dataset: str
    image_size: PositiveInt | None
    labels: Literal["zero-one", "plus-minus"]
    architecture: Literal["fcn", "cnn", "wrn", "vit", "myrtle"]
    depth: PositiveInt
    width: PositiveInt
    n_train: Annotated[int, Field(ge=2)]
    n_validation: PositiveInt
    n_test: PositiveInt
    batch_size: PositiveInt
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    steps: PositiveInt
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    device: str

    @model_validator(mode="after")
    def _possible(self) -> "StrongModel":
        self._network()
        if self.batch_size > self.n_train:
            raise ValueError(f"batch_size = {self.batch_size}: allowed are 1 to n_train = {self.n_train}")
        return self

    @property
    def name(self) -> str:
        return f"strong model of {self.dataset}"

    def _network(self) -> NetworkExperiment:
        own = ("dataset", "image_size", "labels", "architecture", "depth", "width", "n_train", "seed", "device")
        plain = {"norm": None, "parameterization": "pytorch", "gain": 1.0, "bias": True}
        return NetworkExperiment.create(**{name: getattr(self, name) for name in own} | plain)

    def run(self, progress: bool = False) -> Strong:
        """Train it, with the best weights by its validation images."""
        started = time.perf_counter()
        sizes = self.n_train, self.n_validation, self.n_test
        task = data.load(self.dataset, *sizes, seed=self.seed, labels=self.labels, image_size=self.image_size)
        train, validation, test = on_device(task, self.device)
        outputs, classes = shape_of_targets(train, self.dataset)
        model = self._network().model(train.inputs, outputs).to(train.inputs.device)
        generalization.fit(
            model,
            train,
            validation,
            self.learning_rate,
            self.batch_size,
            self.steps,
            classes=classes,
            optimizer="adam",
            seed=self.seed,
            stop_below=None,
            evaluate_every=max(1, self.steps // 20),
            critical_every=None,
            progress=progress,
        )
        _, error = generalization.performance(model, test, classes)
        parameters = sum(p.numel() for p in model.parameters())
        egop = agop(model, train.inputs).cpu().numpy()
        return Strong(egop, error, task.source, parameters, time.perf_counter() - started)

    def describe(self, result: Strong) -> str:
        """In words, with its test accuracy."""
        network = self._network().describe_network(result.parameters)
        return (
            f"A strong model stands for the true function: {network}, trained with Adam on {self.n_train} samples. It "
            f"gets {100 * (1 - result.test_error):.1f} % of {self.n_test} test samples right. Its AGOP on its training "
            "inputs stands for the EGOP."
        )


@dataclass(frozen=True)
class Trained:
    """What a training gave. ``best``: the evaluation with the best validation loss or, for classes, error.

    The other fields before ``test_loss`` are those of :class:`catapults.generalization.Fit`.
    """

    batch_loss: Float[np.ndarray, " T"]
    learning_rate: Float[np.ndarray, " T"]
    iterations: Int[np.ndarray, " e"]
    training_loss: Float[np.ndarray, " e"]
    validation_loss: Float[np.ndarray, " e"]
    validation_error: Float[np.ndarray, " e"]
    steps_above: Int[np.ndarray, " e"]
    best: int
    initial_critical_learning_rate: float
    converged: bool
    diverged: bool
    test_loss: float  # at the best weights
    test_error: float  # NaN for regression
    alignment: float  # of the AGOP on the training inputs, at the best weights, with the EGOP
    corner: Float[np.ndarray, "10 10"]  # of this AGOP
    true_corner: Float[np.ndarray, "10 10"]  # of the EGOP
    source: str
    parameters: int
    seconds: float

    @property
    def catapults(self) -> int:
        """As the paper counts them in SGD: steps with eta > eta_crit(X_batch), until the best validation."""
        return int(self.steps_above[self.best])

    @property
    def spikes(self) -> int:
        """Peaks of the loss that stand out by a factor of two: catapults of gradient descent."""
        return len(catapult.spikes(_finite(self.batch_loss)))


class Learning(NetworkExperiment):
    """What all experiments of section 4 have in common: a task with validation and test set, and when to stop."""

    n_validation: PositiveInt
    n_test: PositiveInt
    label_noise: Annotated[float, Field(ge=0, lt=1)]
    steps: PositiveInt
    stop_below: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    evaluate_every: PositiveInt
    patience: PositiveInt | None
    strong: dict[str, Any] | None

    @model_validator(mode="after")
    def _has_an_egop(self) -> "Learning":
        if data.is_synthetic(self.dataset):
            if self.strong is not None:
                raise ValueError(f"strong = {self.strong!r}: the EGOP of {self.dataset!r} is exact; allowed is None")
            if self.label_noise:
                raise ValueError(f"label_noise = {self.label_noise!r}: {self.dataset!r} has no classes; allowed is 0")
        elif self.strong is None:
            raise ValueError(f"strong = None: {self.dataset!r} needs a strong model; allowed are its parameters")
        self.strong_model()
        return self

    def strong_model(self) -> StrongModel | None:
        """Whose AGOP stands for the EGOP; ``None`` where this is exact. Raises :class:`ParameterError`."""
        if self.strong is None:
            return None
        shared = {name: getattr(self, name) for name in ("dataset", "image_size", "labels", "device")}
        if twice := shared.keys() & self.strong.keys():
            name = sorted(twice)[0]
            raise ValueError(f"strong: {name} = {self.strong[name]!r}; allowed is that of the task, outside of it")
        try:
            return StrongModel.create(**shared | {"seed": 0} | self.strong)
        except ParameterError as error:
            raise ValueError(f"strong: {error}") from None

    def task(self) -> data.Task:
        """The data. Raises the errors of :func:`catapults.data.load`."""
        own = {} if data.is_synthetic(self.dataset) else {"labels": self.labels, "label_noise": self.label_noise}
        sizes = self.n_train, self.n_validation, self.n_test
        return data.load(self.dataset, *sizes, seed=self.seed, image_size=self.image_size, **own)

    def training(self, **values: Any) -> "Training":
        """A training on this task: the values given, and the experiment's own for all others."""
        own = {name: getattr(self, name) for name in Learning.model_fields}
        plain = {
            "optimizer": "sgd",
            "replacement": False,
            "critical_every": None,
            "settle": None,
            "initial_scale": 1.0,
        }
        return Training.create(**own | plain | values)


class LearningSweep(Learning):
    """Several trainings on one task."""

    scheduler: str | None  # the address of a Dask cluster; None: processes of this machine

    @field_validator("scheduler")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        check_scheduler(value)
        return value


class Training(Learning):
    """One training, from the initial weights to the test at the best validation."""

    Result: ClassVar[type] = Trained

    optimizer: Optimizer
    learning_rate: Rate
    batch_size: PositiveInt
    replacement: bool
    critical_every: PositiveInt | None
    settle: PositiveInt | None
    initial_scale: Scale  # of all initial weights: sigma of appendix D.2

    @field_validator("learning_rate")
    @classmethod
    def _readable(cls, value: Rate) -> Rate:
        schedules.check(value, "learning_rate")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "Training":
        if self.batch_size > self.n_train:
            raise ValueError(f"batch_size = {self.batch_size}: allowed are 1 to n_train = {self.n_train}")
        if schedules.parse(self.learning_rate).last >= self.steps:
            raise ValueError(f"learning_rate = {self.learning_rate!r}: allowed are changes before {self.steps}")
        return self

    @property
    def name(self) -> str:
        how = "GD" if self.batch_size == self.n_train else f"batch size {self.batch_size}"
        rate = str(self.learning_rate).replace("eta_crit", "η_crit")
        scale = "" if self.initial_scale == 1 else f", σ = {self.initial_scale:g}"
        optimizer = "" if self.optimizer == "sgd" else f", {self.optimizer}"
        return f"{self.dataset}, {how}{optimizer}, rate {rate}{scale}, seed {self.seed}"

    def run(self, progress: bool = False) -> Trained:
        """Load, train, test. Raises the errors of :func:`catapults.data.load`."""
        started = time.perf_counter()
        strong = self.strong_model()
        task = self.task()
        egop = task.egop if strong is None else torch.from_numpy(store.obtain(strong).egop)
        train, validation, test = on_device(task, self.device)
        outputs, classes = shape_of_targets(train, self.dataset)
        model = self.model(train.inputs, outputs).to(train.inputs.device)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(self.initial_scale)
        fit = generalization.fit(
            model,
            train,
            validation,
            self.learning_rate,
            self.batch_size,
            self.steps,
            classes=classes,
            optimizer=self.optimizer,
            replacement=self.replacement,
            seed=self.seed,
            stop_below=self.stop_below,
            evaluate_every=self.evaluate_every,
            critical_every=self.critical_every,
            settle=self.settle,
            patience=self.patience,
            progress=progress,
        )
        loss, error = generalization.performance(model, test, classes)
        G = agop(model, train.inputs)
        return Trained(
            **{name: value for name, value in vars(fit).items() if name != "seconds"},
            test_loss=loss,
            test_error=error,
            alignment=alignment(G, egop),
            corner=_corner(G),
            true_corner=_corner(egop),
            source=task.source,
            parameters=sum(p.numel() for p in model.parameters()),
            seconds=time.perf_counter() - started,
        )


def on_device(task: data.Task, device: str) -> list[Split]:
    """Training, validation and test set there."""
    place = devices.device(device)
    return [Split(s.inputs.to(place), s.targets.to(place)) for s in (task.train, task.validation, task.test)]


def shape_of_targets(split: Split, dataset: str) -> tuple[int, int | None]:
    """How many outputs a network needs, and how many classes there are: ``None`` for regression."""
    outputs = 1 if split.targets.dim() == 1 else split.targets.shape[1]
    return outputs, None if data.is_synthetic(dataset) else max(2, outputs)


class TrainingFailed(Exception):
    """Some trainings of a sweep raised; the message names them. What the others gave is kept."""


def train(experiments: Sequence[Training], scheduler: str | None, progress: bool) -> tuple[list[Trained], Sweep]:
    """The results of all, from a sweep. Raises :class:`TrainingFailed` once all others had their turn."""
    swept = sweep(experiments, scheduler=scheduler, progress=progress)
    if swept.failures:
        raise TrainingFailed(swept.describe())
    return swept.results, swept


def describe_task(experiment: Learning, results: list[Trained]) -> str:
    """Data, network, strong model and rule to stop, in words."""
    first = results[0]
    source = first.source
    for seed in getattr(experiment, "seeds", []):  # which are listed elsewhere
        source = source.replace(f", seed {seed}", "")
    where = experiment.describe(source, first.parameters)
    sizes = f"Validation and test set have {experiment.n_validation} and {experiment.n_test} samples."
    strong = experiment.strong_model()
    egop = "The EGOP is exact." if strong is None else strong.describe(store.obtain(strong))
    stop = f"Training ends when its loss is below {number(experiment.stop_below)}, or after {experiment.steps} steps"
    if experiment.patience is not None:
        stop += f", or {experiment.patience} evaluations after the best one"
    return f"{where} {sizes} {egop} {stop}; the loss is looked at every {experiment.evaluate_every} steps."


def told(text: str, swept: Sweep, results: Sequence[Trained | None]) -> Text:
    """A description with what became of its trainings, which carries where their data come from."""
    made = [result for result in results if result is not None]
    seconds = number(sum(result.seconds for result in made))
    told = f"{text}\n\n{swept.describe()} They take {seconds} s of one core."
    return Text(told, {"kind": "data", "source": made[0].source})


def performance_name(dataset: str) -> str:
    """What a test measures: regression has a loss, classification an error."""
    return "test loss" if data.is_synthetic(dataset) else "test error"


def performances(results: list[Trained], dataset: str) -> Float[np.ndarray, " r"]:
    """Test loss or error of each."""
    return np.array([r.test_loss if data.is_synthetic(dataset) else r.test_error for r in results])


def mean_and_deviation(values: Float[np.ndarray, " r"]) -> tuple[float, float]:
    """NaN where there are too few values."""
    known = values[np.isfinite(values)]
    return (
        float(known.mean()) if len(known) else math.nan,
        float(known.std(ddof=1)) if len(known) > 1 else math.nan,
    )


def _corner(matrix: Tensor) -> Float[np.ndarray, "k k"]:
    return matrix[:CORNER, :CORNER].cpu().numpy().copy()


def _finite(loss: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    return np.where(np.isfinite(loss), loss, np.nan)
