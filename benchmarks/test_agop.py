"""The AGOP beside a plain forward and backward pass over the same samples, and beside torch.func's Jacobians."""

from collections.abc import Callable
from math import inf
from statistics import median
from time import perf_counter

import pytest
import torch
from catapults import models
from catapults.agop import agop
from contestants import TOLERANCE, Case
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

AGOP_CASES = {  # for images the matrix itself, of 3072 x 3072 numbers, is more than a step on 128 of them
    "two-layer": Case(models.fcn, (100, 1024, 2), (100,), rounds=15, allowed_ratio=1.1, allowed_mib=inf, n=2000),
    "FCN": Case(models.fcn, (3072, 1024, 5), (3072,), rounds=9, allowed_ratio=inf, allowed_mib=inf),
}


@pytest.mark.parametrize("name", AGOP_CASES)
def test_agop(benchmark, table_of_agop, name):
    """All three on the same network and samples, in turn; the two AGOPs are the same."""
    case = AGOP_CASES[name]
    model, (inputs, targets) = case.model(), case.data()
    contestants: dict[str, Callable[[], object]] = {
        "plain": lambda: _forward_and_backward(model, inputs, targets),
        "ours": lambda: agop(model, inputs),
        "peer": lambda: _by_torch_func(model, inputs),
    }
    ours, peer = contestants["ours"](), contestants["peer"]()
    torch.testing.assert_close(ours, peer, rtol=TOLERANCE, atol=TOLERANCE * peer.abs().max().item())
    times = {kind: [] for kind in contestants}

    def one_round() -> None:
        for kind, run in contestants.items():
            started = perf_counter()
            run()
            times[kind].append(perf_counter() - started)

    one_round()
    for taken in times.values():
        taken.clear()
    benchmark.pedantic(one_round, rounds=case.rounds)
    row = {kind: median(taken) for kind, taken in times.items()}
    for kind in ("plain", "peer"):
        row[f"x {kind}"] = median(o / other for o, other in zip(times["ours"], times[kind], strict=True))
    row["allowed"] = case.allowed_ratio
    benchmark.extra_info.update(row)
    table_of_agop[name] = row


def _forward_and_backward(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    """The gradient of the loss by the weights: a step of training without the update."""
    model.zero_grad()
    nn.functional.mse_loss(model(inputs), targets).backward()


def _by_torch_func(model: nn.Module, inputs: Tensor) -> Tensor:
    """Every sample's Jacobian by ``vmap(jacrev)``, then their product."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    rows = vmap(jacrev(lambda x: functional_call(model, weights, (x[None],))[0]))(inputs).flatten(0, 1)
    return rows.T @ rows / len(inputs)
