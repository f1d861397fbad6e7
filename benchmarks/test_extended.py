"""A step with the whole kernel for networks with norms, positions and embeddings, beside a plain pass."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import memory
import pytest
import torch
from catapults import models, tangent
from catapults.tangent import extended
from torch import Tensor, nn


class Words(nn.Module):
    """An embedding of 20,000 words, of which each of the samples has ten."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.out = nn.Embedding(20_000, 32), nn.LayerNorm(32), nn.Linear(32, 1)

    def forward(self, words: Tensor) -> Tensor:
        return self.out(torch.relu(self.norm(self.table(words))).mean(1))


@dataclass(frozen=True)
class Network:
    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    allowed: float  # as a multiple of a plain forward and backward pass
    rounds: int = 5
    allowed_mib: float = float("inf")

    def problem(self) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        return self.build(), self.inputs()


NETWORKS = {
    "transformer 4 x 128": Network(lambda: models.vit(3, 32, 128, 4), lambda: torch.randn(128, 3, 32, 32), 1.6),
    "Wide ResNet 10-10, layer norm": Network(
        lambda: models.wide_resnet(3, 32, 10, norm="layer"), lambda: torch.randn(128, 3, 32, 32), 1.6, 2
    ),
    "embedding, 20,000 x 32": Network(Words, lambda: torch.randint(20_000, (400, 10)), float("inf"), allowed_mib=50),
}


def step(name: str) -> Callable[[], object]:
    """Of the network by its name: kernel and gradient."""
    model, x = NETWORKS[name].problem()
    plan, y = extended.layers(model, x), torch.randn(len(x), 1)

    def run() -> None:
        linearization = extended.linearize(model, x, plan)
        linearization.kernel_and_vjp(linearization.outputs - y)

    return run


@pytest.mark.parametrize("name", NETWORKS)
def test_step(benchmark, table_of_extended, name):
    """Both in turn; the first rounds of both do not count. The general route's kernel is the same."""
    network = NETWORKS[name]
    model, x = network.problem()
    ours_, y, plain, ours = step(name), torch.randn(len(x), 1), [], []
    few = x[:8]
    torch.testing.assert_close(
        extended.linearize(model, few).kernel(), tangent.tangent_kernel(model, few), rtol=1e-3, atol=1e-3
    )

    def one_round() -> None:
        started = time.perf_counter()
        model.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        plain.append(time.perf_counter() - started)
        started = time.perf_counter()
        ours_()
        ours.append(time.perf_counter() - started)

    one_round()
    plain.clear(), ours.clear()
    benchmark.pedantic(one_round, rounds=network.rounds)
    ratio = median(o / p for o, p in zip(ours, plain, strict=True))
    mib = memory.of_step(name)
    table_of_extended[name] = ratio, network.allowed, mib, network.allowed_mib
    benchmark.extra_info.update(ratio=ratio, mib=mib)
