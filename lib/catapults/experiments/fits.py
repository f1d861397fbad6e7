"""One training of section 4, with its test performance and its AGOP; and the strong model that stands for f*."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field, model_validator

from .. import data, schedules
from .base import Experiment, Page, ParameterError, Positive, PositiveInt, Rate, Scheduled, Seed, Word
from .network import Architecture, Network

Optimizer = Literal["sgd", "sgd+m", "adadelta", "adagrad", "rmsprop", "adam"]
REST = 0.005  # of the Frobenius norm of a strong model's AGOP, which its factor leaves out
CORNER = 10  # rows and columns of an AGOP that are kept (Fig. 26)


@dataclass(frozen=True)
class Strong:
    """What a strong model gave.

    ``factor``: V, where V V^T is its AGOP on its training inputs up to ``REST`` of the norm; V has some hundred columns
    for images of 3,072 numbers. ``test_error``: the fraction of test images that it gets wrong.
    """

    factor: Float[np.ndarray, "d r"]
    test_error: float
    source: str
    parameters: int

    @property
    def egop(self) -> Float[np.ndarray, "d d"]:
        """The AGOP that stands for the EGOP."""
        factor = self.factor.astype(np.float32)  # the record has it in half precision
        return factor @ factor.T


class StrongModel(Experiment):
    """A network trained with Adam on as much as there is, in PyTorch's parameterisation: its AGOP stands for the EGOP
    of a real data set (appendix F, "EGOP")."""

    Result: ClassVar[type] = Strong

    dataset: Word
    image_size: PositiveInt | None
    labels: Literal["zero-one", "plus-minus"]
    architecture: Architecture
    depth: PositiveInt
    width: PositiveInt
    n_train: Annotated[int, Field(ge=2)]
    n_validation: PositiveInt
    n_test: PositiveInt
    batch_size: PositiveInt
    learning_rate: Positive
    steps: PositiveInt
    seed: Seed

    @model_validator(mode="after")
    def _possible(self) -> "StrongModel":
        Network.create(**dict(self.network()))
        if self.batch_size > self.n_train:
            raise ValueError(f"batch_size = {self.batch_size}: allowed are 1 to n_train = {self.n_train}")
        return self

    @property
    def name(self) -> str:
        return f"strong model of {self.dataset}, {self.architecture} {self.depth}x{self.width}, n = {self.n_train}"

    def network(self) -> Network:
        """What is trained."""
        plain = {"norm": None, "parameterization": "pytorch", "gain": 1.0, "bias": True}
        return Network.model_construct(**self.shared_with(Network) | plain)


@dataclass(frozen=True)
class Fitted:
    """What a training of section 4 gave. Everything that counts steps has seen all of them; then curves are thinned.

    ``curve``: iterations at which ``loss``, the batch's before the step, and ``learning_rate`` are kept: all extremes
    among them. ``best``: the evaluation with the best validation loss or, for classes, error.
    """

    steps: int  # taken
    catapults: int  # steps with eta - eta_crit(X_batch) > 1e-8 until the best validation, the paper's count
    spikes: int  # peaks of the loss that stand out by a factor of two: catapults of gradient descent
    lowered: bool  # whether the rate falls somewhere
    curve: Int[np.ndarray, " k"]
    loss: Float[np.ndarray, " k"]
    learning_rate: Float[np.ndarray, " k"]
    evaluated: Int[np.ndarray, " e"]
    training_loss: Float[np.ndarray, " e"]  # NaN if not requested
    validation_loss: Float[np.ndarray, " e"]
    validation_error: Float[np.ndarray, " e"]  # the fraction of wrong classes; NaN for regression
    best: int
    initial_critical_learning_rate: float  # of the training set, n / ||K||; NaN if not requested
    converged: bool
    diverged: bool
    test_loss: float  # at the best weights
    test_error: float  # NaN for regression
    test_variance: float  # of the test targets: the loss of the best constant
    linear_test_loss: float  # of the best linear predictor on the training set; NaN for classes
    alignment: float  # of the AGOP on the training inputs, at the best weights, with the EGOP
    corner: Float[np.ndarray, "10 10"]  # of this AGOP
    true_corner: Float[np.ndarray, "10 10"]  # of the EGOP
    measure: Literal["loss", "error"]  # by which the best weights are chosen and tested
    source: str
    parameters: int
    spikes_above: int | None = None  # spikes with eta > eta_crit in their rise; None where that was not measured
    # ||K|| of some training samples, at initialisation and at the best weights
    norms: tuple[float, float] = (math.nan, math.nan)

    @property
    def test(self) -> float:
        """Test performance: the loss for regression, the error for classes."""
        return self.test_loss if self.measure == "loss" else self.test_error

    @property
    def validation(self) -> Float[np.ndarray, " e"]:
        """The same on the validation set, over the evaluations."""
        return self.validation_loss if self.measure == "loss" else self.validation_error

    @property
    def best_validation(self) -> float:
        """That of the weights that are tested."""
        return float(self.validation[self.best])


def undiverged(results: Iterable[Fitted]) -> list[Fitted]:
    """Those that did not diverge: only these are compared with each other."""
    return [result for result in results if not result.diverged]


class Learning(Network):
    """What all trainings of section 4 have in common: a task with validation and test set, and when to stop."""

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
        else:
            for name in ("dataset", "image_size", "labels"):
                if name in self.strong:
                    allowed = "allowed is that of the task, outside of it"
                    raise ValueError(f"strong: {name} = {self.strong[name]!r}; {allowed}")
            try:
                StrongModel.create(**self._of_strong_model())
            except ParameterError as error:
                raise ValueError("\n".join(f"strong: {line}" for line in str(error).splitlines())) from None
        return self

    def _of_strong_model(self) -> dict[str, Any]:
        return {"seed": 0} | (self.strong or {}) | {n: getattr(self, n) for n in ("dataset", "image_size", "labels")}

    def strong_model(self) -> StrongModel | None:
        """Whose AGOP stands for the EGOP; ``None`` where this is exact."""
        return None if self.strong is None else StrongModel.model_construct(**self._of_strong_model())

    @property
    def measure(self) -> Literal["loss", "error"]:
        """What a test measures: regression has a loss, classification an error."""
        return "loss" if data.is_synthetic(self.dataset) else "error"

    def fit(self, **values: Any) -> "Fit":
        """A training on this task: the values given, and this one's own for all others."""
        own = {name: getattr(self, name) for name in Learning.model_fields}
        plain = {
            "optimizer": "sgd",
            "replacement": False,
            "critical_every": None,
            "settle": None,
            "initial_scale": 1.0,
        }
        return Fit.create(**own | plain | values)

    def check_changes(self, rate: Rate, parameter: str) -> None:
        """Raise ``ValueError``, as for a value of ``parameter``, unless the rate changes within the steps only."""
        if schedules.parse(rate).last >= self.steps:
            raise ValueError(f"{parameter} = {rate!r}: allowed are changes before {self.steps}")


class LearningPage(Learning, Page):
    """A page of section 4."""

    def experiments(self) -> list[Experiment]:
        """The strong model, where one stands for the true function, and the trainings of every seed."""
        strong = self.strong_model()
        return [*([] if strong is None else [strong]), *super().experiments()]

    def runs(self, results: Mapping[Experiment, Any]) -> list[Any]:
        """Each with what the strong model gave."""
        strong = self.strong_model()
        found = None if strong is None else results[strong]
        return [replace(run, strong=found) for run in super().runs(results)]

    @property
    def classes(self) -> int:
        """How many the task has; two for a single output."""
        return max(2, data.n_outputs(self.dataset) or 2)


class Fit(Learning, Experiment):
    """One training, from the initial weights to the test at the best validation."""

    Result: ClassVar[type] = Fitted

    optimizer: Optimizer
    learning_rate: Scheduled
    batch_size: PositiveInt
    replacement: bool
    critical_every: PositiveInt | None
    settle: PositiveInt | None
    initial_scale: Positive  # of all initial weights: sigma of appendix D.2

    @model_validator(mode="after")
    def _fits(self) -> "Fit":
        if self.batch_size > self.n_train:
            raise ValueError(f"batch_size = {self.batch_size}: allowed are 1 to n_train = {self.n_train}")
        self.check_changes(self.learning_rate, "learning_rate")
        return self

    @property
    def name(self) -> str:
        how = "GD" if self.batch_size == self.n_train else f"batches of {self.batch_size}"
        scale = "" if self.initial_scale == 1 else f", σ = {self.initial_scale:g}"
        optimizer = "" if self.optimizer == "sgd" else f", {self.optimizer}"
        return f"{self.short}, {how}{optimizer}, rate {self.learning_rate}{scale}, seed {self.seed}"

    @property
    def needs(self) -> tuple[Experiment, ...]:
        strong = self.strong_model()
        return () if strong is None else (strong,)
