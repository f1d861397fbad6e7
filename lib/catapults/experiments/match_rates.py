"""How often the loss rises where the rate exceeds the batch's critical one: Table 2, for several seeds and settings."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator
from tqdm import tqdm

from .. import data
from ..catapult import RISE
from ..display import Text, number
from .base import Experiment, ParameterError, PositiveInt
from .sgd_spikes import Matches, Reading, SGDRun, SGDSpikes, matches

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
    "loss_every": 1,
    "kernel_every": None,
    "hessian_every": None,
}


class MatchRates(Experiment):
    """SGD with three networks, each from several seeds (Table 2), and the search of a setting.

    ``shallow``, ``fcn`` and ``cnn`` hold parameters of :class:`SGDSpikes`. An entry of ``search`` names one of them as
    ``network`` and says what is changed; ``rises_above`` counts only rises by more than that fraction of the loss.
    """

    dataset: str
    shallow: Setting
    fcn: Setting
    cnn: Setting
    search: list[Setting]
    n_train: Annotated[int, Field(ge=2)]
    batch_size: PositiveInt
    steps: PositiveInt
    stop_below: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
    device: str

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
        for name in ("dataset", "n_train", "seed", "device"):
            if name in setting:
                raise ValueError(
                    f"{where}: {name} = {setting[name]!r}; allowed is one for all settings, outside of them"
                )
        try:
            self.experiment(setting, self.seeds[0])
        except ParameterError as error:
            raise ValueError(f"{where}: {error}") from None

    def experiment(self, setting: Setting, seed: int) -> SGDSpikes:
        """One training. Raises :class:`ParameterError`."""
        own = ("dataset", "n_train", "batch_size", "steps", "stop_below", "device")
        return SGDSpikes.create(**_COMMON | {name: getattr(self, name) for name in own} | {"seed": seed} | setting)

    def task(self) -> data.Task:
        """The shallow network's data. Raises the errors of :func:`catapults.data.load`."""
        return self.experiment(self.shallow, self.seeds[0]).task()

    def run(self, progress: bool = False) -> "MatchRun":
        """Train every network and every setting from every seed. Raises the errors of :func:`catapults.data.load`."""
        started = time.perf_counter()
        settings = [*self.networks.values(), *map(self.changed, self.search)]
        trained: dict[str, list[SGDRun]] = {}
        for setting in tqdm(settings, desc="match rates", disable=None if progress else True, leave=False):
            if repr(setting) not in trained:
                trained[repr(setting)] = [self.experiment(setting, seed).run() for seed in self.seeds]

        def rates(setting: Setting, above: float) -> Rates:
            runs = trained[repr(setting)]
            return Rates({r: [matches(run.history, r, above) for run in runs] for r in ("batch", "whole")}, runs)

        return MatchRun(
            self,
            {name: rates(setting, 0.0) for name, setting in self.networks.items()},
            [rates(self.changed(setting), setting.get(ABOVE, 0.0)) for setting in self.search],
            time.perf_counter() - started,
        )


@dataclass(frozen=True)
class Rates:
    """The counts of a setting, one for each seed, in either reading; and the runs they come from."""

    counts: dict[Reading, list[Matches]]
    runs: list[SGDRun]

    def percent(self, reading: Reading) -> tuple[float, float]:
        """Mean and standard deviation of the match rate in per cent, over the runs with a rise that do not diverge.

        NaN where there are too few of them.
        """
        counted = zip(self.counts[reading], self.runs, strict=True)
        rates = [100 * m.rate for m, run in counted if m.rises and not run.history.diverged]
        return float(np.mean(rates)) if rates else np.nan, float(np.std(rates, ddof=1)) if len(rates) > 1 else np.nan

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
    seconds: float

    @property
    def device(self) -> str:
        return self.networks["shallow"].runs[0].device

    def describe(self) -> Text:
        """What was trained on what, in words."""
        e = self.experiment
        trained = {id(run) for rates in [*self.networks.values(), *self.search] for run in rates.runs}
        source = self.networks["shallow"].runs[0].source.replace(f", seed {e.seeds[0]}", "")
        lines = [f"- {NETWORKS[name]}: {_network(rates.runs[0])}" for name, rates in self.networks.items()]
        return Text(
            f"{source} {e.n_train} samples, batches of {e.batch_size}, until the "
            f"training loss is below {number(e.stop_below)} or for {e.steps} steps; seeds "
            f"{', '.join(map(str, e.seeds))}.\n\n"
            + "\n".join(lines)
            + f"\n\nAll {len(trained)} trainings took {number(self.seconds)} s.",
            {"kind": "data", "source": source},
        )


def _network(run: SGDRun) -> str:
    e = run.experiment
    size = "" if e.image_size is None else f" on {e.image_size}×{e.image_size} pixels"
    rate = str(e.learning_rate).replace("eta_crit", "η_crit")
    return f"{e.describe_network(run.parameters)}{size}; labels {e.labels}, learning rate {rate}."
