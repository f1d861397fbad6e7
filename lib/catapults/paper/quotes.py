"""Numbers that the paper quotes, each with its place in the paper and the settings that it belongs to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ..experiments import Page
from ..experiments.agop_sgd import BatchSizes
from ..experiments.gd_catapult import GDCatapult
from ..experiments.match_rates import NETWORKS, MatchRates
from ..experiments.multiple_catapults import MultipleCatapults

LARGEST_QUADRATIC = 2.0  # eta_max / eta_crit of quadratic models, as remark 1 quotes it
LARGEST = 6.0  # eta_max / eta_crit of ReLU networks, as remark 1 quotes it


@dataclass(frozen=True)
class Quote:
    """``item``: of the paper, ``"figure 3a"``. ``settings``: parameters of a page, by name; those in ``ESSENTIAL`` say
    what the number is about, the others under which conditions the paper has it."""

    ESSENTIAL: ClassVar[tuple[str, ...]] = ("dataset", "architecture")

    item: str
    settings: Mapping[str, Any]

    @property
    def where(self) -> str:
        """The item as it is cited: ``Fig. 3a``."""
        return self.item.replace("figure", "Fig.").replace("table", "Table")

    def differences(self, page: Page) -> dict[str, tuple[Any, Any]]:
        """The settings in which a page differs, by name: the page's and the paper's."""
        pairs = {name: (getattr(page, name), value) for name, value in self.settings.items()}
        return {name: (ours, theirs) for name, (ours, theirs) in pairs.items() if ours != theirs}

    def elsewhere(self, page: Page) -> str:
        """The same in words; empty where there are none."""
        return ", ".join(f"{name} = {b!r} there, {a!r} here" for name, (a, b) in self.differences(page).items())


@dataclass(frozen=True)
class CriticalRate(Quote):
    """Of the initial network, and the rate at which the paper trains it. ``fitted``: our choice of the layers' gain was
    made by it, so that agreement is no evidence."""

    critical_learning_rate: float
    learning_rate: float
    fitted: bool = False


@dataclass(frozen=True)
class FinalRate(Quote):
    """The rate with which a schedule ends, as Fig. 18 starts from it, and the critical rate of the initial network."""

    critical_learning_rate: float
    final_learning_rate: float

    @property
    def multiple(self) -> float:
        """The final rate in units of the critical one."""
        return self.final_learning_rate / self.critical_learning_rate


@dataclass(frozen=True)
class MatchRate(Quote):
    """In per cent, over three runs; and the rate at which the paper trains."""

    ESSENTIAL: ClassVar[tuple[str, ...]] = ("dataset", "architecture", "depth")

    mean: float
    deviation: float
    learning_rate: float


@dataclass(frozen=True)
class Aligned(Quote):
    """What SGD with a batch size comes to."""

    ESSENTIAL: ClassVar[tuple[str, ...]] = ("dataset", "architecture", "parameterization", "learning_rates")

    alignment: float
    test_loss: float


def critical_rate(page: GDCatapult) -> CriticalRate | None:
    """Of the network on the data of a page."""
    return _nearest(_CRITICAL_RATES, page)


def final_rate(page: MultipleCatapults) -> FinalRate | None:
    """Of the network on the data of a page."""
    return _nearest(_FINAL_RATES, page)


def match_rates(page: MatchRates) -> dict[str, MatchRate]:
    """Table 2, by the names of the networks as the page has them."""
    pages = {name: page.page(page.networks[name], page.seeds[0]) for name in NETWORKS}
    found = {name: _nearest([quote], pages[name]) for name, quote in _MATCH_RATES.items()}
    return {name: quote for name, quote in found.items() if quote is not None}


def table_1(page: BatchSizes) -> dict[int, Aligned]:
    """Table 1, by batch size."""
    found = {size: _nearest([quote], page) for size, quote in _TABLE_1.items()}
    return {size: quote for size, quote in found.items() if quote is not None}


_Q = TypeVar("_Q", bound=Quote)


def _nearest(quotes: Iterable[_Q], page: Page) -> _Q | None:
    """That about the same thing with the fewest differences."""
    about = [quote for quote in quotes if not quote.differences(page).keys() & set(quote.ESSENTIAL)]
    return min(about, key=lambda quote: len(quote.differences(page)), default=None)


def _network(
    dataset: str, architecture: str, depth: int, width: int, image_size: int | None, n: int, gain: float
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "architecture": architecture,
        "norm": None,
        "depth": depth,
        "width": width,
        "image_size": image_size,
        "n_train": n,
        "parameterization": "ntk",
        "gain": gain,
        "bias": False,
    }


def _fcn(dataset: str) -> dict[str, Any]:
    return _network(dataset, "fcn", 5, 1024, None, 128, 2**0.5)


def _cnn(dataset: str) -> dict[str, Any]:
    return _network(dataset, "cnn", 5, 512, 32, 128, 2**0.5)


_CRITICAL_RATES = (
    CriticalRate("figure 3a", _fcn("cifar-2"), 3.6, 6.0, fitted=True),
    CriticalRate("figure 3b", _cnn("cifar-2"), 4.5, 8.0),
    CriticalRate("figure 14a", _fcn("svhn-2"), 3.4, 6.0),
    CriticalRate("figure 14c", _cnn("svhn-2"), 1.6, 3.0),
    CriticalRate("figure 15a", _fcn("rank-2"), 1.9, 5.0),
    CriticalRate("figure 15c", _network("cifar-2", "wrn", 10, 10, 32, 128, 2**0.5), 1.5, 3.0),
    CriticalRate("figure 16a", _fcn("cifar-10"), 34.0, 100.0),
    CriticalRate("figure 16c", _cnn("cifar-10"), 16.0, 80.0),
)
_FINAL_RATES = (
    FinalRate("figure 18a", _fcn("cifar-2"), 3.6, 60.0),
    FinalRate("figure 18b", _cnn("cifar-2"), 4.5, 40.0),
)
_IN_TABLE_2 = {"dataset": "cifar-2", "n_train": 128, "batch_size": 32}  # the sizes of the networks are not compared
_MATCH_RATES = {
    "shallow": MatchRate("table 2", _IN_TABLE_2 | {"architecture": "fcn", "depth": 2}, 97.32, 0.45, 0.8),
    "fcn": MatchRate("table 2", _IN_TABLE_2 | {"architecture": "fcn", "depth": 5}, 96.17, 1.46, 6.0),
    "cnn": MatchRate("table 2", _IN_TABLE_2 | {"architecture": "cnn", "depth": 5}, 94.67, 3.27, 8.0),
}
_IN_TABLE_1 = _network("rank-2", "fcn", 2, 1024, None, 2000, 1.0) | {"learning_rates": ["0.5 eta_crit"]}
_TABLE_1 = {
    5: Aligned("table 1", _IN_TABLE_1, 0.95, 0.42),
    10: Aligned("table 1", _IN_TABLE_1, 0.89, 0.59),
    50: Aligned("table 1", _IN_TABLE_1, 0.84, 0.71),
    2000: Aligned("table 1", _IN_TABLE_1, 0.81, 0.74),
}
