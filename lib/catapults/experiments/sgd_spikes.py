"""Mini-batch SGD with the critical rate of every batch: chapter 3's spikes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field, field_validator, model_validator

from .. import catapult, schedules
from ..catapult import Spike
from ..history import History
from .base import Page, PositiveInt, Rate
from .descent import Measured
from .network import threshold
from .stochastic import Sampling, StochasticDescent

Reading = Literal["batch", "whole"]
READINGS: dict[Reading, str] = {"whole": "the loss of the whole training set", "batch": "the batch's own loss"}


class SGDSpikes(Sampling, Page):
    """SGD from one initialisation at a rate that exceeds the critical rates of batches, and at one that does not
    (section 3.3, appendices C and F.3)."""

    learning_rate: Rate
    calm_learning_rate: Rate | None  # of the second training; None: there is none
    rise: Annotated[float, Field(gt=1, allow_inf_nan=False)]  # that makes a peak of the loss a spike, as a factor
    kernel_every: PositiveInt | None
    hessian_every: PositiveInt | None
    break_even_every: PositiveInt | None = None
    seeds: PositiveInt

    @field_validator("learning_rate", "calm_learning_rate")
    @classmethod
    def _readable(cls, value: Rate | None, info: Any) -> Rate | None:
        if value is not None:
            schedules.check(value, info.field_name)
        return value

    @model_validator(mode="after")
    def _in_time(self) -> "SGDSpikes":
        for name in ("learning_rate", "calm_learning_rate"):
            value = getattr(self, name)
            if value is not None and schedules.parse(value).last >= self.steps:
                raise ValueError(f"{name} = {value!r}: allowed are changes before iteration {self.steps}")
        return self

    def trainings(self) -> Mapping[str, StochasticDescent]:
        shared = self.shared_with(StochasticDescent)
        found = {"spikes": StochasticDescent(**shared)}
        if self.calm_learning_rate is not None:
            unmeasured = dict.fromkeys(("kernel_every", "hessian_every", "break_even_every"))
            calm = {"learning_rate": self.calm_learning_rate} | unmeasured
            found["calm"] = StochasticDescent(**shared | calm)
        return found

    def run(self, results: Mapping[str, Measured]) -> "SGDRun":
        r, calm = results["spikes"], results.get("calm")
        return SGDRun(
            self,
            r.source,
            r.history,
            calm and calm.history,
            r.input_norms,
            r.parameters,
            r.outputs,
        )


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

    @property
    def base(self) -> float:
        """Of all steps, the share with eta > eta_crit(X_batch), beta: the match rate of rises that come at random."""
        return _share(self.hits + self.false_alarms, self.misses + self.quiet)

    @property
    def above(self) -> float:
        """Of the steps with eta > eta_crit(X_batch), those on which the loss rises: p."""
        return _share(self.hits, self.false_alarms)

    @property
    def below(self) -> float:
        """The same of the other steps: q. The match rate is beta p / (beta p + (1 - beta) q)."""
        return _share(self.misses, self.quiet)


def _share(some: int, others: int) -> float:
    return some / (some + others) if some + others else np.nan


@dataclass(frozen=True)
class Explained:
    """Steps, by whether the whole set's loss rises and whether the rate exceeds the step's break-even rate."""

    rises: int
    hits: int  # rises with eta > eta*_whole, or where no rate lowers the loss
    right: float  # share of all steps on which the loss rises if and only if the rate exceeds
    steps: int

    @property
    def rate(self) -> float:
        """Of the rises, those explained."""
        return self.hits / self.rises if self.rises else np.nan


def explained(history: History) -> Explained:
    """How many rises of the whole set's loss the break-even rate of the step, eta*_whole, foretells; steps without both
    losses and the rate are left out."""
    even, before, after = history.whole_break_even_rate, history.loss[:-1], history.loss[1:]
    there = np.isfinite(before) & np.isfinite(after) & np.isfinite(even)
    rises, foretold = (after > before)[there], ((history.learning_rate > even) | (even <= 0))[there]
    right = float((rises == foretold).mean()) if there.any() else np.nan
    return Explained(int(rises.sum()), int((rises & foretold).sum()), right, int(there.sum()))


@dataclass(frozen=True)
class Rest:
    """What a spike does to L_>s.

    ``after``: the factor from the spike's start to where the loss is back. ``rise``: its largest rise on the way;
    ``turned``: what of that comes from the turning of the eigenvectors; both as shares of the loss's own rise.
    """

    after: float
    rise: float
    turned: float


def matches(history: History, reading: Reading, above: float = 0.0) -> Matches:
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
    history: History
    calm: History | None
    input_norms: Float[np.ndarray, " n"]
    parameters: int
    outputs: int

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

    def back(self, spike: Spike) -> int | None:
        """The first iteration after the peak with a loss as low as where the spike began; ``None`` if there is none."""
        loss = self.history.loss
        low = np.flatnonzero(loss[spike.peak :] <= loss[spike.start])
        return spike.peak + int(low[0]) if len(low) else None

    def _around(self, spike: Spike, column: Float[np.ndarray, " states"]) -> tuple[int, int] | None:
        """The last measurement of a column before the spike, and the first once the loss is back; ``None`` without."""
        there, back = np.flatnonzero(np.isfinite(column)), self.back(spike)
        before, after = there[there <= spike.start], there[there >= (len(column) if back is None else back)]
        return (int(before[-1]), int(after[0])) if len(before) and len(after) else None

    def norms(self, spike: Spike) -> tuple[float, float]:
        """||K|| at the start of a spike and once the loss is back, or at the nearest measurement before and after."""
        norm, around = self.history.kernel_norm, self._around(spike, self.history.kernel_norm)
        return (np.nan, np.nan) if around is None else (float(norm[around[0]]), float(norm[around[1]]))

    def share_in_top(self, spike: Spike) -> float:
        """Part of the loss's rise, from the start to the peak, in the top eigenspace; NaN where not measured."""
        loss, top = self.history.loss, self.history.split(self.experiment.top)[0]
        return float((top[spike.peak] - top[spike.start]) / (loss[spike.peak] - loss[spike.start]))

    def rest(self, spike: Spike) -> Rest:
        """From the nearest measurements before the spike and once the loss is back; NaN without these."""
        h, s = self.history, self.experiment.top
        rest = h.split(s)[1]
        around = self._around(spike, rest)
        if around is None or not rest[around[0]] > 0:
            return Rest(np.nan, np.nan, np.nan)
        a, b = around
        there = np.flatnonzero(np.isfinite(rest))
        within = there[(there >= a) & (there <= b)]
        highest, height = int(within[rest[within].argmax()]), h.loss[spike.peak] - h.loss[spike.start]
        turned = h.turned(s, a, highest) / height if highest > a else 0.0
        return Rest(float(rest[b] / rest[a]), float((rest[highest] - rest[a]) / height), float(turned))

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
        h, there = self.history, self._both
        return h.batch_hessian_critical_learning_rate[there], h.batch_critical_learning_rate[there]

    @property
    def hessian_exceeds(self) -> Bool[np.ndarray, " k"]:
        """Whether the rate exceeds the batch's critical one, at the steps of ``hessian``."""
        return self.history.exceeds[self._both]

    @property
    def rate_with_hessian(self) -> Float[np.ndarray, " k"]:
        """The learning rate at the steps of ``hessian``."""
        return self.history.learning_rate[self._both]

    @property
    def _both(self) -> Bool[np.ndarray, " T"]:
        exact, kernel = self.history.batch_hessian_critical_learning_rate, self.history.batch_critical_learning_rate
        return np.isfinite(exact) & np.isfinite(kernel)
