"""Trainings without catapults: what takes them away, and leaves data, weights, batches and the end alone."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import nn

from .. import schedules, tangent
from ..checks import whole_number
from ..data import Split
from ..history import History
from ..schedules import LearningRate, LearningRates
from ..tangent.eigenspace import top_eigenpairs
from .loop import Checkpoint, Loop, check_last, check_stop_below, checked, own_mode, problem_of
from .probes import CriticalRate, Evaluation
from .run import Batch, Batches, FullBatch, Rate, Run, matching
from .steps import Measured, Step

Intervention = Literal["clip", "shrink"]
APPLIED = "applied rate"  # a column of the history: the rate that a step has really taken


class _Clipped:
    """A step at the rate min(eta, c eta_crit(B)) of its batch."""

    def __init__(self, c: float, run: Run) -> None:
        self._c = c
        self._no_graph = bool(run.layers.chain)

    def take(self, run: Run, batch: Batch, eta: float) -> Measured:
        x, y = run.inputs[batch], run.targets[batch]
        with torch.inference_mode(self._no_graph):
            linearization = tangent.linearize(run.model, x, run.layers)
            residual = linearization.outputs - y
            loss = residual.square().mean().item()
            run.check(loss)
            norm, descent = linearization.norm_and_vjp(residual * (-2 / residual.numel()))
        critical = tangent.critical_rate(norm, residual.numel())
        applied = min(eta, self._c * critical)
        with torch.no_grad():
            for name, change in descent.items():
                run.parameters[name].add_(change, alpha=applied)
        run.quantities[APPLIED][run.iteration] = applied
        return loss, critical, math.nan

    def state(self) -> dict:
        return {}

    def load(self, state: dict) -> None:
        pass


class _Shrunk:
    """A step at the whole rate. Of the residual's components along eigenvectors of K_BB with eta lambda > c b only the
    fraction c b / (eta lambda) counts, so that each is multiplied by 1 - 2 c, as one with eta lambda = c b is."""

    def __init__(self, c: float, run: Run) -> None:
        self._c, self._top = c, 1
        self._start: torch.Tensor | None = None

    def take(self, run: Run, batch: Batch, eta: float) -> Measured:
        x, y = run.inputs[batch], run.targets[batch]
        linearization = tangent.linearize(run.model, x, run.layers)
        residual = linearization.outputs - y
        loss = residual.square().mean().item()
        run.check(loss)
        m = residual.numel()
        bound = self._c * m / eta
        kernel = linearization.kernel() if linearization.kernel_fits() else linearization
        pairs = top_eigenpairs(kernel, self._top, self._start, above=bound)
        larger = pairs.values > bound
        if isinstance(batch, slice):  # of the next step the same kernel, nearly
            self._start, self._top = pairs.start, 1 + int(larger.sum())
        values, vectors = pairs.values[larger], pairs.vectors[:, larger]
        flat = residual.flatten()
        flat = flat - vectors @ ((1 - bound / values) * (vectors.T @ flat))
        linearization.vjp(flat.view_as(residual) * (-2 * eta / m), add_to=run.parameters)
        run.quantities[APPLIED][run.iteration] = eta
        return loss, tangent.critical_rate(pairs.values[-1].item(), m), math.nan

    def state(self) -> dict:
        return {} if self._start is None else {"start": self._start, "top": self._top}

    def load(self, state: dict) -> None:
        self._start, self._top = state.get("start"), state.get("top", 1)


_STEPS: dict[str, Callable[[float, Run], Step]] = {"clip": _Clipped, "shrink": _Shrunk}


@own_mode()
def fit_with(
    intervention: Intervention,
    c: float,
    model: nn.Module,
    training: Split,
    validation: Split,
    learning_rate: int | float | str | LearningRate | LearningRates,
    batch_size: int,
    steps: int,
    *,
    classes: int | None = None,
    replacement: bool = False,
    seed: int = 0,
    stop_below: float = 1e-3,
    evaluate_every: int = 1,
    settle: int | None = None,
    critical_every: int = 1,
    progress: bool = False,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Train as :func:`catapults.training.fit` does with plain SGD, but without catapults, by an intervention:

    - ``"clip"``: each step's rate is min(eta, c eta_crit(B)), with eta_crit(B) = b / ||K_BB|| of its batch B;
    - ``"shrink"``: it is eta, but the batch's residual is damped along all eigenvectors of K_BB with eta lambda > c b,
      to what a step with eta lambda = c b would do along them.

    - ``c``: positive; a step with c < 1 lowers the batch's loss to first order in the change of the weights.
    - ``model``, ``training``, ``validation``, ``learning_rate``, ``batch_size``, ``steps``, ``classes``,
      ``replacement``, ``seed``, ``stop_below``, ``evaluate_every``, ``settle``, ``progress``, ``checkpoint``: as there.
      The same seed draws the same batches.
    - ``critical_every``: steps between the checks of ``settle``.

    The history's ``learning_rate`` is eta, ``quantity(APPLIED)`` what a step has taken; its critical rates are those of
    the batches, at every step. The model is left at the best weights of the validation set.

    Raises ``ValueError`` and ``TypeError`` as there.
    """
    if intervention not in get_args(Intervention):
        raise ValueError(f"intervention = {intervention!r}: allowed are {', '.join(get_args(Intervention))}")
    if not 0 < c < math.inf:
        raise ValueError(f"c = {c!r}: allowed are positive numbers")
    schedule = schedules.parse(learning_rate)
    n = len(training)
    whole_number(1, steps=steps, evaluate_every=evaluate_every, critical_every=critical_every)
    whole_number(1, math.inf if replacement else n, batch_size=batch_size)
    whole_number(0, seed=seed)
    check_stop_below(stop_below)
    check_last(learning_rate, schedule.last, steps)
    if len(validation) == 0:
        raise ValueError("validation: holds no sample; allowed is at least one")
    sets = []
    for name, split in {"training": training, "validation": validation}.items():
        inputs, targets = checked(model, **{f"{name}.inputs": split.inputs, f"{name}.targets": split.targets})
        sets.append((inputs, targets))

    run = Run(model, *sets[0], tangent.layers(model, sets[0][0]), steps, quantities=[APPLIED])
    training, validation = (Split(inputs, matching(model, inputs, targets)) for inputs, targets in sets)
    reference = CriticalRate()
    evaluation = Evaluation(training, validation, classes, evaluate_every)
    loop = Loop(
        run=run,
        rate=Rate(schedule, reference, settle, critical_every),
        batches=FullBatch() if batch_size == n else Batches(n, batch_size, replacement, seed),
        step=_STEPS[intervention](c, run),
        batch_size=0 if batch_size == n else batch_size,
        probes=[evaluation, reference],
        problem=problem_of(
            training=f"{intervention} {c:g}", learning_rate=schedule, batch_size=batch_size, n=n,
            replacement=replacement, seed=seed, classes=classes, stop_below=stop_below, evaluate_every=evaluate_every,
            settle=settle, critical_every=critical_every,
        ),
        stop_below=stop_below,
    )  # fmt: skip
    history = loop.train(f"training, {intervention}", progress, checkpoint)
    model.load_state_dict(evaluation.best_weights)
    return history
