"""How often the loss rises where the rate exceeds the batch's critical one: Table 2, for several seeds and settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ..catapult import RISE
from .base import Page, ParameterError, PositiveInt, Seed, Word
from .descent import Measured
from .sgd_spikes import Explained, Matches, Reading, SGDRun, SGDSpikes, explained, matches
from .stochastic import StochasticDescent

Setting = dict[str, Any]
NETWORKS = {"shallow": "shallow network", "fcn": "FCN", "cnn": "CNN"}
NETWORK, ABOVE = "network", "rises_above"  # what a setting of the search has beside parameters
_COMMON: Setting = {
    "norm": None,
    "image_size": None,
    "parameterization": "ntk",
    "bias": False,
    "train_last_layer": True,
    "calm_learning_rate": None,
    "replacement": False,
    "top": 1,
    "rise": RISE,
    "seeds": 1,
    "loss_every": 1,
    "kernel_every": None,
    "hessian_every": None,
    "break_even_every": 1,
}


class MatchRates(Page):
    """SGD with three networks, each from several seeds (Table 2), and the search of a setting.

    ``shallow``, ``fcn`` and ``cnn`` hold parameters of :class:`SGDSpikes`. An entry of ``search`` names one of them as
    ``network`` and says what is changed; ``rises_above`` counts only rises by more than that fraction of the loss.
    """

    dataset: Word
    shallow: Setting
    fcn: Setting
    cnn: Setting
    search: list[Setting]
    n_train: Annotated[int, Field(ge=2)]
    batch_size: PositiveInt
    steps: PositiveInt
    stop_below: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    seed: ClassVar[int] = 0  # each training has one of the seeds
    seeds: Annotated[list[Seed], Field(min_length=1)]

    @model_validator(mode="after")
    def _all_are_experiments(self) -> "MatchRates":
        for name, setting in self.networks.items():
            self._check(name, setting)
        for index, setting in enumerate(self.search):
            where, above = f"search[{index}]", setting.get(ABOVE, 0)
            if setting.get(NETWORK) not in NETWORKS:
                raise ValueError(f"{where}: {NETWORK} = {setting.get(NETWORK)!r}; allowed are {', '.join(NETWORKS)}")
            if isinstance(above, bool) or not isinstance(above, int | float) or not above >= 0:
                raise ValueError(f"{where}: {ABOVE} = {above!r}; allowed are numbers of at least 0")
            self._check(where, self.changed(setting))
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: allowed is each seed once")
        return self

    @property
    def networks(self) -> dict[str, Setting]:
        return {name: getattr(self, name) for name in NETWORKS}

    def changed(self, setting: Mapping[str, Any]) -> Setting:
        """The network that a setting of the search names, with its changes."""
        return self.networks[setting[NETWORK]] | {k: v for k, v in setting.items() if k not in (NETWORK, ABOVE)}

    def _check(self, where: str, setting: Setting) -> None:
        for name in ("dataset", "n_train", "seed", "seeds"):
            if name in setting:
                raise ValueError(
                    f"{where}: {name} = {setting[name]!r}; allowed is one for all settings, outside of them"
                )
        try:
            self.page(setting, self.seeds[0])
        except ParameterError as error:
            raise ValueError(f"{where}: {error}") from None

    def page(self, setting: Setting, seed: int) -> SGDSpikes:
        """The chapter on SGD with one network and seed. Raises :class:`ParameterError`."""
        own = ("dataset", "n_train", "batch_size", "steps", "stop_below")
        return SGDSpikes.create(**_COMMON | {name: getattr(self, name) for name in own} | {"seed": seed} | setting)

    def of_each_seed(self) -> list["MatchRates"]:
        return [self]  # all seeds together are one run

    def pages(self) -> dict[tuple[int, int], SGDSpikes]:
        """By the number of the setting, the three networks first, and by the seed."""
        settings = [*self.networks.values(), *map(self.changed, self.search)]
        return {(k, seed): self.page(setting, seed) for k, setting in enumerate(settings) for seed in self.seeds}

    def trainings(self) -> Mapping[tuple[int, int], StochasticDescent]:
        return {name: page.trainings()["spikes"] for name, page in self.pages().items()}

    def run(self, results: Mapping[tuple[int, int], Measured]) -> "MatchRun":
        runs = {name: page.run({"spikes": results[name]}) for name, page in self.pages().items()}

        def rates(k: int, above: float) -> Rates:
            of = [runs[k, seed] for seed in self.seeds]
            return Rates({r: [matches(run.history, r, above) for run in of] for r in ("batch", "whole")}, of)

        above = [0.0] * len(NETWORKS) + [setting.get(ABOVE, 0.0) for setting in self.search]
        every = [rates(k, least) for k, least in enumerate(above)]
        own = dict(zip(NETWORKS, every[: len(NETWORKS)], strict=True))
        return MatchRun(self, own, every[len(NETWORKS) :])


@dataclass(frozen=True)
class Rates:
    """The counts of a setting, one for each seed, in either reading; and the runs they come from."""

    counts: dict[Reading, list[Matches]]
    runs: list[SGDRun]

    def percent(self, reading: Reading) -> tuple[float, float]:
        """Mean and standard deviation of the match rate in per cent, over the runs with a rise that do not diverge.

        NaN where there are too few of them.
        """
        rates = [100 * m.rate for m in self._counted(reading)]
        return float(np.mean(rates)) if rates else np.nan, float(np.std(rates, ddof=1)) if len(rates) > 1 else np.nan

    def by_seed(self, reading: Reading) -> list[float]:
        """The match rates in per cent; NaN of a run without a rise, or that diverges."""
        counted = zip(self.counts[reading], self.runs, strict=True)
        return [np.nan if run.history.diverged else 100 * m.rate for m, run in counted]

    def parts(self, reading: Reading) -> dict[str, float]:
        """What the match rate is made of, in per cent, over the steps of all runs that do not diverge: beta, p, q."""
        counted = zip(self.counts[reading], self.runs, strict=True)
        every = [m for m, run in counted if not run.history.diverged]
        names = ("hits", "misses", "false_alarms", "quiet")
        whole = Matches(*(sum(getattr(m, name) for m in every) for name in names))
        return {"beta": 100 * whole.base, "p": 100 * whole.above, "q": 100 * whole.below}

    @property
    def of_steps(self) -> list[Explained]:
        """What the break-even rate explains, of each run with a rise that does not diverge and has measured it."""
        found = [explained(run.history) for run in self.runs if not run.history.diverged]
        return [e for e in found if e.rises]

    def explained(self, what: Literal["rate", "right"]) -> tuple[float, float]:
        """Mean and standard deviation of these in per cent."""
        values = [100 * getattr(e, what) for e in self.of_steps]
        return (
            float(np.mean(values)) if values else np.nan,
            float(np.std(values, ddof=1)) if len(values) > 1 else np.nan,
        )

    def base(self, reading: Reading) -> float:
        """Of all steps of the same runs, the share with eta > eta_crit(X_batch) in per cent, as the mean over the runs:
        what the match rate would be if the loss rose at random. NaN where there is no such run."""
        rates = [100 * m.base for m in self._counted(reading)]
        return float(np.mean(rates)) if rates else np.nan

    def _counted(self, reading: Reading) -> list[Matches]:
        counted = zip(self.counts[reading], self.runs, strict=True)
        return [m for m, run in counted if m.rises and not run.history.diverged]

    @property
    def spikes(self) -> list[int]:
        """How many spikes each run has."""
        return [len(run.spikes) for run in self.runs]


@dataclass(frozen=True)
class MatchRun:
    """What the experiment gave: for each network, and for each setting of the search."""

    experiment: MatchRates
    networks: dict[str, Rates]
    search: list[Rates]
