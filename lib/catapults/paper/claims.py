"""What the claims of every experiment share: their form, their verdicts, their table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..display import Text, table

REPRODUCED, NOT_REPRODUCED, NOT_COMPARED, GIVEN = "reproduced", "not reproduced", "not compared", "set by us"
VERDICTS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", NOT_COMPARED: "–", GIVEN: "·"}


@dataclass(frozen=True)
class Claim:
    """A statement of the paper; ``sentence`` says in words what the run shows about it.

    - ``statement``, ``paper``: ours of it and, short, its own; ``ours``: what the run gave; ``tolerance``: ours.
    - ``shown_in``: the figures and tables of the paper that it is about, ``"figure 12"``, where it is not about all
      that its page stands for.
    - ``held``: where there are several seeds, in how many of those in which it was compared it holds. All else is of
      the first seed, the verdict too.
    """

    statement: str
    paper: str
    ours: str
    tolerance: str
    verdict: str
    sentence: str
    shown_in: tuple[str, ...] = ()
    held: tuple[int, int] | None = None

    @property
    def seeds(self) -> str:
        """``held`` in words; empty for one seed."""
        if self.held is None:
            return ""
        held, compared = self.held
        return f"{held} of {compared} seed{'s' * (compared != 1)}" if compared else ""


class Claims(Mapping[str, Claim]):
    """Claims by name. As the last line of a notebook's cell it shows their table."""

    def __init__(self, claims: dict[str, Claim]):
        self._claims = claims

    def __getitem__(self, name: str) -> Claim:
        return self._claims[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)

    def say(self, *names: str) -> Text:
        """What the run shows about some claims, as prose: those of them that there are."""
        return Text(" ".join(self[name].sentence for name in names if name in self))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        columns: dict[str, Callable[[Claim], str]] = {
            "claim": lambda c: c.statement,
            "verdict": lambda c: f"{VERDICTS[c.verdict]} {c.verdict}",
            "paper": lambda c: c.paper,
            "this run": lambda c: c.ours,
            "tolerance": lambda c: c.tolerance,
        }
        if any(c.held is not None for c in self.values()):
            shown = list(columns.items())
            shown[3] = "first seed", shown[3][1]
            columns = dict([*shown[:2], ("holds in", lambda c: c.seeds or "–"), *shown[2:]])
        text = table(tuple(columns), [tuple(of(c) for of in columns.values()) for c in self.values()])
        claims = {name: asdict(claim) for name, claim in self.items()}
        return Text(text, {"kind": "claims", "claims": claims, "order": list(claims)})._repr_mimebundle_()


def over_seeds(judged: Sequence[Claims]) -> Claims:
    """The claims of the first seed, each with the number of seeds in which it holds where there are several."""
    first = judged[0]
    if len(judged) == 1:
        return first
    return Claims({name: replace(claim, held=_held(judged, name)) for name, claim in first.items()})


def verdict(holds: bool | None) -> str:
    return NOT_COMPARED if holds is None else REPRODUCED if holds else NOT_REPRODUCED


def _held(judged: Sequence[Claims], name: str) -> tuple[int, int] | None:
    """In how many seeds of those in which it was compared; ``None`` for a value that we set, which is no evidence."""
    found = [claims[name].verdict for claims in judged if name in claims]
    if GIVEN in found:
        return None
    return found.count(REPRODUCED), found.count(REPRODUCED) + found.count(NOT_REPRODUCED)
