import math

import pytest
import torch
from catapults import models
from torch import nn


def test_fcn_computes_the_formula_of_appendix_f():
    model = models.fcn(6, 7, 3, bias=True, gain=1.5)
    x = torch.randn(4, 6)
    first, second, last = (layer for layer in model if isinstance(layer, nn.Linear))
    hidden = torch.relu(x @ first.weight.T / math.sqrt(6) + first.bias)
    hidden = torch.relu(1.5 * hidden @ second.weight.T / math.sqrt(7) + second.bias)
    torch.testing.assert_close(model(x), hidden @ last.weight.T / math.sqrt(7) + last.bias)


def test_cnn_computes_the_formula_of_appendix_f():
    model = models.cnn(2, 5, 3, depth=3, gain=1.5)
    x = torch.randn(4, 2, 5, 5)
    first, second, last = (layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear))
    hidden = torch.relu(nn.functional.conv2d(x, first.weight, padding=1) / math.sqrt(2 * 9))
    hidden = torch.relu(1.5 * nn.functional.conv2d(hidden, second.weight, padding=1) / math.sqrt(3 * 9))
    torch.testing.assert_close(model(x), hidden.flatten(1) @ last.weight.T / math.sqrt(3 * 25))


@pytest.mark.parametrize("model", [models.fcn(50, 400, 3, bias=True), models.cnn(3, 4, 60, bias=True)])
def test_ntk_parameters_are_standard_normal(model):
    values = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert values.mean().abs() < 5 / math.sqrt(len(values))
    assert (values.var() - 1).abs() < 8 / math.sqrt(len(values))


def test_pytorch_parameterisation_is_pytorchs():
    torch.manual_seed(3)
    ours = models.fcn(6, 7, 2, bias=True, parameterization="pytorch")
    torch.manual_seed(3)
    theirs = nn.Sequential(nn.Flatten(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 1))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_depth_counts_weight_layers_and_biases_are_an_option():
    assert len(list(models.fcn(6, 7, 5).parameters())) == 5
    assert len(list(models.cnn(3, 4, 5, depth=5, bias=True).parameters())) == 10


def test_images_are_flattened():
    assert models.fcn(12, 7, 2, 3)(torch.randn(4, 3, 2, 2)).shape == (4, 3)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"width": 0}, "width = 0: allowed are whole numbers of at least 1"),
        ({"width": 3.5}, "width = 3.5"),
        ({"depth": 1}, "depth = 1: allowed are whole numbers of at least 2"),
        ({"gain": -1.0}, "gain = -1.0: allowed are positive numbers"),
        ({"parameterization": "mup"}, "parameterization = 'mup': allowed are 'ntk' and 'pytorch'"),
        ({"parameterization": "pytorch", "gain": 2.0}, "gain = 2.0: PyTorch's default parameterisation has no gain"),
    ],
)
@pytest.mark.usefixtures("no_type_checks")
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.fcn(**{"in_features": 4, "width": 5, "depth": 3} | options)


def test_device():
    assert models.device("cpu") == torch.device("cpu")
    assert models.device("auto").type in ("cuda", "mps", "cpu")
    with pytest.raises(ValueError, match="device = 'tpu': allowed on this machine are auto"):
        models.device("tpu")
