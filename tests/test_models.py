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


class TestWideResNet:
    @pytest.mark.parametrize(
        "widen, depth, bias, tensors",
        [(1, 10, False, 10), (2, 10, False, 11), (2, 16, False, 17), (2, 10, True, 22)],
    )
    def test_depth_counts_weight_layers(self, widen, depth, bias, tensors):
        # 6 b + 2 layers in a row; shortcuts that change the shape: two, and one more where 16 channels are widened
        model = models.wide_resnet(3, 8, widen, depth, 4, bias=bias)
        assert len(list(model.parameters())) == tensors
        assert model(torch.randn(5, 3, 8, 8)).shape == (5, 4)

    @pytest.mark.parametrize("norm", [None, "layer"])
    def test_it_computes_its_formula(self, norm):
        model = models.wide_resnet(3, 8, 2, norm=norm, gain=1.5).double()
        inputs = torch.randn(4, 3, 8, 8, dtype=torch.float64)
        weights = {tuple(p.shape): p for p in model.parameters()}
        assert len(weights) == 11  # no two of the same shape

        def activated(x):
            if norm:
                x = (x - x.mean((1, 2, 3), keepdim=True)) / (x.var((1, 2, 3), False, keepdim=True) + 1e-5).sqrt()
            return torch.relu(x)

        def convolved(x, fan_out, size=3, stride=1, gain=1.5):
            fan_in = x.shape[1]
            weight = weights[fan_out, fan_in, size, size] * gain / math.sqrt(fan_in * size**2)
            return nn.functional.conv2d(x, weight, stride=stride, padding=size // 2)

        x = convolved(inputs, 16, gain=1.0)
        for channels, stride in ((32, 1), (64, 2), (128, 2)):
            a = activated(x)
            hidden = activated(convolved(a, channels, stride=stride))
            x = convolved(hidden, channels) + convolved(a, channels, 1, stride)
        outputs = activated(x).mean((2, 3)) @ weights[1, 128].T / math.sqrt(128)
        torch.testing.assert_close(model(inputs), outputs)

    @pytest.mark.parametrize("norm, parameterization", [(None, "ntk"), ("layer", "ntk"), ("layer", "pytorch")])
    def test_samples_do_not_mix(self, norm, parameterization):
        model = models.wide_resnet(3, 8, 2, norm=norm, parameterization=parameterization)
        inputs = torch.randn(3, 3, 8, 8)
        alone = torch.cat([model(sample[None]) for sample in inputs])
        torch.testing.assert_close(model(inputs), alone)

    def test_a_layer_norm_forgets_the_scale_of_the_input(self):
        model, inputs = models.wide_resnet(3, 8, 2, norm="layer"), torch.randn(3, 3, 8, 8)
        torch.testing.assert_close(model(10 * inputs), model(inputs), rtol=1e-3, atol=1e-3)

    def test_with_a_gain_of_sqrt_2_a_block_doubles_the_mean_square(self):
        # each of its two branches keeps it: the gain makes up for what the ReLUs remove
        first, block = models.wide_resnet(4, 12, 16, gain=math.sqrt(2))[:2]
        before = first(torch.randn(32, 4, 12, 12))
        inside = (..., slice(3, -3), slice(3, -3))  # far from the padding's zeros
        squares = [values[inside].square().mean().item() for values in (before, block(before))]
        assert squares == [pytest.approx(1, rel=0.3), pytest.approx(2 * squares[0], rel=0.3)]

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"widen": 0}, "widen = 0: allowed are whole numbers of at least 1"),
            ({"depth": 4}, "depth = 4: allowed are whole numbers of at least 10"),
            ({"depth": 12}, r"depth = 12: allowed are 6 b \+ 4 for b blocks a group"),
            ({"image_size": 30}, "image_size = 30: allowed are multiples of 4"),
            ({"norm": "batch"}, "norm = 'batch': allowed are None and 'layer'"),
            ({"gain": 0.0}, "gain = 0.0: allowed are positive numbers"),
        ],
    )
    @pytest.mark.usefixtures("no_type_checks")
    def test_impossible_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            models.wide_resnet(**{"in_channels": 3, "image_size": 8, "widen": 2} | options)


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
