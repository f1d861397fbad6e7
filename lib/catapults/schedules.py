"""Learning rates as a person writes them: absolute or in critical ones; constant, in steps, or cyclical."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

_RATE = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(?:\*?\s*((?:current\s+)?eta_crit))?\s*", re.IGNORECASE)
_ALLOWED = (
    "allowed are a positive number, a multiple of the critical learning rate at initialisation such as "
    '"1.67 eta_crit", steps at ascending iterations such as "6; 15: 10; 45, 75: 1.5 current eta_crit", and cycles such '
    'as "0.5 eta_crit .. 2 eta_crit, 20"'
)


@dataclass(frozen=True)
class LearningRate:
    """A rate given absolutely, or as a multiple of a critical learning rate: the initial one, or the current one."""

    value: float
    of: Literal["", "eta_crit", "current eta_crit"] = ""

    def __post_init__(self):
        if not 0 < self.value < math.inf:
            raise ValueError(f"learning_rate = {self.value!r}: {_ALLOWED}")

    @classmethod
    def parse(cls, given: "float | str | LearningRate") -> "LearningRate":
        """Read ``6``, ``"6"``, ``"1.67 eta_crit"`` or ``"1.5 current eta_crit"``.

        Raises ``ValueError`` for anything else and for numbers that are not positive and finite.
        """
        if isinstance(given, LearningRate):
            return given
        match = _RATE.fullmatch(str(given))
        try:
            value = float(match[1])
        except (TypeError, ValueError):
            value = math.nan
        if isinstance(given, bool) or not (0 < value < math.inf):
            raise ValueError(f"learning_rate = {given!r}: {_ALLOWED}")
        return cls(value, " ".join((match[2] or "").lower().split()))

    @property
    def relative(self) -> bool:
        return bool(self.of)

    @property
    def current(self) -> bool:
        return self.of.startswith("current")

    def absolute(self, initial: float, current: float) -> float:
        """The rate itself, given the critical rates at initialisation and now."""
        return self.value * {"": 1.0, "eta_crit": initial, "current eta_crit": current}[self.of]

    def __str__(self) -> str:
        return f"{self.value!r} {self.of}".strip()


@runtime_checkable
class LearningRates(Protocol):
    """A learning rate over the iterations."""

    last: int  # the iteration of the last change that is named
    relative: bool  # whether some rate is a multiple of a critical one

    def at(self, iteration: int) -> LearningRate | None:
        """The rate that is set at this iteration; ``None`` where it stays as it is."""


@dataclass(frozen=True)
class Schedule:
    """A rate that changes only at the iterations named; the first is 0."""

    steps: tuple[tuple[int, LearningRate], ...]

    def __post_init__(self):
        iterations = [iteration for iteration, _ in self.steps]
        if iterations[:1] != [0] or sorted(set(iterations)) != iterations:
            raise ValueError(f"learning_rate: its iterations {iterations} do not ascend from 0; {_ALLOWED}")

    @classmethod
    def parse(cls, given: "float | str | LearningRate | Schedule") -> "Schedule":
        """Read what :meth:`LearningRate.parse` reads, or such rates with the iterations at which they are set.

        ``"6; 15: 10; 60: 15"`` starts at 6 and goes to 10 and 15 at iterations 15 and 60 (appendix F.2);
        ``"1.67 eta_crit; 15, 45: 1.5 current eta_crit"`` sets it to 1.5 times the critical rate of that moment, twice.

        Raises ``ValueError`` for anything else, and for iterations that do not ascend.
        """
        if isinstance(given, Schedule):
            return given
        first, *later = str(given).split(";") if isinstance(given, str) else [given]
        try:
            steps = [(0, LearningRate.parse(first))]
            for part in later:
                iterations, colon, rate = part.partition(":")
                steps += [(int(iteration), LearningRate.parse(rate)) for iteration in iterations.split(",") if colon]
                if not colon:
                    raise ValueError
        except ValueError:
            raise ValueError(f"learning_rate = {given!r}: {_ALLOWED}") from None
        try:
            return cls(tuple(steps))
        except ValueError:
            raise ValueError(f"learning_rate = {given!r}: its iterations do not ascend; {_ALLOWED}") from None

    def at(self, iteration: int) -> LearningRate | None:
        """The rate that is set at this iteration; ``None`` where it stays as it is."""
        return self._by_iteration.get(iteration)

    @cached_property
    def _by_iteration(self) -> dict[int, LearningRate]:
        return dict(self.steps)

    @property
    def last(self) -> int:
        """The iteration of the last change."""
        return self.steps[-1][0]

    @property
    def relative(self) -> bool:
        """Whether some rate is a multiple of a critical one."""
        return any(rate.relative for _, rate in self.steps)

    def __str__(self) -> str:
        return "; ".join(f"{iteration}: {rate}" if iteration else str(rate) for iteration, rate in self.steps)


@dataclass(frozen=True)
class Cyclical:
    """A rate that rises linearly from ``low`` to ``high`` in ``half_cycle`` steps, falls back in as many, and so on.

    This is the triangular policy of Smith (2017), "Cyclical learning rates for training neural networks".
    """

    low: LearningRate
    high: LearningRate
    half_cycle: int

    last = 0

    @property
    def relative(self) -> bool:
        """Whether the rates are multiples of the critical one."""
        return self.low.relative

    def __post_init__(self):
        if self.low.of != self.high.of or self.low.current:
            raise ValueError(
                f"learning_rate = '{self}': allowed are cycles between two absolute rates, or between two multiples of "
                "eta_crit"
            )
        if not self.low.value < self.high.value:
            raise ValueError(f"learning_rate = '{self}': allowed are cycles from a lower to a higher rate")
        if self.half_cycle < 1:
            raise ValueError(f"learning_rate = '{self}': allowed are half cycles of at least 1 step")

    @classmethod
    def parse(cls, given: str) -> "Cyclical":
        """Read ``"0.5 eta_crit .. 2 eta_crit, 20"``: between these rates, 20 steps up and 20 down.

        Raises ``ValueError`` for anything else.
        """
        match = re.fullmatch(r"(.+?)\.\.(.+),\s*(\d+)\s*", given)
        if not match:
            raise ValueError(f"learning_rate = {given!r}: {_ALLOWED}")
        try:
            low, high = LearningRate.parse(match[1]), LearningRate.parse(match[2])
        except ValueError:
            raise ValueError(f"learning_rate = {given!r}: {_ALLOWED}") from None
        return cls(low, high, int(match[3]))

    def at(self, iteration: int) -> LearningRate:
        """The rate of this iteration."""
        phase = abs((iteration / self.half_cycle + 1) % 2 - 1)  # 0, up to 1, and back
        return LearningRate(self.low.value + phase * (self.high.value - self.low.value), self.low.of)

    def __str__(self) -> str:
        return f"{self.low} .. {self.high}, {self.half_cycle}"


def parse(given: "int | float | str | LearningRate | LearningRates") -> LearningRates:
    """Read a rate as :meth:`LearningRate.parse` does, or steps (:class:`Schedule`), or cycles (:class:`Cyclical`).

    Raises ``ValueError`` for anything else.
    """
    if isinstance(given, Cyclical):
        return given
    if isinstance(given, str) and ".." in given:
        return Cyclical.parse(given)
    return Schedule.parse(given)


def check(given: int | float | str, parameter: str, read: Callable = parse) -> None:
    """Raise ``ValueError`` for what ``read`` cannot, as a value of ``parameter``."""
    try:
        read(given)
    except ValueError as error:
        raise ValueError(str(error).replace("learning_rate", parameter, 1)) from None
