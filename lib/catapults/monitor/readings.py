"""What a monitor has read along a training, a row a step, and the spikes in it."""

import csv
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float

from .. import catapult
from .diagnosis import Diagnosis, diagnosed


@dataclass
class Reading:
    """One step; NaN where something was not measured."""

    step: int
    loss: float = math.nan  # of the step's batch, before it
    rate: float = math.nan  # the first group's
    applied: float = math.nan  # the same, where a limit has lowered it
    sharpness: float = math.nan  # of the matrix that the optimiser sees, see `thresholds`
    critical: float = math.nan  # the rate at which the step would lose its stability
    probe_loss: float = math.nan
    norm: float = math.nan  # ||K|| of the probe
    top: float = math.nan  # of the probe's squared residual, in K's top eigenspace
    rest: float = math.nan  # and outside
    alignment: float = math.nan  # of the probe's AGOP with its first
    products: int = 0  # with the matrix, that the sharpness took
    seconds: float = 0.0  # that all of this took
    reason: str = ""  # why something could not be measured

    @property
    def exceeds(self) -> bool | None:
        """Whether the rate that was applied exceeds the critical one; ``None`` where that is not known."""
        return None if math.isnan(self.critical) else self.applied > self.critical * (1 + catapult.EPSILON)


@dataclass
class Readings:
    """All of them."""

    rows: list[Reading] = field(default_factory=list)
    optimizer: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> Float[np.ndarray, " t"]:
        """One number a step. Raises ``ValueError`` for a name that is none of :class:`Reading`'s numbers."""
        names = [f.name for f in fields(Reading) if f.name != "reason"]
        if name not in names:
            raise ValueError(f"name = {name!r}: allowed are {', '.join(names)}")
        return np.array([getattr(row, name) for row in self.rows], dtype=float)

    def failures(self) -> dict[str, list[int]]:
        """The steps of each reason why something was not measured."""
        found: dict[str, list[int]] = {}
        for row in self.rows:
            if row.reason:
                found.setdefault(row.reason, []).append(row.step)
        return found

    def diagnoses(self, rise: float = 2.0) -> list[Diagnosis]:
        """Of each spike, a peak of the loss from which it falls to 1 / ``rise`` on both sides, and of a divergence."""
        return diagnosed({f.name: self.column(f.name) for f in fields(Reading) if f.name != "reason"}, rise)

    def to_csv(self, path: str | Path) -> None:
        """One row a step, with the names of :class:`Reading`; what was not measured stays empty."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [f.name for f in fields(Reading)])
            writer.writeheader()
            for row in self.rows:
                values = asdict(row).items()
                writer.writerow({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in values})

    def __str__(self) -> str:
        return self.summary()

    def _repr_markdown_(self) -> str:
        return self.summary()

    def summary(self, rise: float = 2.0) -> str:
        """How often the rate exceeded the critical one, what failed, and the diagnosis of each spike."""
        measured = [row for row in self.rows if row.exceeds is not None]
        above = sum(bool(row.exceeds) for row in measured)
        lines = [
            f"{len(self)} steps of {self.optimizer or 'an optimiser'}, the critical rate measured at {len(measured)}."
        ]
        if measured:
            lines.append(f"The rate exceeded it at {above} of these.")
        lowered = sum(row.applied < row.rate for row in self.rows)
        if lowered:
            lines.append(f"It was lowered at {lowered} steps.")
        for reason, steps in self.failures().items():
            lines.append(f"Not measured at {len(steps)} steps, first at step {steps[0]}: {reason}.")
        found = self.diagnoses(rise)
        lines.append("No spike." if not found else "1 spike:" if len(found) == 1 else f"{len(found)} spikes:")
        return "\n".join([" ".join(lines), *(f"- {diagnosis}" for diagnosis in found)])
