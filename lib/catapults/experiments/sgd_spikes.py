"""Mini-batch SGD with the critical rate of every batch: chapter 3's spikes."""

import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field, field_validator, model_validator

from .. import catapult, schedules, sgd
from ..catapult import Spike
from ..display import Text, number
from ..sgd import SGDHistory
from .base import NetworkExperiment, ParameterError, PositiveInt, check_tops, threshold

Reading = Literal["batch", "whole"]


class SGDSpikes(NetworkExperiment):
    """SGD from one initialisation at a rate that exceeds the critical rates of batches, and at one that does not
    (section 3.3, appendices C and F.3)."""

    train_last_layer: bool
    learning_rate: int | float | str
    calm_learning_rate: int | float | str | None  # of the second training; None: there is none
    batch_size: PositiveInt
    replacement: bool
    steps: PositiveInt  # at most, of either training
    stop_below: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    top: PositiveInt
    rise: Annotated[float, Field(gt=1, allow_inf_nan=False)]  # that makes a peak of the loss a spike, as a factor
    loss_every: PositiveInt
    kernel_every: PositiveInt | None
    hessian_every: PositiveInt | None

    @field_validator("learning_rate", "calm_learning_rate")
    @classmethod
    def _readable(cls, value: int | float | str | None, info: Any) -> int | float | str | None:
        if value is not None:
            schedules.check(value, info.field_name)
        return value

    @model_validator(mode="after")
    def _fits(self) -> "SGDSpikes":
        check_tops(self.top, self.n_train, self.dataset)
        if self.batch_size > self.n_train and not self.replacement:
            raise ValueError(f"batch_size = {self.batch_size}: allowed are 1 to n_train = {self.n_train}")
        for name in ("learning_rate", "calm_learning_rate"):
            value = getattr(self, name)
            if value is not None and schedules.parse(value).last >= self.steps:
                raise ValueError(f"{name} = {value!r}: allowed are changes before iteration {self.steps}")
        return self

    def run(self, progress: bool = False) -> "SGDRun":
        """Load the data, initialise, train.

        Raises the errors of :func:`catapults.data.load`, and :class:`ParameterError` where there is nothing to train.
        """
        started = time.perf_counter()
        start = self.start()

        def train(learning_rate: int | float | str, kernel_every: int | None, hessian_every: int | None) -> SGDHistory:
            model = self.model(start.inputs, start.outputs).to(start.inputs.device)
            if not self.train_last_layer:
                list(model.modules())[-1].requires_grad_(False)
            return sgd.stochastic_gradient_descent(
                model,
                start.inputs,
                start.targets,
                learning_rate,
                self.batch_size,
                self.steps,
                replacement=self.replacement,
                seed=self.seed,
                stop_below=self.stop_below,
                top=self.top,
                loss_every=self.loss_every,
                kernel_every=kernel_every,
                hessian_every=hessian_every,
                progress=progress,
            )

        history = train(self.learning_rate, self.kernel_every, self.hessian_every)
        if not len(history):
            here = f"stop_below = {self.stop_below!r}: the loss is {number(history.loss[0])} before the first step"
            raise ParameterError(f"{here}; allowed is less than that")
        calm = None if self.calm_learning_rate is None else train(self.calm_learning_rate, None, None)
        sizes = torch.linalg.vector_norm(start.inputs.flatten(1), dim=1).cpu().numpy()
        seconds = time.perf_counter() - started
        return SGDRun(self, start.source, start.device, history, calm, sizes, start.parameters, start.outputs, seconds)


@dataclass(frozen=True)
class Matches:
    """Steps, by whether the loss rises and whether the rate exceeds the batch's critical one."""

    hits: int  # both
    misses: int  # the loss rises although the rate does not exceed
    false_alarms: int  # the rate exceeds and the loss does not rise
    quiet: int  # neither

    @property
    def rises(self) -> int:
        return self.hits + self.misses

    @property
    def rate(self) -> float:
        """Table 2's match rate: of the steps on which the loss rises, the share with eta > eta_crit(X_batch)."""
        return self.hits / self.rises if self.rises else np.nan


def matches(history: SGDHistory, reading: Reading, above: float = 0.0) -> Matches:
    """Count the steps of a run. ``reading``: the loss of the step's batch, or of the whole training set.

    ``above``: only rises by more than that fraction of the loss count. Steps without both losses are left out.
    """
    if reading == "batch":
        before, after = history.batch_loss, history.batch_loss_after
    else:
        before, after = history.loss[:-1], history.loss[1:]
    there = np.isfinite(before) & np.isfinite(after)
    rises, exceeds = (after > (1 + above) * before)[there], history.exceeds[there]
    return Matches(
        *(int(np.sum(a & b)) for a, b in ((rises, exceeds), (rises, ~exceeds), (~rises, exceeds), (~rises, ~exceeds)))
    )


@dataclass(frozen=True)
class SGDRun:
    """What an experiment gave, and the numbers that describe its spikes."""

    experiment: SGDSpikes
    source: str
    device: str
    history: SGDHistory
    calm: SGDHistory | None
    input_norms: Float[np.ndarray, " n"]
    parameters: int
    outputs: int
    seconds: float

    def describe(self) -> Text:
        """What was trained on what, in words."""
        e, h = self.experiment, self.history
        drawn = "drawn with replacement" if e.replacement else "by going through the shuffled training set"
        fixed = "" if e.train_last_layer else " Its last layer is not trained."
        end = "diverges" if h.diverged else f"ends below a loss of {number(e.stop_below)}" if h.converged else "ends"
        return Text(
            f"{e.describe(self.source, self.parameters)}{fixed} Training: SGD with batches of {e.batch_size}, {drawn}; "
            f"it {end} after {len(h)} steps. The experiment took {number(self.seconds)} s.",
            {"kind": "data", "source": self.source},
        )

    @property
    def threshold(self) -> str:
        """How the critical learning rate of the whole set is written for this run's number of outputs."""
        return threshold(self.outputs)

    @property
    def spikes(self) -> list[Spike]:
        return catapult.spikes(self.history.loss, self.experiment.rise)

    @property
    def calm_spikes(self) -> list[Spike]:
        return [] if self.calm is None else catapult.spikes(self.calm.loss, self.experiment.rise)

    def norms(self, spike: Spike) -> tuple[float, float]:
        """||K|| at the start and at the end of a spike, or at the nearest measurement before and after these."""
        norm = self.history.kernel_norm
        there = np.flatnonzero(np.isfinite(norm))
        before, after = there[there <= spike.start], there[there >= spike.end]
        return (float(norm[before[-1]]) if len(before) else np.nan, float(norm[after[0]]) if len(after) else np.nan)

    def share_in_top(self, spike: Spike) -> float:
        """Part of the loss's rise, from the start to the peak, in the top eigenspace; NaN where not measured."""
        loss, top = self.history.loss, self.history.split(self.experiment.top)[0]
        return float((top[spike.peak] - top[spike.start]) / (loss[spike.peak] - loss[spike.start]))

    @property
    def in_spikes(self) -> Bool[np.ndarray, " T"]:
        """The steps from the start of a spike to its end."""
        inside = np.zeros(len(self.history), bool)
        for spike in self.spikes:
            inside[spike.start : spike.end] = True
        return inside

    @property
    def norm_changes(self) -> tuple[Float[np.ndarray, " k"], Bool[np.ndarray, " k"]]:
        """The change of log ||K|| from each measurement to the next, and whether a step between them is in a spike."""
        measured = np.flatnonzero(np.isfinite(self.history.kernel_norm))
        if len(measured) < 2:
            return np.empty(0), np.empty(0, bool)
        changes = np.diff(np.log(self.history.kernel_norm[measured]))
        return changes, np.logical_or.reduceat(self.in_spikes[: measured[-1]], measured[:-1])

    @property
    def hessian(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """The batches' critical rates by the Hessian, and by the kernel, where both are known (Fig. 12)."""
        exact, kernel = self.history.batch_hessian_critical_learning_rate, self.history.batch_critical_learning_rate
        there = np.isfinite(exact) & np.isfinite(kernel)
        return exact[there], kernel[there]
