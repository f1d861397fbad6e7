"""What the claims of every experiment share: their form, their verdicts, their table."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from ..display import Text, table

REPRODUCED, NOT_REPRODUCED, NOT_COMPARED, GIVEN = "reproduced", "not reproduced", "not compared", "set by us"
VERDICTS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", NOT_COMPARED: "–", GIVEN: "·"}


@dataclass(frozen=True)
class Claim:
    """A statement of the paper; ``sentence`` says in words what the run shows about it.

    ``shown_in``: the figures and tables of the paper that it is about, ``"figure 12"``, where it is not about all that
    its page stands for.
    """

    statement: str
    paper: str
    ours: str
    tolerance: str
    verdict: str
    sentence: str
    shown_in: tuple[str, ...] = ()


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
        """What the run shows about some claims, as prose."""
        return Text(" ".join(self[name].sentence for name in names))

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        rows = [
            (c.statement, f"{VERDICTS[c.verdict]} {c.verdict}", c.paper, c.ours, c.tolerance) for c in self.values()
        ]
        text = table(("claim", "verdict", "paper", "this run", "tolerance"), rows)
        claims = {name: asdict(claim) for name, claim in self.items()}
        return Text(text, {"kind": "claims", "claims": claims, "order": list(claims)})._repr_mimebundle_()


def verdict(holds: bool | None) -> str:
    return NOT_COMPARED if holds is None else REPRODUCED if holds else NOT_REPRODUCED
