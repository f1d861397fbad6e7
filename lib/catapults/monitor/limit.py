"""A rate that does not exceed the critical one."""

import math

import torch

from .monitor import Monitor
from .readings import Reading


class CriticalRate:
    """Lowers the rate of each step of a monitored training to at most ``c`` times the critical one of its batch::

        watch = Monitor(model, loss, optimizer, every=1)
        CriticalRate(watch)

    Between two measurements, and where one has failed, the critical rate counts as what it was last. All groups are
    lowered by the same factor. After the step the rates are again what they were, so that schedulers do not notice. The
    readings hold the rate that was asked for, and the one that was ``applied``. Chapter 6 has what this does to a
    training.

    Raises ``ValueError`` unless c is positive and finite.
    """

    def __init__(self, watch: Monitor, c: float = 1.0) -> None:
        if isinstance(c, bool) or not isinstance(c, int | float) or not 0 < c < math.inf:
            raise ValueError(f"c = {c!r}: allowed are positive numbers")
        self._watch, self._c = watch, c
        self._critical = math.inf
        self._asked: list[tuple[dict, float]] = []
        watch.limits.append(self._lower)
        watch.ends.append(self._restore)

    def close(self) -> None:
        """Lower no rate any more."""
        self._restore()
        self._watch.limits.remove(self._lower)
        self._watch.ends.remove(self._restore)

    def _lower(self, reading: Reading) -> None:
        self._restore()
        if not math.isnan(reading.critical):
            self._critical = reading.critical
        if reading.rate <= self._c * self._critical:
            return
        factor = self._c * self._critical / reading.rate
        for group in self._watch.optimizer.param_groups:
            self._asked.append((group, float(group["lr"])))
            _set(group, float(group["lr"]) * factor)
        reading.applied = float(self._watch.optimizer.param_groups[0]["lr"])

    def _restore(self) -> None:
        for group, rate in self._asked:
            _set(group, rate)
        self._asked = []


def _set(group: dict, rate: float) -> None:
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
