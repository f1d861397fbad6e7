"""A step without autograd is the step with it."""

import copy
import itertools

import pytest
import torch
from catapults import models, tangent
from catapults.tangent import descent
from torch import nn


def frozen(model: nn.Module, *indices: int) -> nn.Module:
    for index in indices:
        model[index].requires_grad_(False)
    return model


def layers(*sizes: int, relu: str, ntk: bool = True) -> nn.Sequential:
    """Linear layers of these sizes, with a ReLU after each one that is marked with an ``r``."""
    kinds = {True: models.NTKLinear, False: nn.Linear}
    modules = []
    for (below, above), mark in zip(itertools.pairwise(sizes), relu, strict=True):
        modules += [kinds[ntk](below, above, bias=True)] + [nn.ReLU()] * (mark == "r")
    return nn.Sequential(*modules)


MODELS = {
    "two layers": lambda: models.fcn(5, 40, 2),
    "four layers": lambda: models.fcn(5, 8, 4, bias=True),
    "PyTorch's": lambda: layers(5, 9, 7, 1, relu="rr-", ntk=False),
    "one layer": lambda: layers(5, 1, relu="-"),
    "linear ones above": lambda: layers(5, 9, 7, 6, 1, relu="rr--"),
    "linear ones only": lambda: layers(5, 9, 7, 1, relu="---"),
    "a linear one between": lambda: layers(5, 9, 8, 7, 1, relu="r-r-"),
    "two ReLUs in a row": lambda: nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.ReLU(), nn.Linear(9, 1)),
    "a ReLU first": lambda: nn.Sequential(nn.ReLU(), nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 1)),
    "images": lambda: nn.Sequential(nn.Flatten(), nn.ReLU(), *layers(5, 9, 1, relu="r-")),
    "the first layer only": lambda: frozen(layers(5, 9, 7, 1, relu="rr-"), 2, 4),
    "the last layer only": lambda: frozen(layers(5, 9, 7, 1, relu="rr-"), 0, 2),
    "the middle only": lambda: frozen(layers(5, 9, 7, 1, relu="rr-"), 0, 4),
}


@pytest.mark.parametrize("part", [100, 12, 5])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_that_of_autograd(name, part, monkeypatch):
    monkeypatch.setattr(descent, "_SIDE", part)
    torch.manual_seed(0)
    model = MODELS[name]().double()
    x, y = torch.randn(12, 5, dtype=torch.double), torch.randn(12, dtype=torch.double)
    x = x.view(12, 5, 1) if name == "images" else x
    plain = copy.deepcopy(model)
    optimizer = torch.optim.SGD((p for p in plain.parameters() if p.requires_grad), lr=0.3)
    stepping = descent.ChainDescent(model, tangent.layers(model, x))
    inputs = x.clone()
    for _ in range(3):
        optimizer.zero_grad()
        loss = (plain(x).flatten() - y).square().mean()
        loss.backward()
        optimizer.step()
        assert stepping.step(inputs, y, 0.3) == pytest.approx(loss.item(), rel=1e-12)
    for (key, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13, msg=key)
    assert torch.equal(inputs, x)
