"""Training with a validation set: the best weights, how well they do, and the catapults before (section 4)."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from . import schedules, sgd, tangent
from .checks import whole_number
from .data import Split
from .precision import full_precision
from .schedules import Cyclical, LearningRate, LearningRates
from .tangent.descent import ChainDescent
from .tangent.eigenspace import NotFinite, top_eigenpairs
from .training import DIVERGED, check_finite, due, residual_of

Optimizer = Literal["sgd", "sgd+m", "adadelta", "adagrad", "rmsprop", "adam"]
MOMENTUM = 0.9
EPSILON = 1e-8  # by which a rate has to exceed the critical one for a catapult to be counted (section 4)
SUBSET = 5000  # samples on which the critical rate of a larger training set is estimated (appendix F.4)
_AT_ONCE = 256  # samples in a forward pass: what it keeps of them stays in a CPU's cache

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd+m": lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=MOMENTUM),
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
}


@dataclass(frozen=True)
class Fit:
    """A training of T steps, evaluated at some iterations and after the last step.

    ``steps_above[e]`` counts the steps with eta - eta_crit(X_batch) > 1e-8 before ``iterations[e]``, the paper's
    estimate of the number of catapults; 0 where the batches' critical rates are not measured.
    """

    batch_loss: Float[np.ndarray, " T"]  # before each step: for gradient descent the training loss
    learning_rate: Float[np.ndarray, " T"]
    iterations: Int[np.ndarray, " e"]
    training_loss: Float[np.ndarray, " e"]  # NaN where nobody asked for it
    validation_loss: Float[np.ndarray, " e"]
    validation_error: Float[np.ndarray, " e"]  # the fraction of wrong classes; NaN for regression
    steps_above: Int[np.ndarray, " e"]
    best: int  # the evaluation with the best validation loss or, for classes, error; the model is left there
    initial_critical_learning_rate: float  # of the training set, n / ||K||; NaN where nobody asked for it
    converged: bool
    diverged: bool
    seconds: float

    @property
    def catapults(self) -> int:
        """As the paper counts them: until the best validation loss or error."""
        return int(self.steps_above[self.best])


def fit(
    model: nn.Module,
    training: Split,
    validation: Split,
    learning_rate: int | float | str | LearningRate | LearningRates,
    batch_size: int,
    steps: int,
    *,
    classes: int | None = None,
    optimizer: Optimizer = "sgd",
    replacement: bool = False,
    seed: int = 0,
    stop_below: float | None = 1e-3,
    evaluate_every: int = 1,
    critical_every: int | None = 1,
    settle: int | None = None,
    patience: int | None = None,
    progress: bool = False,
) -> Fit:
    """Train on ``mean((f - y)^2)`` and leave the model at the weights with the best validation loss or error.

    ``learning_rate``: what :func:`catapults.schedules.parse` reads. ``batch_size``: all samples make gradient descent.
    ``classes``: how many the targets stand for, of which the error is counted; ``None`` for regression.
    ``replacement``: as in :func:`catapults.sgd.stochastic_gradient_descent`. ``stop_below``: end when the loss of the
    training set is below, which is looked at every ``evaluate_every`` steps; ``None`` means not to look.
    ``critical_every``: measure the batch's critical rate every that many steps; in between it counts as unchanged;
    ``None`` means never. ``settle``: that many steps after the last change of the rate a rate that exceeds the critical
    one is lowered to half of that, whenever it is measured (appendix F.4: "to avoid extra catapults"); for gradient
    descent. ``patience``: end after that many evaluations without a better one.

    The critical rate that multiples refer to is that of the training set, or of its first 5,000 samples.
    Divergence ends the run early and is recorded.

    Raises ``ValueError`` for parameters out of their range, inputs or targets that are not finite, and models whose
    tangent kernel does not exist, is not finite or, where the rate is a multiple, is zero.
    """
    rates = schedules.parse(learning_rate)
    n = len(training)
    whole_number(1, steps=steps, evaluate_every=evaluate_every)
    whole_number(1, math.inf if replacement else n, batch_size=batch_size)
    whole_number(0, seed=seed)
    optional = {"critical_every": critical_every, "settle": settle, "patience": patience}
    whole_number(1, **{name: value for name, value in optional.items() if value is not None})
    if optimizer not in get_args(Optimizer):
        raise ValueError(f"optimizer = {optimizer!r}: allowed are {', '.join(get_args(Optimizer))}")
    if optimizer != "sgd" and critical_every is not None:
        raise ValueError(f"critical_every = {critical_every!r}: optimizer {optimizer!r} has no critical rate; use None")
    if settle is not None and (batch_size != n or critical_every is None or isinstance(rates, Cyclical)):
        allowed = "allowed for gradient descent with critical_every and no cycles of the rate, else None"
        raise ValueError(f"settle = {settle!r}: {allowed}")
    if stop_below is not None and not 0 <= stop_below < math.inf:
        raise ValueError(f"stop_below = {stop_below!r}: allowed are numbers of at least 0 and None")
    if len(validation) == 0:
        raise ValueError("validation: holds no sample; allowed is at least one")
    if rates.last >= steps:
        raise ValueError(f"learning_rate = {learning_rate!r}: allowed are changes at iterations below steps = {steps}")
    for name, split in {"training": training, "validation": validation}.items():
        check_finite(**{f"{name}.inputs": split.inputs, f"{name}.targets": split.targets})

    started = time.perf_counter()
    trainer = _Trainer(model, training, optimizer)
    evaluations: list[tuple[int | float, ...]] = []
    losses: list[float] = []
    etas: list[float] = []
    batches = _batches(n, batch_size, replacement, seed)
    eta, critical, initial, above = math.nan, math.inf, math.nan, 0
    best, best_weights, converged, diverged = 0, None, False, False
    for iteration in tqdm(range(steps + 1), desc="training", disable=None if progress else True, leave=False):
        try:
            if iteration == steps or iteration % evaluate_every == 0:
                loss = math.nan if stop_below is None else mean_squared_error(model, training)
                evaluations.append((iteration, loss, *performance(model, validation, classes), above))
                if not math.isfinite(evaluations[-1][2]) or (stop_below is not None and not math.isfinite(loss)):
                    raise NotFinite
                if best_weights is None or _score(evaluations[-1], classes) < _score(evaluations[best], classes):
                    best, best_weights = len(evaluations) - 1, copy.deepcopy(model.state_dict())
                converged = stop_below is not None and loss < stop_below
                tired = patience is not None and len(evaluations) - 1 - best >= patience
                if converged or tired or iteration == steps:
                    break
            if not losses and rates.relative:
                initial = trainer.critical_rate()
            rate = rates.at(iteration)
            if rate is not None:
                now = trainer.critical_rate() if rate.current and losses else initial
                value = rate.absolute(initial, now) if rate.relative else rate.value
                eta = value if math.isfinite(value) or not losses else eta  # a network that has died keeps its rate
            if not math.isfinite(eta):
                raise ValueError("model: its tangent kernel is zero or not finite, which has no critical learning rate")
            batch = next(batches)
            measured = due(critical_every, iteration)
            if measured and batch_size == n:
                critical = trainer.critical_rate()
                if settle is not None and iteration >= rates.last + settle and eta > critical:
                    eta = critical / 2
            loss, of_batch = trainer.step(batch, eta, measured and batch_size != n)
            critical = critical if of_batch is None else of_batch
            losses.append(loss)
            etas.append(eta)
            above += eta - critical > EPSILON
            if not loss <= DIVERGED * max(losses[0], 1.0):
                raise NotFinite
        except NotFinite:
            if not losses:
                raise ValueError("model: at initialisation its outputs or its tangent kernel are not finite") from None
            diverged = True
            break
    model.load_state_dict(best_weights)
    columns = np.array(evaluations).T
    return Fit(
        batch_loss=np.array(losses),
        learning_rate=np.array(etas),
        iterations=columns[0].astype(np.int64),
        training_loss=columns[1],
        validation_loss=columns[2],
        validation_error=columns[3],
        steps_above=columns[4].astype(np.int64),
        best=best,
        initial_critical_learning_rate=initial,
        converged=converged,
        diverged=diverged,
        seconds=time.perf_counter() - started,
    )


def mean_squared_error(model: nn.Module, split: Split) -> float:
    """The loss of eq. (1) on a set."""
    return residual_of(predictions(model, split.inputs), split.targets).square().mean().item()


def performance(model: nn.Module, split: Split, classes: int | None) -> tuple[float, float]:
    """The loss on a set, and the fraction of its samples whose class is wrong: NaN for regression (``None``).

    A single output stands for two classes: the nearer of the two values that the targets have. Raises ``ValueError``
    where they have but one.
    """
    outputs = predictions(model, split.inputs)
    loss = residual_of(outputs, split.targets).square().mean().item()
    if classes is None:
        return loss, math.nan
    if outputs[0].numel() == 1:
        targets = split.targets.flatten()
        low, high = targets.min(), targets.max()
        if low == high:
            raise ValueError(f"split: its targets are all {low:g}; allowed are targets of two classes, both of them")
        middle = (low + high) / 2
        return loss, ((outputs.flatten() > middle) != (targets > middle)).double().mean().item()
    return loss, (outputs.argmax(1) != split.targets.argmax(1)).double().mean().item()


def predictions(model: nn.Module, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """The outputs, some samples at a time."""
    with full_precision(), torch.inference_mode():
        return torch.cat([model(part) for part in inputs.split(_AT_ONCE)])


def _score(evaluation: tuple[int | float, ...], classes: int | None) -> tuple[float, float]:
    """What makes an evaluation better: the validation error, then the loss."""
    loss, error = evaluation[2:4]
    return (0.0 if classes is None else error), loss


def _batches(n: int, size: int, replacement: bool, seed: int) -> Iterator[slice | Int[Tensor, " size"]]:
    """Batches without end: all samples for gradient descent, which draws nothing."""
    while size == n:
        yield slice(None)
    yield from sgd.batches(n, size, replacement, seed)


class _Trainer:
    """A model on its training set: steps, and critical rates."""

    def __init__(self, model: nn.Module, training: Split, optimizer: Optimizer):
        self.model, self.inputs, self.targets = model, training.inputs, training.targets
        self.layers = tangent.layers(model, training.inputs)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.chain = None
        if self.layers.chain and optimizer == "sgd" and training.targets.numel() == len(training):
            self.chain = ChainDescent(model, self.layers)
        # the rate is set before each step
        self.optimizer = None if optimizer == "sgd" else _OPTIMIZERS[optimizer](self.parameters.values(), lr=1.0)
        self.start = None

    def critical_rate(self) -> float:
        """n / ||K|| on the training set, or on its first samples."""
        linearization = tangent.linearize(self.model, self.inputs[:SUBSET], self.layers)
        single = len(linearization) == len(linearization.outputs)  # with c outputs the kernel costs c^2 as much
        kernel = linearization.kernel() if single and linearization.kernel_fits() else linearization
        pairs = top_eigenpairs(kernel, 1, self.start)
        self.start = pairs.start
        return tangent.critical_rate(pairs.values[-1].item(), len(linearization))

    def step(self, batch: slice | Tensor, eta: float, measured: bool) -> tuple[float, float | None]:
        """One step; returns the batch's loss before it and, where ``measured``, the batch's critical rate."""
        x, y = self.inputs[batch], self.targets[batch]
        if measured:
            with torch.inference_mode(bool(self.layers.chain)):
                linearization = tangent.linearize(self.model, x, self.layers)
                residual = residual_of(linearization.outputs, y)
                norm, _ = linearization.norm_and_vjp(residual * (-2 * eta / y.numel()), add_to=self.parameters)
            return residual.square().mean().item(), tangent.critical_rate(norm, y.numel())
        if self.chain is not None:
            return self.chain.step(x, y, eta), None
        with full_precision():
            loss = residual_of(self.model(x), y).square().mean()
            gradient = torch.autograd.grad(loss, list(self.parameters.values()))
        self._update(gradient, eta)
        return loss.item(), None

    def _update(self, gradient: tuple[Tensor, ...], eta: float) -> None:
        if self.optimizer is None:
            with torch.no_grad():
                for parameter, g in zip(self.parameters.values(), gradient, strict=True):
                    parameter.sub_(g, alpha=eta)
            return
        for parameter, g in zip(self.parameters.values(), gradient, strict=True):
            parameter.grad = g
        for group in self.optimizer.param_groups:
            group["lr"] = eta
        self.optimizer.step()
