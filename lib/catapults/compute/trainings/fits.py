"""Trainings of section 4: with a validation set, a test, and the AGOP at the best weights; strong models."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ... import catapult, data
from ...agop import agop, alignment
from ...data import Split, Task
from ...devices import device as find_device
from ...experiments.fits import CORNER, Fit, Fitted, Strong, StrongModel
from ...training import fit, performance
from .networks import at_initialisation, outputs_for
from .thinning import thinned


def compute(
    experiment: Fit | StrongModel, task: Task, needed: tuple[Any, ...], device: str, **options: Any
) -> Fitted | Strong:
    if isinstance(experiment, StrongModel):
        return _strong(experiment, task, device, options)
    egop = torch.from_numpy(np.array(needed[0].egop)) if needed else task.egop
    return _fitted(experiment, task, egop, device, options)


def _strong(e: StrongModel, task: Task, device: str, options: dict[str, Any]) -> Strong:
    train, validation, test = _on_device(task, device)
    outputs = outputs_for(train.targets)
    classes = max(2, outputs)
    model = at_initialisation(e.network(), train.inputs, outputs).to(train.inputs.device)
    fit(
        model,
        train,
        validation,
        e.learning_rate,
        e.batch_size,
        e.steps,
        classes=classes,
        optimizer="adam",
        seed=e.seed,
        stop_below=None,
        evaluate_every=max(1, e.steps // 20),
        critical_every=None,
        **options,
    )
    _, error = performance(model, test, classes)
    egop = agop(model, train.inputs).cpu().numpy()
    parameters = sum(p.numel() for p in model.parameters())
    return Strong(egop, error, task.source, parameters)


def _fitted(e: Fit, task: Task, egop: Float[Tensor, "d d"], device: str, options: dict[str, Any]) -> Fitted:
    train, validation, test = _on_device(task, device)
    outputs = outputs_for(train.targets)
    classes = None if data.is_synthetic(e.dataset) else max(2, outputs)
    model = at_initialisation(e, train.inputs, outputs).to(train.inputs.device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(e.initial_scale)
    h = fit(
        model,
        train,
        validation,
        e.learning_rate,
        e.batch_size,
        e.steps,
        classes=classes,
        optimizer=e.optimizer,
        replacement=e.replacement,
        seed=e.seed,
        stop_below=e.stop_below,
        evaluate_every=e.evaluate_every,
        critical_every=e.critical_every,
        settle=e.settle,
        patience=e.patience,
        **options,
    )
    loss, error = performance(model, test, classes)
    G = agop(model, train.inputs)
    curve, batch_loss, rate = thinned(h.batch_loss, h.learning_rate)
    return Fitted(
        steps=len(h.learning_rate),
        catapults=h.catapults,
        spikes=len(catapult.spikes(np.where(np.isfinite(h.batch_loss), h.batch_loss, np.nan))),
        lowered=bool((h.learning_rate[1:] < h.learning_rate[:-1]).any()),
        curve=curve,
        loss=batch_loss,
        learning_rate=rate,
        evaluated=h.evaluated,
        training_loss=h.training_loss,
        validation_loss=h.validation_loss,
        validation_error=h.validation_error,
        best=h.best,
        initial_critical_learning_rate=h.initial_critical_learning_rate,
        converged=h.converged,
        diverged=h.diverged,
        test_loss=loss,
        test_error=error,
        test_variance=test.targets.double().var(0, correction=0).mean().item(),
        linear_test_loss=_linear_test_loss(train, test) if classes is None else math.nan,
        alignment=alignment(G, egop),
        corner=_corner(G),
        true_corner=_corner(egop),
        measure=e.measure,
        source=task.source,
        parameters=sum(p.numel() for p in model.parameters()),
    )


def _linear_test_loss(train: Split, test: Split) -> float:
    """Of the affine function that fits the training set best by least squares."""
    x, others = (torch.cat([s.inputs, s.inputs.new_ones(len(s), 1)], 1).double().cpu() for s in (train, test))
    weights = torch.linalg.lstsq(x, train.targets.double().cpu()[:, None], driver="gelsd").solution
    return (others @ weights - test.targets.double().cpu()[:, None]).square().mean().item()


def _on_device(task: Task, device: str) -> list[Split]:
    """Training, validation and test set there."""
    place = find_device(device)
    return [Split(s.inputs.to(place), s.targets.to(place)) for s in (task.train, task.validation, task.test)]


def _corner(matrix: Float[Tensor, "d d"]) -> Float[np.ndarray, "k k"]:
    return matrix[:CORNER, :CORNER].cpu().numpy().copy()
