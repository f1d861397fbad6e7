"""A training under way: the point at which it is, its learning rate, its batches, and the columns that it fills."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from .. import tangent
from ..catapult import steps_above
from ..history import History
from ..schedules import LearningRates
from ..tangent.eigenspace import NotFinite
from ..tangent.loss import as_numbers, residual_of

DIVERGED = 1e6  # times the initial loss, or 1 if that is larger: far above every catapult's peak

Batch = slice | Int[Tensor, " b"]  # the indices of its samples; a slice for all
STATES = (
    "loss",
    "kernel_norm",
    "critical_learning_rate",
    "hessian_critical_learning_rate",
    "unstable_directions",
    "seconds",
)


class Point:
    """A model at its present weights with some samples. What it is asked for is computed once."""

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor, layers: tangent.Layers):
        self.model, self.inputs, self.targets, self.layers = model, inputs, targets, layers

    @cached_property
    def linearization(self) -> tangent.Linearization:
        return tangent.linearize(self.model, self.inputs, self.layers)

    @cached_property
    def residual(self) -> Float[Tensor, "n ..."]:
        """f - y in the outputs' shape."""
        return residual_of(self.linearization.outputs, self.targets)

    @cached_property
    def loss(self) -> float:
        """Eq. (1)."""
        return self.residual.square().mean().item()


class Run:
    """What steps, probes and rules of a training read, and where they write.

    - ``model``: with the present weights.
    - ``inputs``, ``targets``: the training set; the targets are kept in the outputs' shape.
    - ``layers``: what :func:`catapults.tangent.layers` found out about the model.
    - ``steps``: how many are taken at most.
    - ``tops``: the dimensions of the top eigenspaces in which the loss is split.
    - ``quantities``: the names of a person's own columns.
    - ``keeps_batches``: whether the history says which samples were drawn.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Shaped[Tensor, "n ..."],
        targets: Shaped[Tensor, "n ..."],
        layers: tangent.Layers,
        steps: int,
        tops: Sequence[int] = (),
        quantities: Sequence[str] = (),
        keeps_batches: bool = False,
    ):
        self.model, self.inputs, self.layers, self.steps = model, inputs, layers, steps
        self.targets = matching(model, inputs, targets)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.tops, self.keeps_batches = tuple(tops), keeps_batches
        self.iteration = 0
        self.rows: list[tuple[float, float, float, float]] = []  # rate, loss, critical rate, Hessian's, of each step
        self.batches: list[Int[Tensor, " b"]] = []
        self.states: dict[str, dict[int, float]] = {name: {} for name in STATES}
        self.splits: dict[int, list[list[float]]] = {}
        self.quantities: dict[str, dict[int, float]] = {name: {} for name in quantities}
        self.turning: dict[int, list[float]] = {}
        self.after: dict[int, float] = {}  # the batch's loss after a step
        self.break_even: dict[int, list[float]] = {}  # the batch's and the whole set's, of a step
        self.evaluations: list[list[float]] = []  # iteration, training loss, validation loss, validation error
        self.best = -1
        self._limit = -math.inf  # of the loss; known with the first one
        self._point: Point | None = None

    @property
    def last(self) -> bool:
        """Whether all steps are taken."""
        return self.iteration == self.steps

    @property
    def point(self) -> Point:
        """All samples, at the present weights."""
        if self._point is None:
            self._point = Point(self.model, self.inputs, self.targets, self.layers)
        return self._point

    def leave_point(self) -> None:
        """Before the weights change, or a kernel of the next point is formed."""
        self._point = None

    @property
    def loss(self) -> float:
        """Of the whole set in this state; NaN where it was not measured."""
        return self.states["loss"].get(self.iteration, math.nan)

    def note(self, name: str, value: float) -> None:
        """Write into a column of the states."""
        self.states[name][self.iteration] = value

    def note_loss(self, loss: float) -> None:
        """The whole set's.

        Raises :class:`catapults.tangent.eigenspace.NotFinite` where it shows that the training diverges.
        """
        self.note("loss", loss if math.isfinite(loss) else math.inf)
        self.check(loss)

    def check(self, loss: float) -> None:
        """Raise :class:`catapults.tangent.eigenspace.NotFinite` for a loss far above the first one."""
        if not loss <= self._limit:
            if self._limit >= 0 or not math.isfinite(loss):
                raise NotFinite
            self._limit = DIVERGED * max(loss, 1.0)

    @property
    def latest_critical_rate(self) -> float:
        """The last one that was measured, of a batch or of the whole set; NaN where none was."""
        whole = self.states["critical_learning_rate"].values()
        of_batches = [row[2] for row in self.rows if not math.isnan(row[2])]
        return [math.nan, *whole, *of_batches][-1]

    def state(self) -> dict[str, Any]:
        """All that was written, as tensors, numbers, lists and dicts."""
        columns = {**self.states, **{f"own {name}": column for name, column in self.quantities.items()}}
        return {
            "rows": torch.tensor(self.rows, dtype=torch.float64).view(-1, 4),
            "batches": torch.stack(self.batches) if self.batches else torch.empty(0, 0, dtype=torch.long),
            "after": _stored(self.after),
            "columns": {name: _stored(column) for name, column in columns.items()},
            **{name: _stored(getattr(self, name)) for name in ("splits", "turning", "break_even")},
            "evaluations": torch.tensor(self.evaluations, dtype=torch.float64),
            "best": self.best,
            "limit": self._limit,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self.rows = [tuple(row) for row in state["rows"].tolist()]
        self.batches = list(state["batches"])
        self.after = _restored(state["after"])
        self.states = {name: _restored(state["columns"][name]) for name in self.states}
        self.quantities = {name: _restored(state["columns"][f"own {name}"]) for name in self.quantities}
        for name in ("splits", "turning", "break_even"):
            setattr(self, name, _restored(state[name]))
        self.evaluations = state["evaluations"].tolist()
        self.best, self._limit = state["best"], state["limit"]

    def history(self, batch_size: int, converged: bool, diverged: bool) -> History:
        """``batch_size``: 0 for the full batch, whose columns are the states'."""
        T, kept = len(self.rows), batch_size if self.keeps_batches else 0
        rate, batch_loss, batch_critical, batch_hessian = np.array(self.rows).reshape(T, 4).T
        batch_loss = np.where(np.isnan(batch_loss), np.inf, batch_loss)  # of a step from which the training diverged
        self.states["seconds"].setdefault(T, 0.0)  # where a step that was taken has shown the divergence
        states = {name: _column(column, T + 1) for name, column in self.states.items()}
        if batch_size == 0:
            states["loss"][:T] = batch_loss
            after = states["loss"][1:].copy()
        else:
            after = _column(self.after, T)
        s = len(self.tops)
        break_even = _column(self.break_even, T, 2)
        evaluations = np.array(self.evaluations).reshape(-1, 4).T
        evaluated = evaluations[0].astype(np.int64)
        own = [_column(column, T + 1) for column in self.quantities.values()]
        return History(
            learning_rate=rate,
            batches=np.array([batch.tolist() for batch in self.batches], np.int64).reshape(T, kept),
            batch_loss=batch_loss,
            batch_loss_after=after,
            batch_critical_learning_rate=batch_critical,
            batch_hessian_critical_learning_rate=batch_hessian,
            **states,
            splits=_column(self.splits, T + 1, s, 2),
            turning=_column(self.turning, T + 1, s),
            batch_break_even_rate=break_even[:, 0],
            whole_break_even_rate=break_even[:, 1],
            quantity_values=np.stack(own, 1) if own else np.empty((T + 1, 0)),
            evaluated=evaluated,
            training_loss=evaluations[1],
            validation_loss=evaluations[2],
            validation_error=evaluations[3],
            steps_above=steps_above(rate, batch_critical)[evaluated],
            tops=self.tops,
            quantities=tuple(self.quantities),
            best=self.best,
            initial_critical_learning_rate=self.states["critical_learning_rate"].get(0, math.nan),
            converged=converged,
            diverged=diverged,
        )


def matching(
    model: nn.Module, inputs: Shaped[Tensor, "n ..."], targets: Shaped[Tensor, "n ..."]
) -> Float[Tensor, "n ..."]:
    """The targets in the outputs' shape, and numbers of at least single precision.

    Raises ``ValueError`` for another number of them or another device.
    """
    with torch.no_grad():
        output = model(inputs[:1])
    if targets.device != output.device:
        raise ValueError(f"targets: on {targets.device}; allowed is the outputs' device, {output.device}")
    outputs = output.expand(len(inputs), *output.shape[1:])
    residual_of(outputs, targets)
    return as_numbers(targets, output).reshape(outputs.shape)


@runtime_checkable
class Reference(Protocol):
    """What a multiple refers to."""

    def critical(self, run: Run) -> float:
        """n / ||K|| of the training set in this state."""


def needs_critical(schedule: LearningRates, iteration: int) -> bool:
    """Whether the training set's critical rate is needed to set the rate of the step from here."""
    if iteration == 0:
        return schedule.relative
    rate = schedule.at(iteration)
    return rate is not None and rate.current


class Rate:
    """The learning rate under a schedule.

    ``settle``: that many steps after the schedule's last change a rate that exceeds the critical one is lowered to half
    of that, whenever it is measured, which is every ``every`` steps.
    """

    def __init__(
        self, schedule: LearningRates, reference: Reference, settle: int | None = None, every: int | None = None
    ):
        self.schedule, self._reference, self._settle, self._every = schedule, reference, settle, every
        self.value = self.initial = math.nan

    def set(self, run: Run) -> float:
        """The rate of this iteration's step.

        Raises ``ValueError`` where it is a multiple of a critical rate that does not exist at the start.
        """
        t = run.iteration
        if t == 0 and self.schedule.relative:
            self.initial = self._reference.critical(run)
        rate = self.schedule.at(t)
        if rate is not None:
            value = rate.value
            if rate.relative:
                now = self._reference.critical(run) if rate.current else math.nan
                value = rate.absolute(self.initial, now)
            if math.isfinite(value) or t == 0:  # a network that has died keeps its rate
                self.value = value
        if not math.isfinite(self.value):
            raise ValueError("model: its tangent kernel is zero or not finite, which has no critical learning rate")
        if self._settle is not None and t % self._every == 0 and t >= self.schedule.last + self._settle:
            critical = self._reference.critical(run)
            if self.value > critical:
                self.value = critical / 2
        return self.value

    def state(self) -> dict[str, float]:
        return {"value": self.value, "initial": self.initial}

    def load(self, state: dict[str, float]) -> None:
        self.value, self.initial = state["value"], state["initial"]


class Batches:
    """Indices of samples without end, drawn on the CPU.

    ``replacement``: every batch is ``size`` independent draws; otherwise the samples are shuffled and cut into batches,
    and once more when fewer than a batch are left.
    """

    def __init__(self, n: int, size: int, replacement: bool, seed: int):
        self._n, self._size, self._replacement = n, size, replacement
        self._generator = torch.Generator().manual_seed(seed)
        self._before = self._generator.get_state()
        self._position, self._rest = 0, iter(())

    def __iter__(self) -> Iterator[Int[Tensor, " b"]]:
        return self

    def __next__(self) -> Int[Tensor, " b"]:
        batch = next(self._rest, None)
        if batch is None:
            self._before, self._position = self._generator.get_state(), 0
            self._rest = iter(self._epoch())
            batch = next(self._rest)
        self._position += 1
        return batch

    def _epoch(self) -> Int[Tensor, "k b"]:
        n, size = self._n, self._size
        if self._replacement:
            return torch.randint(n, (max(1, n // size), size), generator=self._generator)
        return torch.randperm(n, generator=self._generator)[: n - n % size].view(-1, size)

    def state(self) -> dict[str, Any]:
        """The generator before the present epoch, and how many of its batches were drawn."""
        return {"generator": self._before, "position": self._position}

    def load(self, state: dict[str, Any]) -> None:
        self._before, self._position = state["generator"], state["position"]
        self._generator.set_state(self._before)
        self._rest = iter(self._epoch()[self._position :]) if self._position else iter(())


class FullBatch:
    """All samples, always."""

    def __next__(self) -> slice:
        return slice(None)

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass


def _column(values: dict[int, Any], *shape: int) -> Float[np.ndarray, "length ..."]:
    """NaN where there is no value."""
    column = np.full(shape, np.nan)
    if values:
        column[list(values)] = list(values.values())
    return column


def _stored(values: dict[int, Any]) -> list[Tensor]:
    return [torch.tensor(list(values), dtype=torch.long), torch.tensor(list(values.values()), dtype=torch.float64)]


def _restored(stored: list[Tensor]) -> dict[int, Any]:
    return dict(zip(*(part.tolist() for part in stored), strict=True))
