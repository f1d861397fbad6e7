"""What is measured of a training's states, and now and then only."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from .. import tangent
from ..checks import whole_number
from ..data import Split
from ..schedules import LearningRates
from ..tangent.eigenspace import NotFinite, top_eigenpairs
from ..tangent.loss import residual_of
from .evaluation import mean_squared_error, performance
from .run import Point, Run, needs_critical
from .steps import WholeSet, due

SUBSET = 5000  # samples on which the critical rate of a larger training set is estimated (appendix F.4)
_AT_ONCE = 1024  # samples in a forward pass that only the loss is wanted of


@runtime_checkable
class Probe(Protocol):
    """Measures states, and writes into the run's columns."""

    def measure(self, run: Run) -> None:
        """Before the rate of the step from this state is known; after the last step once more.

        Raises :class:`catapults.tangent.eigenspace.NotFinite` where the training diverges.
        """

    def finish(self, run: Run) -> None:
        """In the last state, where no step but another rule has ended the training."""

    def state(self) -> dict[str, Any]:
        """What it needs to go on, as tensors, numbers, lists and dicts."""

    def load(self, state: dict[str, Any]) -> None: ...


class WholeSetNowAndThen:
    """The whole set's loss every ``loss_every`` steps, with the latest batch's after its step; its kernel's norm and
    the split of the loss every ``kernel_every``, at the end once more, and where the rate is a multiple."""

    def __init__(self, schedule: LearningRates, loss_every: int, kernel_every: int | None) -> None:
        self._schedule, self._loss_every, self._kernel_every = schedule, loss_every, kernel_every
        self._whole = WholeSet()

    def measure(self, run: Run) -> None:
        t = run.iteration
        if due(self._kernel_every, t) or (needs_critical(self._schedule, t) if not run.last else self._kernel_every):
            self._measure_kernel(run)
            residual = run.point.residual
        elif run.last or t % self._loss_every == 0:
            with torch.no_grad():
                outputs = torch.cat([run.model(part) for part in run.inputs.split(_AT_ONCE)])
            residual = residual_of(outputs, run.targets)
            run.note_loss(residual.square().mean().item())
        else:
            return
        if run.batches:
            run.after[t - 1] = residual[run.batches[-1]].square().mean().item()

    def finish(self, run: Run) -> None:
        if self._kernel_every and run.iteration not in run.splits:
            self._measure_kernel(run)

    def critical(self, run: Run) -> float:
        """n / ||K|| in this state, where :meth:`measure` has found that it is wanted."""
        return run.states["critical_learning_rate"][run.iteration]

    def _measure_kernel(self, run: Run) -> None:
        if math.isnan(run.loss):
            run.note_loss(run.point.loss)
        self._whole.form(run)
        self._whole.split(run)
        self._whole.drop()

    def state(self) -> dict[str, Any]:
        return self._whole.state()

    def load(self, state: dict[str, Any]) -> None:
        self._whole.load(state)


class CriticalRate:
    """n / ||K|| of the training set, or of its first 5,000 samples, where it is asked for."""

    def __init__(self) -> None:
        self._start: torch.Tensor | None = None

    def measure(self, run: Run) -> None:
        pass

    def finish(self, run: Run) -> None:
        pass

    def critical(self, run: Run) -> float:
        """That of this state, measured once."""
        known = run.states["critical_learning_rate"].get(run.iteration)
        if known is not None:
            return known
        linearization = tangent.linearize(run.model, run.inputs[:SUBSET], run.layers)
        single = len(linearization) == len(linearization.outputs)  # with c outputs the kernel costs c^2 as much
        kernel = linearization.kernel() if single and linearization.kernel_fits() else linearization
        pairs = top_eigenpairs(kernel, 1, self._start)
        self._start = pairs.start
        norm = pairs.values[-1].item()
        rate = tangent.critical_rate(norm, len(linearization))
        run.note("critical_learning_rate", rate)
        if len(run.inputs) <= SUBSET:
            run.note("kernel_norm", norm)
        return rate

    def state(self) -> dict[str, Any]:
        return {} if self._start is None else {"start": self._start}

    def load(self, state: dict[str, Any]) -> None:
        self._start = state.get("start")


class Evaluation:
    """Every ``every`` steps, and after the last one: the loss on the training set, unless ``training`` is ``None``, and
    on the validation set, there with the error; and the best weights by these."""

    def __init__(self, training: Split | None, validation: Split, classes: int | None, every: int) -> None:
        self._training, self._validation, self._classes, self._every = training, validation, classes, every
        self.best_weights: dict[str, torch.Tensor] = {}

    def measure(self, run: Run) -> None:
        if not run.last and run.iteration % self._every:
            return
        training = math.nan if self._training is None else mean_squared_error(run.model, self._training)
        validation, error = performance(run.model, self._validation, self._classes)
        measured = [loss if math.isfinite(loss) else math.inf for loss in (training, validation)]
        if self._training is None:
            measured[0] = math.nan
        else:
            run.note("loss", measured[0])
        run.evaluations.append([float(run.iteration), *measured, error])
        if math.inf in measured:
            raise NotFinite
        if run.best < 0 or self._score(run.evaluations[-1]) < self._score(run.evaluations[run.best]):
            run.best = len(run.evaluations) - 1
            self.best_weights = {name: value.clone() for name, value in run.model.state_dict().items()}

    def finish(self, run: Run) -> None:
        pass

    def _score(self, evaluation: list[float]) -> tuple[float, float]:
        """What makes an evaluation better: the validation error, then the loss."""
        _, _, loss, error = evaluation
        return (0.0 if self._classes is None else error), loss

    def state(self) -> dict[str, Any]:
        return self.best_weights

    def load(self, state: dict[str, Any]) -> None:
        self.best_weights = dict(state)


@dataclass(frozen=True)
class Quantity:
    """A quantity of one's own, measured every ``every`` steps and after the last one: a column of the history.

    ``value`` is given the whole training set at the present weights: ``point.model``, ``point.inputs``,
    ``point.targets``, ``point.linearization``, ``point.residual``, ``point.loss``. It must change none of them.
    """

    name: str
    value: Callable[[Point], float]
    every: int = 1

    def __post_init__(self) -> None:
        whole_number(1, every=self.every)

    def measure(self, run: Run) -> None:
        if run.last or run.iteration % self.every == 0:
            self.finish(run)

    def finish(self, run: Run) -> None:
        column = run.quantities[self.name]
        if run.iteration not in column:
            column[run.iteration] = float(self.value(run.point))

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass


def names_of(quantities: Sequence[Quantity]) -> list[str]:
    """Raises ``TypeError`` for what are no quantities, and ``ValueError`` where two have the same name."""
    if not isinstance(quantities, Sequence) or not all(isinstance(q, Quantity) for q in quantities):
        raise TypeError(f"quantities = {quantities!r}: allowed is a list of Quantity")
    names = [quantity.name for quantity in quantities]
    if len(set(names)) < len(names):
        raise ValueError(f"quantities: {', '.join(names)}; allowed are different names")
    return names
