"""The one training loop."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..checks import whole_number
from ..history import History
from ..tangent.eigenspace import NotFinite
from .probes import Probe
from .run import Batches, FullBatch, Rate, Run
from .steps import Step


class Diverged(RuntimeWarning):
    """A training was ended because its loss had exploded."""


@runtime_checkable
class Checkpoint(Protocol):
    """Where a training keeps what it needs to go on after an interruption.

    A state is a dict of tensors, numbers, strings, lists and dicts: ``torch.save`` writes it, and ``torch.load`` reads
    it with ``weights_only=True``.
    """

    def due(self) -> bool:
        """Whether to save now; asked before every step but the first one."""

    def load(self) -> dict | None:
        """The state that was saved last; ``None`` where there is none."""

    def save(self, state: dict) -> None: ...


@dataclass
class Loop:
    """A training, put together from its parts.

    ``run``: the model and its training set. ``rate``, ``batches``, ``step``: of each step. ``batch_size``: 0 for all.
    ``probes``: measure every state, in this order. ``stop_below``: end when the loss of the training set is, in a state
    in which it is measured. ``rules``: end when one of them says so. ``problem``: what a checkpoint must belong to.
    ``fixed``: what a checkpoint has to hold besides.
    """

    run: Run
    rate: Rate
    batches: Batches | FullBatch
    step: Step
    batch_size: int
    probes: Sequence[Probe]
    problem: str
    stop_below: float = 0.0
    rules: Sequence[Callable[[Run], bool]] = ()
    fixed: dict[str, Any] | None = None

    def train(self, description: str, progress: bool = False, checkpoint: Checkpoint | None = None) -> History:
        """Take the steps, from where the checkpoint was saved if it was. Divergence ends them with a warning."""
        run, rows, rate, batches, step = self.run, self.run.rows, self.rate, self.batches, self.step
        if checkpoint is not None and (saved := checkpoint.load()) is not None:
            self._load(saved)
            rows = run.rows
        first, keeps = run.iteration, run.keeps_batches
        converged = diverged = False
        iterations = range(first, run.steps + 1)
        shown = {"total": run.steps + 1, "initial": first, "disable": None if progress else True, "leave": False}
        for iteration in tqdm(iterations, desc=description, **shown):
            started = time.perf_counter()
            run.iteration = iteration
            run.leave_point()
            if checkpoint is not None and iteration > first and checkpoint.due():
                checkpoint.save(self._state())
            try:
                for probe in self.probes:
                    probe.measure(run)
                converged = run.loss < self.stop_below
                if converged or run.last or any(rule(run) for rule in self.rules):
                    for probe in self.probes:
                        probe.finish(run)
                    break
                eta = rate.set(run)
                batch = next(batches)
                if self.batch_size:
                    run.leave_point()
                loss, critical, exact = step.take(run, batch, eta)
                rows.append((eta, loss, critical, exact))
                if keeps:
                    run.batches.append(batch)
                run.check(loss)
            except NotFinite:
                if not rows:
                    problem = "at initialisation its outputs or its tangent kernel are not finite"
                    raise ValueError(
                        f"model: {problem}; allowed are weights and inputs that give finite ones"
                    ) from None
                diverged = True
                break
            finally:
                run.note("seconds", time.perf_counter() - started)
        run.leave_point()
        if diverged:
            self._warn()
        return run.history(self.batch_size, converged, diverged)

    def _warn(self) -> None:
        critical = self.run.latest_critical_rate
        known = f", where the last critical one measured was {critical:.4g}" if math.isfinite(critical) else ""
        message = f"the training diverges at step {self.run.iteration} with learning rate {self.rate.value:.4g}{known}"
        warnings.warn(message, Diverged, stacklevel=5)

    def _state(self) -> dict[str, Any]:
        state = {
            "problem": self.problem,
            "iteration": self.run.iteration,
            "weights": dict(self.run.model.state_dict()),
            "run": self.run.state(),
            "rate": self.rate.state(),
            "batches": self.batches.state(),
            "step": self.step.state(),
            "probes": [probe.state() for probe in self.probes],
            "fixed": self.fixed or {},
        }
        return _copied(state)

    def _load(self, state: dict[str, Any]) -> None:
        state = _copied(belonging(state, self.problem))
        self.run.iteration = state["iteration"]
        self.run.model.load_state_dict(state["weights"])
        for part in ("run", "rate", "batches", "step"):
            getattr(self, part).load(state[part])
        for probe, of_probe in zip(self.probes, state["probes"], strict=True):
            probe.load(of_probe)


def belonging(state: dict[str, Any], problem: str) -> dict[str, Any]:
    """The state. Raises ``ValueError`` for one of another training."""
    if state["problem"] != problem:
        raise ValueError(f"checkpoint: is one of [{state['problem']}]; allowed is one of [{problem}]")
    return state


def problem_of(**arguments: Any) -> str:
    """Which training a checkpoint belongs to."""
    return ", ".join(f"{name} = {value}" for name, value in arguments.items())


@contextmanager
def own_mode() -> Iterator[None]:
    """With autograd, whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def checked(model: nn.Module, **tensors: Tensor) -> list[Tensor]:
    """The tensors, passed by the names of their parameters, as ones that autograd can use.

    Raises ``TypeError`` for what is no tensor, and ``ValueError`` for one without samples or with values that are not
    finite, and for a model whose parameters were made under ``torch.inference_mode``.
    """
    for name, values in tensors.items():
        if not isinstance(values, Tensor):
            raise TypeError(f"{name}: a {type(values).__name__}; allowed is a tensor (n, ...), one row a sample")
        if values.dim() == 0 or len(values) == 0:
            raise ValueError(f"{name}: shape {tuple(values.shape)}; allowed is at least one sample, (n, ...)")
        if not torch.isfinite(values).all():
            raise ValueError(f"{name}: holds values that are not finite; allowed are finite ones")
    if any(p.is_inference() for p in model.parameters()):
        raise ValueError("model: has parameters made under torch.inference_mode; allowed are those made outside")
    return [values.clone() if values.is_inference() else values for values in tensors.values()]


def check_tops(top: int | Sequence[int], m: int) -> list[int]:
    """Dimensions of top eigenspaces of a kernel of m rows, as a list. Raises ``ValueError``."""
    tops = list(top) if isinstance(top, Sequence) else [top]
    for dimension in tops:
        whole_number(1, top=dimension)
    if not tops or sorted(set(tops)) != tops or tops[-1] >= m:
        raise ValueError(f"top = {top!r}: allowed are whole numbers from 1 to {m - 1}, ascending")
    return tops


def check_stop_below(stop_below: float, besides: str = "") -> None:
    if not 0 <= stop_below < math.inf:
        raise ValueError(f"stop_below = {stop_below!r}: allowed are numbers of at least 0{besides}")


def check_last(learning_rate: Any, last: int, steps: int) -> None:
    if last >= steps:
        raise ValueError(f"learning_rate = {learning_rate!r}: allowed are changes at iterations below steps = {steps}")


def _copied(state: Any) -> Any:
    """Of the same numbers, which no step changes."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list) else state
