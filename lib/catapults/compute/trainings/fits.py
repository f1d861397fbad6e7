"""Trainings of section 4: with a validation set, a test, and the AGOP at the best weights; strong models."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ... import catapult, data
from ...agop import agop, alignment, factor
from ...data import Split, Task
from ...devices import device as find_device
from ...experiments.fits import CORNER, REST, Fit, Fitted, Strong, StrongModel
from ...history import History
from ...tangent import linearize
from ...tangent.eigenspace import NotFinite, top_eigenpairs
from ...training import fit, performance
from .networks import at_initialisation, outputs_for
from .thinning import thinned

NORM_SAMPLES, NORM_IMAGES = 1000, 128  # of which ||K|| is measured, in a fully connected network and in others


def compute(
    experiment: Fit | StrongModel, task: Task, needed: tuple[Any, ...], device: str, **options: Any
) -> Fitted | Strong:
    if isinstance(experiment, StrongModel):
        return _strong(experiment, task, device, options)
    egop = torch.from_numpy(needed[0].egop) if needed else task.egop
    return _fitted(experiment, task, egop, device, options)


def _strong(e: StrongModel, task: Task, device: str, options: dict[str, Any]) -> Strong:
    train, validation, test = _on_device(task, device)
    outputs = outputs_for(train.targets)
    classes = max(2, outputs)
    model = at_initialisation(e.network(), train.inputs, outputs).to(train.inputs.device)
    _trained(
        model, train, validation, e, classes, optimizer="adam", stop_below=None, critical_every=None,
        evaluate_every=max(1, e.steps // 20), **options,
    )  # fmt: skip
    _, error = performance(model, test, classes)
    return Strong(factor(agop(model, train.inputs), REST).numpy(), error, task.source, _size(model))


def _fitted(e: Fit, task: Task, egop: Float[Tensor, "d d"], device: str, options: dict[str, Any]) -> Fitted:
    train, validation, test = _on_device(task, device)
    outputs = outputs_for(train.targets)
    classes = None if data.is_synthetic(e.dataset) else max(2, outputs)
    model = at_initialisation(e, train.inputs, outputs).to(train.inputs.device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(e.initial_scale)
    samples = train.inputs[: NORM_SAMPLES if e.architecture == "fcn" else NORM_IMAGES]
    first = _kernel_norm(model, samples)
    h = _trained(
        model, train, validation, e, classes, optimizer=e.optimizer, replacement=e.replacement, stop_below=e.stop_below,
        critical_every=e.critical_every, evaluate_every=e.evaluate_every, settle=e.settle, patience=e.patience,
        **options,
    )  # fmt: skip
    loss, error = performance(model, test, classes)
    G = agop(model, train.inputs)
    curve, batch_loss, rate = thinned(h.batch_loss, h.learning_rate)
    spikes = catapult.spikes(np.where(np.isfinite(h.batch_loss), h.batch_loss, np.nan))
    critical = h.batch_critical_learning_rate
    measured = bool(np.isfinite(critical).any())
    return Fitted(
        steps=len(h.learning_rate),
        catapults=h.catapults,
        spikes=len(spikes),
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
        parameters=_size(model),
        spikes_above=catapult.spikes_above(spikes, catapult.above(h.learning_rate, critical)) if measured else None,
        norms=(first, _kernel_norm(model, samples)),
    )


def _trained(
    model: nn.Module, train: Split, validation: Split, e: Fit | StrongModel, classes: int | None, **options: Any
) -> History:
    return fit(
        model, train, validation, e.learning_rate, e.batch_size, e.steps, classes=classes, seed=e.seed, **options
    )


def _kernel_norm(model: nn.Module, inputs: Float[Tensor, "n ..."]) -> float:
    """||K||; NaN where it is not finite."""
    linearization = linearize(model, inputs)
    kernel = linearization.kernel() if linearization.kernel_fits() else linearization
    try:
        return top_eigenpairs(kernel, 1).values[-1].item()
    except NotFinite:
        return math.nan


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


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
