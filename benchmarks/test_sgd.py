"""A run of SGD with the kernel and the critical rate of every batch, beside a plain loop that measures nothing."""

import copy
import itertools
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import pytest
import torch
from catapults import models, sgd, training
from torch import nn


@dataclass(frozen=True)
class SGDCase:
    """A network with its data, and what our steps may cost compared with plain ones."""

    sizes: tuple[int, int, int]
    n: int
    batch: int
    steps: int
    rounds: int
    allowed_ratio: float

    def problem(self) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        return models.fcn(*self.sizes), torch.randn(self.n, self.sizes[0]), torch.rand(self.n)


SGD_CASES = {
    "two-layer": SGDCase((100, 1024, 2), 2000, 5, 2000, 9, 1.0),
    "FCN": SGDCase((3072, 1024, 5), 128, 32, 60, 5, 1.2),
}
RATE = 0.1


@pytest.mark.parametrize("name", SGD_CASES)
def test_sgd(benchmark, table_of_sgd, name):
    """Both from the same weights with the same batches, in turn; the end of both is the same."""
    case = SGD_CASES[name]
    initial, inputs, targets = case.problem()
    plain, ours = [], []

    def one_round() -> None:
        models_ = copy.deepcopy(initial), copy.deepcopy(initial)
        for times, run, model in zip((plain, ours), (_plain, _ours), models_, strict=True):
            started = perf_counter()
            run(case, model, inputs, targets)
            times.append((perf_counter() - started) / case.steps)
        for ours_, theirs in zip(*(model.parameters() for model in models_), strict=True):
            torch.testing.assert_close(ours_, theirs, rtol=1e-3, atol=1e-4)

    one_round()
    plain.clear(), ours.clear()
    benchmark.pedantic(one_round, rounds=case.rounds)
    ratio = median(o / p for o, p in zip(ours, plain, strict=True))
    row = {"plain": median(plain), "ours": median(ours), "ratio": ratio, "allowed": case.allowed_ratio}
    benchmark.extra_info.update(row)
    table_of_sgd[name] = row


def _plain(case: SGDCase, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for batch in itertools.islice(training.Batches(case.n, case.batch, True, 0), case.steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs[batch])[:, 0], targets[batch]).backward()
        optimizer.step()


def _ours(case: SGDCase, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    rarely = {"loss_every": case.steps, "kernel_every": None}
    sgd.stochastic_gradient_descent(model, inputs, targets, RATE, case.batch, case.steps, replacement=True, **rarely)
