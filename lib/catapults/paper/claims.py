"""What the claims of every experiment share: their form, how they are judged over seeds, their table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ..display import Text, table
from .statistics import of_one_more, wilson

REPRODUCED, PARTLY, NOT_REPRODUCED = "reproduced", "partly reproduced", "not reproduced"
NOT_COMPARED, GIVEN = "not compared", "set by us"
VERDICTS = {REPRODUCED: "✓", PARTLY: "◐", NOT_REPRODUCED: "✗", NOT_COMPARED: "–", GIVEN: "·"}
COMPARED = (REPRODUCED, PARTLY, NOT_REPRODUCED)
MOST, FEW = 0.8, 0.2  # shares of the seeds from which, and up to which, a claim counts as reproduced and as not
_HERE = {  # on data that the paper does not have there is nothing to reproduce
    REPRODUCED: "holds here",
    PARTLY: "holds here in part of the seeds",
    NOT_REPRODUCED: "does not hold here",
}


@dataclass(frozen=True)
class Tolerance:
    """What is asked of a value for a claim to hold: ``words`` say it, ``holds`` decides it."""

    words: str
    holds: Callable[[Any], bool] = field(repr=False)

    def judge(self, value: Any) -> str:
        """The verdict; a number that is NaN is not compared."""
        if isinstance(value, float | np.floating) and np.isnan(value):
            return NOT_COMPARED
        return REPRODUCED if self.holds(value) else NOT_REPRODUCED


def at_least(limit: float | int, unit: str = "{:g}") -> Tolerance:
    return Tolerance(f"at least {unit.format(limit)}", lambda value: value >= limit)


def at_most(limit: float | int, unit: str = "{:g}") -> Tolerance:
    return Tolerance(f"at most {unit.format(limit)}", lambda value: value <= limit)


def within(distance: float, theirs: float) -> Tolerance:
    """Of the paper's value."""
    return Tolerance(f"± {distance:g}", lambda value: abs(value - theirs) <= distance)


def within_factor(factor: float, theirs: float) -> Tolerance:
    """Of the paper's value."""
    return Tolerance(f"a factor of {factor:g}", lambda value: 1 / factor <= value / theirs <= factor)


NO_TOLERANCE = "none"
OURS = "this book"  # shown in no figure of the paper


@dataclass(frozen=True)
class Claim:
    """A statement of the paper; ``sentence`` says in words what the run shows about it.

    - ``statement``, ``paper``: ours of it and, short, its own; ``ours``: what the run gave; ``tolerance``: ours.
    - ``shown_in``: the figures and tables of the paper that it is about, ``"figure 12"``, where it is not about all
      that its page stands for; ``(OURS,)`` for a statement that the paper does not make.
    - ``held``: in how many of the seeds in which it was compared it holds; ``None`` for what was not compared.
    - ``value``: the number that was judged, of one seed, ``None`` where there is no single one; ``unit``: how it is
      written.
    - ``one_more``: over several seeds the interval in which the number of one more lies in 95 of 100 cases.
    - ``why``: where nothing was compared, or the claim does not hold in most seeds, the reason for that.
    """

    statement: str
    paper: str
    ours: str
    tolerance: str
    verdict: str
    sentence: str
    shown_in: tuple[str, ...] = ()
    held: tuple[int, int] | None = None
    value: float | None = None
    unit: str = ""
    why: str = ""
    one_more: tuple[float, float] | None = None

    @property
    def seeds(self) -> str:
        """``held`` in words, with the Wilson interval of the share; empty where nothing was compared."""
        return "" if self.held is None else counted(*self.held)


def claim(
    statement: str,
    paper: str,
    ours: str,
    tolerance: Tolerance,
    value: Any,
    sentence: str,
    *,
    unless: str = "",
    unit: str = "",
    shown_in: tuple[str, ...] = (),
) -> Claim:
    """A claim about one seed, judged.

    - ``statement``, ``paper``, ``ours``, ``sentence``, ``shown_in``: as in :class:`Claim`.
    - ``tolerance``: judges ``value``, which may be a number, a truth value or whatever it takes.
    - ``unless``: why nothing can be compared; empty where it can.
    - ``unit``: a format for ``value`` where it is a number that is worth a median over the seeds, ``"{:.1f} %"``.
    """
    judged = NOT_COMPARED if unless else tolerance.judge(value)
    number = float(value) if unit and judged != NOT_COMPARED else None
    held = None if judged == NOT_COMPARED else (int(judged == REPRODUCED), 1)
    said = (statement, paper, ours, tolerance.words, judged, sentence, shown_in, held)
    return Claim(*said, number, unit, unless)


def given(statement: str, paper: str, ours: str, sentence: str, tolerance: str = NO_TOLERANCE) -> Claim:
    """A value that we set: no evidence, and no claim that could fail."""
    return Claim(statement, paper, ours, tolerance, GIVEN, sentence)


def counted(held: int, compared: int) -> str:
    """As text: 9 of 10 seeds (60–98 %)."""
    if compared == 1:
        return "the one seed" if held else "0 of 1 seed"
    low, high = wilson(held, compared)
    return f"{held} of {compared} seeds ({100 * low:.0f}–{100 * high:.0f} %)"


def of_share(held: int, compared: int) -> str:
    """The verdict on a claim that holds in so many of the seeds in which it was compared."""
    if compared == 0:
        return NOT_COMPARED
    share = held / compared
    return REPRODUCED if share >= MOST else NOT_REPRODUCED if share <= FEW else PARTLY


class Claims(Mapping[str, Claim]):
    """Claims by name. As the last line of a notebook's cell it shows their table.

    ``here``: the data are none of the paper's, so that nothing is "reproduced".
    """

    def __init__(self, claims: dict[str, Claim], here: bool = False):
        self._claims, self.here = claims, here

    def __getitem__(self, name: str) -> Claim:
        return self._claims[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)

    def say(self, *names: str) -> Text:
        """What the run shows about some claims, as prose: those of them that there are."""
        return Text(" ".join(self[name].sentence for name in names if name in self))

    def worded(self, name: str) -> str:
        """The verdict on a claim as it is shown."""
        verdict = self[name].verdict
        return _HERE.get(verdict, verdict) if self.here else verdict

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        rows = [
            (
                c.statement,
                f"{VERDICTS[c.verdict]} {self.worded(name)}" + (f": {c.why}" if c.why else ""),
                c.seeds or "–",
                c.paper,
                c.ours,
                c.tolerance,
            )
            for name, c in self.items()
        ]
        text = table(("claim", "verdict", "holds in", "paper", "here", "tolerance"), rows)
        claims = {name: asdict(claim) for name, claim in self.items()}
        return Text(text, {"kind": "claims", "claims": claims, "order": list(claims)})._repr_mimebundle_()


def over_seeds(judged: Sequence[Claims]) -> Claims:
    """The claims of all seeds together: each is reproduced where it holds in at least ``MOST`` of the seeds in which it
    was compared, and not where it does in at most ``FEW``; of numbers the median and the range are given. What a
    sentence tells is the first seed's, with the count of seeds at its end."""
    return Claims({name: _together([claims[name] for claims in judged if name in claims]) for name in judged[0]})


def _together(of_seeds: Sequence[Claim]) -> Claim:
    first = of_seeds[0]
    if len(of_seeds) == 1 or first.verdict == GIVEN:
        return first
    compared = [c for c in of_seeds if c.held is not None]
    if not compared:
        return first
    held = sum(c.held[0] for c in compared), sum(c.held[1] for c in compared)
    values = [c.value for c in compared if c.value is not None]
    whys = list(dict.fromkeys(c.why for c in of_seeds if c.why))
    not_there = f"; not compared in {len(of_seeds) - len(compared)}: {whys[0]}" if whys else ""
    return replace(
        first,
        ours=_over_seeds(first, compared) + not_there,
        verdict=of_share(*held),
        sentence=f"{first.sentence} {_in_seeds(*held, len(of_seeds))}",
        held=held,
        unit=next(c.unit for c in compared),
        why="",
        one_more=of_one_more(values) if len(values) == len(compared) > 2 else None,
    )


def _over_seeds(first: Claim, compared: Sequence[Claim]) -> str:
    values = [c.value for c in compared if c.value is not None]
    if len(values) < len(compared):
        return f"first seed: {first.ours}"
    form, _, suffix = compared[0].unit.partition("}")
    middle, low, high = (f"{form}}}".format(of(values)) for of in (np.median, min, max))
    return f"median {middle}{suffix} ({low} to {high})" if low != high else f"{middle}{suffix} in all"


def _in_seeds(held: int, compared: int, seeds: int) -> str:
    whole = f"all {compared} seeds" if compared > 2 else "both seeds"
    where = whole if held == compared > 1 else counted(held, compared)
    return f"The claim holds in {where}{' that can tell' * (compared < seeds)}."
