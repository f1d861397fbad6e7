"""Trainings of section 4 with their catapults taken away, and single steps from the same weights at several rates."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from ... import data, tangent
from ...agop import agop, alignment
from ...catapult import steps_above
from ...data import Split, Task
from ...experiments.base import Rate
from ...experiments.causes import Fork, Forked, Intervened, Without
from ...experiments.fits import Fit
from ...schedules import LearningRate, Schedule, parse
from ...training import fit, performance
from ...training.interventions import APPLIED, fit_with
from ...training.run import Batches
from .fits import NORM_IMAGES, NORM_SAMPLES, _kernel_norm, _on_device
from .networks import at_initialisation, outputs_for
from .thinning import thinned

_FORK_SAMPLES = 500  # of which ||K|| is measured before and after a step
_SHOWN = 200  # points of a curve


def compute(
    experiment: Intervened | Fork, task: Task, needed: tuple[Any, ...], device: str, **options: Any
) -> Without | Forked:
    strong = needed[0] if experiment.strong is not None else None
    egop = task.egop if strong is None else torch.from_numpy(strong.egop)
    model, sets, classes = _start(experiment, task, device)
    if isinstance(experiment, Fork):
        return _forked(experiment, task, model, sets[0])
    return _without(experiment, task, model, sets, classes, egop, needed, options)


def _start(e: Fit, task: Task, device: str) -> tuple[nn.Module, list[Split], int | None]:
    sets = _on_device(task, device)
    inputs, targets = sets[0].inputs, sets[0].targets
    outputs = outputs_for(targets)
    model = at_initialisation(e, inputs, outputs).to(inputs.device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(e.initial_scale)
    return model, sets, None if data.is_synthetic(e.dataset) else max(2, outputs)


def _without(
    e: Intervened,
    task: Task,
    model: nn.Module,
    sets: list[Split],
    classes: int | None,
    egop: torch.Tensor,
    needed: tuple[Any, ...],
    options: dict[str, Any],
) -> Without:
    train, validation, test = sets
    samples = train.inputs[: NORM_SAMPLES if e.architecture == "fcn" else NORM_IMAGES]
    first = _kernel_norm(model, samples)
    common = {
        "classes": classes, "replacement": e.replacement, "seed": e.seed, "stop_below": e.stop_below,
        "evaluate_every": e.evaluate_every, "settle": e.settle, "critical_every": e.critical_every,
    }  # fmt: skip
    if e.kind in ("matched", "follow"):
        rate = _mean_rate(e, needed[-1]) if e.kind == "matched" else _following(e)
        h = fit(model, train, validation, rate, e.batch_size, e.steps, **common, **options)
        applied = h.learning_rate
    else:
        parts = model, train, validation, e.learning_rate, e.batch_size, e.steps
        h = fit_with(e.kind, e.c, *parts, **common, **options)
        applied = h.quantity(APPLIED)[: len(h.learning_rate)]
    loss, error = performance(model, test, classes)
    best_step = int(h.evaluated[h.best])
    curve, batch_loss, rate = thinned(h.batch_loss, applied, _SHOWN)
    return Without(
        steps=len(h.learning_rate),
        above=int(steps_above(applied, h.batch_critical_learning_rate)[best_step]),
        best_step=best_step,
        mean_rate=float(applied.mean()) if len(applied) else math.nan,
        curve=curve,
        loss=batch_loss.astype(np.float32),
        rate=rate.astype(np.float32),
        converged=h.converged,
        diverged=h.diverged,
        test_loss=loss,
        test_error=error,
        test_variance=test.targets.double().var(0, correction=0).mean().item(),
        alignment=alignment(agop(model, train.inputs), egop),
        norms=(first, _kernel_norm(model, samples)),
        source=task.source,
    )


def _mean_rate(e: Intervened, clipped: Without) -> Rate:
    """Of the training with a limited rate; its own where that took no step."""
    return clipped.mean_rate if clipped.steps else e.learning_rate


def _following(e: Intervened) -> Schedule:
    """c times the critical rate of the moment, whenever it is measured."""
    rate = LearningRate(e.c, "current eta_crit")
    return Schedule(tuple((step, rate) for step in range(0, e.steps, e.critical_every)))


def _forked(e: Fork, task: Task, model: nn.Module, train: Split) -> Forked:
    """The training goes on with plain steps of SGD at its own rate; the batches of the single steps are others."""
    x, y = train.inputs, train.targets
    layers, parameters = tangent.layers(model, x), dict(model.named_parameters())
    draws, others = (Batches(len(train), e.batch_size, e.replacement, seed) for seed in (e.seed, e.seed + 2**32))
    eta = _absolute(e, model, x)
    ratios = np.full((3, len(e.moments), e.batches, len(e.multiples)), np.nan)
    own = np.full((len(e.moments), e.batches), np.nan)
    for step in range(e.moments[-1] + 1):
        if step in e.moments:
            t = e.moments.index(step)
            weights = {name: p.detach().clone() for name, p in parameters.items()}
            for b in range(e.batches):
                batch = next(others)
                before = _measured(model, x, y, batch)
                _, critical, descent = _descent(model, x[batch], y[batch], layers)
                own[t, b] = eta / critical
                for m, multiple in enumerate(e.multiples):
                    _move(parameters, descent, multiple * critical)
                    ratios[:, t, b, m] = _measured(model, x, y, batch) / before
                    model.load_state_dict(weights)
        batch = next(draws)
        _, _, descent = _descent(model, x[batch], y[batch], layers)
        _move(parameters, descent, eta)
    batch_loss, whole_loss, norm = ratios
    return Forked(batch_loss, whole_loss, norm, own, task.source)


def _absolute(e: Fork, model: nn.Module, inputs: torch.Tensor) -> float:
    """The experiment's rate, with multiples of the critical one of the whole set at initialisation."""
    norm = _kernel_norm(model, inputs)
    return parse(e.learning_rate).at(0).absolute(tangent.critical_rate(norm, len(inputs)), math.nan)


def _descent(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, layers: tangent.Layers
) -> tuple[float, float, dict[str, torch.Tensor]]:
    """The batch's loss, its critical rate, and minus the gradient of its loss."""
    linearization = tangent.linearize(model, x, layers)
    residual = linearization.outputs - y.view_as(linearization.outputs)
    norm, descent = linearization.norm_and_vjp(residual * (-2 / residual.numel()))
    return residual.square().mean().item(), tangent.critical_rate(norm, residual.numel()), descent


def _measured(model: nn.Module, x: torch.Tensor, y: torch.Tensor, batch: torch.Tensor) -> np.ndarray:
    """The batch's loss, the whole set's, and ||K||."""
    with torch.no_grad():
        squares = (model(x).view_as(y) - y).square()
    return np.array([squares[batch].mean().item(), squares.mean().item(), _kernel_norm(model, x[:_FORK_SAMPLES])])


def _move(parameters: dict[str, nn.Parameter], direction: dict[str, torch.Tensor], rate: float) -> None:
    with torch.no_grad():
        for name, change in direction.items():
            parameters[name].add_(change, alpha=rate)
