"""Trainings with the kernel and the critical rate of every step, beside plain loops that measure nothing."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import pytest
import torch
from catapults import models, sgd, training
from torch import nn


@dataclass(frozen=True)
class TrainingCase:
    """A network with its data, and what our steps may cost compared with plain ones."""

    network: Callable[..., nn.Module]
    sizes: tuple[int, int, int]
    sample: tuple[int, ...]
    n: int
    batch: int | None  # None: all samples, gradient descent
    steps: int
    rounds: int
    allowed_ratio: float

    def problem(self) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        return self.network(*self.sizes), torch.randn(self.n, *self.sample), torch.rand(self.n)


TRAININGS = {
    "SGD, two-layer": TrainingCase(models.fcn, (100, 1024, 2), (100,), 2000, 5, 2000, 9, 0.9),
    "SGD, FCN": TrainingCase(models.fcn, (3072, 1024, 5), (3072,), 128, 32, 60, 5, 0.9),
    "GD, FCN": TrainingCase(models.fcn, (3072, 1024, 5), (3072,), 128, None, 20, 5, 1.15),
    "GD, CNN": TrainingCase(models.cnn, (3, 32, 64), (3, 32, 32), 128, None, 5, 3, 1.05),
}
SGD_RATE, GD_RATE = 0.1, 1e-3


@pytest.mark.parametrize("name", TRAININGS)
def test_training(benchmark, table_of_sgd, name):
    """Both from the same weights with the same batches, in turn; the end of both is the same."""
    case = TRAININGS[name]
    initial, inputs, targets = case.problem()
    plain, ours = [], []

    def one_round() -> None:
        models_ = copy.deepcopy(initial), copy.deepcopy(initial)
        for times, run, model in zip((plain, ours), (_plain, _ours), models_, strict=True):
            times.append(run(case, model, inputs, targets))
        for ours_, theirs in zip(*(model.parameters() for model in models_), strict=True):
            torch.testing.assert_close(ours_, theirs, rtol=1e-3, atol=1e-4)

    one_round()
    plain.clear(), ours.clear()
    benchmark.pedantic(one_round, rounds=case.rounds)
    ratio = median(o / p for o, p in zip(ours, plain, strict=True))
    row = {"plain": median(plain), "ours": median(ours), "ratio": ratio, "allowed": case.allowed_ratio}
    benchmark.extra_info.update(row)
    table_of_sgd[name] = row


def _plain(case: TrainingCase, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Seconds a step."""
    started = perf_counter()
    optimizer = torch.optim.SGD(model.parameters(), lr=SGD_RATE if case.batch else GD_RATE)
    drawn = training.Batches(case.n, case.batch, True, 0) if case.batch else itertools.repeat(slice(None))
    for batch in itertools.islice(drawn, case.steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs[batch])[:, 0], targets[batch]).backward()
        optimizer.step()
    return (perf_counter() - started) / case.steps


def _ours(case: TrainingCase, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """The same: of all that a run of SGD takes; in gradient descent without the states before the first step and after
    the last one, whose kernels come with no step or in a pass of their own."""
    if case.batch is None:
        return median(training.gradient_descent(model, inputs, targets, GD_RATE, case.steps).seconds[1:-1].tolist())
    started = perf_counter()
    rarely = {"loss_every": case.steps, "kernel_every": None}
    sgd.stochastic_gradient_descent(
        model, inputs, targets, SGD_RATE, case.batch, case.steps, replacement=True, **rarely
    )
    return (perf_counter() - started) / case.steps
