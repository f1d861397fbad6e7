import math

import pytest
import torch
from catapults import models
from catapults.tangent import hessian
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


class TestMyrtle:
    def test_it_computes_its_formula(self):
        model = models.myrtle(2, 8, 3, 4, gain=1.5)
        inputs = torch.randn(5, 2, 8, 8)
        first, second, third, fourth, last = (p for p in model.parameters())

        def convolved(x, weight, gain=1.5):
            return torch.relu(gain * nn.functional.conv2d(x, weight, padding=1) / math.sqrt(9 * x.shape[1]))

        def pooled(x):
            return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))

        x = pooled(convolved(convolved(inputs, first, gain=1.0), second))
        x = pooled(convolved(pooled(convolved(x, third)), fourth))  # 1x1 pixel is left of 8x8
        torch.testing.assert_close(model(inputs), x.flatten(1) @ last.T / math.sqrt(3))

    @pytest.mark.parametrize("size", [4, 12, 32])
    @pytest.mark.parametrize("parameterization", ["ntk", "pytorch"])
    def test_five_weight_layers_and_ten_outputs(self, size, parameterization):
        model = models.myrtle(3, size, 6, bias=True, parameterization=parameterization)
        assert len(list(model.parameters())) == 10
        assert model(torch.randn(2, 3, size, size)).shape == (2, 10)

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"channels": 0}, "channels = 0: allowed are whole numbers of at least 1"),
            ({"image_size": 30}, "image_size = 30: allowed are multiples of 4"),
            ({"gain": 0.0}, "gain = 0.0: allowed are positive numbers"),
        ],
    )
    @pytest.mark.usefixtures("no_type_checks")
    def test_impossible_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            models.myrtle(**{"in_channels": 3, "image_size": 8, "channels": 2} | options)


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm)


class TestVit:
    def test_it_computes_its_formula(self):
        model, inputs = models.vit(2, 6, 8, 2, 3, patch=3, heads=2, gain=1.5), torch.randn(5, 2, 6, 6)
        for norm in filter(is_norm, model.modules()):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        weights = dict(model.named_parameters())

        def linear(x, name, gain=1.0):
            return gain * x @ weights[f"{name}.weight"].flatten(1).T / math.sqrt(x.shape[-1])

        def norm(x, name):
            x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, False, keepdim=True) + 1e-5).sqrt()
            return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

        def head(query, key, value):
            products = torch.stack(
                [torch.stack([(q * k).sum(-1) for k in key.unbind(1)], 1) for q in query.unbind(1)], 1
            )
            exponentials = (products / math.sqrt(4)).exp()
            return exponentials / exponentials.sum(2, keepdim=True) @ value

        corners = [(row, column) for row in (0, 3) for column in (0, 3)]
        patches = torch.stack(
            [inputs[:, :, row : row + 3, column : column + 3].flatten(1) for row, column in corners], 1
        )
        x = linear(patches, "0") + weights["1.positions"]
        for block in ("2", "3"):
            of_heads = [
                linear(norm(x, f"{block}.norm"), f"{block}.{part}").chunk(2, -1) for part in ("query", "key", "value")
            ]
            x = x + linear(torch.cat([head(*parts) for parts in zip(*of_heads, strict=True)], -1), f"{block}.out")
            hidden = torch.relu(linear(norm(x, f"{block}.each.0"), f"{block}.each.1"))
            assert hidden.shape[-1] == 32
            x = x + linear(hidden, f"{block}.each.3", gain=1.5)
        torch.testing.assert_close(model(inputs), linear(norm(x, "4").mean(1), "6"))

    def test_what_its_parameters_are_drawn_from(self):
        model = models.vit(3, 16, 64, 2, bias=True)
        for name, module in model.named_modules():
            for parameter in module.parameters(recurse=False):
                if not is_norm(module) and parameter.numel() > 100:
                    assert parameter.mean().abs() < 5 / math.sqrt(parameter.numel()), name
                    assert (parameter.var() - 1).abs() < 8 / math.sqrt(parameter.numel()), name
        tokens = torch.randn(2, 9, 64)
        for norm in filter(is_norm, model.modules()):
            torch.testing.assert_close(norm(tokens), nn.functional.layer_norm(tokens, (64,)))

    def test_queries_keys_and_their_scaled_products_are_of_order_one(self):
        model, inputs = models.vit(3, 16, 256, 2), torch.randn(4, 3, 16, 16)
        block, tokens = model[2], model[:2](inputs)
        query, key = (layer(block.norm(tokens)).unflatten(2, (4, 64)) for layer in (block.query, block.key))
        products = torch.einsum("nshd,nthd->nhst", query, key) / math.sqrt(64)
        for values in (query, key, products):
            assert values.square().mean().item() == pytest.approx(1, rel=0.2)

    def test_pytorch_parameterisation_is_pytorchs(self):
        torch.manual_seed(3)
        model = models.vit(3, 8, 8, 1, patch=4, heads=2, bias=True, parameterization="pytorch")
        torch.manual_seed(3)
        assert torch.equal(model[0].weight, nn.Conv2d(3, 8, 4).weight)
        kinds = {type(module) for module in model.modules() if hasattr(module, "bias")}
        assert kinds == {nn.Conv2d, nn.Linear, nn.LayerNorm}
        wide = models.vit(3, 32, 64, 1, parameterization="pytorch")
        assert wide[1].positions.std().item() == pytest.approx(0.02, rel=0.1)

    @pytest.mark.parametrize("size, patch, heads", [(8, 4, 4), (6, 3, 1), (4, 4, 2), (4, 1, 8)])
    def test_shapes(self, size, patch, heads):
        model = models.vit(3, size, 8, 1, 5, patch=patch, heads=heads)
        assert model(torch.randn(2, 3, size, size)).shape == (2, 5)
        assert model[1].positions.shape == ((size // patch) ** 2, 8)

    def test_only_positions_tell_the_patches_apart(self):
        model, inputs = models.vit(3, 8, 8, 2), torch.randn(5, 3, 8, 8)
        moved = inputs.roll(4, 3)  # by one patch
        assert not torch.allclose(model(moved), model(inputs), rtol=1e-2)
        nn.init.zeros_(model[1].positions)
        torch.testing.assert_close(model(moved), model(inputs), rtol=1e-3, atol=1e-4)

    def test_samples_do_not_mix(self):
        model, inputs = models.vit(3, 8, 8, 2), torch.randn(5, 3, 8, 8)
        torch.testing.assert_close(model(inputs), torch.cat([model(sample[None]) for sample in inputs]))

    def test_its_hessian(self):
        model = models.vit(1, 4, 4, 1, patch=2, heads=2, gain=1.4).double()
        inputs, targets = torch.randn(6, 1, 4, 4, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64)
        shapes = {name: p.shape for name, p in model.named_parameters()}
        start = nn.utils.parameters_to_vector(model.parameters()).detach()

        def loss(vector):
            pieces = vector.split([shape.numel() for shape in shapes.values()])
            state = {name: piece.view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}
            return (torch.func.functional_call(model, state, (inputs,)) - targets).square().mean()

        largest = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, start))[-1].item()
        assert hessian.top_eigenpair(model, inputs, targets).value == pytest.approx(largest, rel=1e-4)

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"width": 0}, "width = 0: allowed are whole numbers of at least 1"),
            ({"depth": 0}, "depth = 0: allowed are whole numbers of at least 1"),
            ({"patch": 0}, "patch = 0: allowed are whole numbers of at least 1"),
            ({"heads": 1.5}, "heads = 1.5"),
            ({"patch": 3}, "image_size = 8: allowed are multiples of patch = 3"),
            ({"width": 10}, "width = 10: allowed are multiples of heads = 4"),
            ({"gain": 0.0}, "gain = 0.0: allowed are positive numbers"),
            ({"parameterization": "mup"}, "parameterization = 'mup': allowed are 'ntk' and 'pytorch'"),
        ],
    )
    @pytest.mark.usefixtures("no_type_checks")
    def test_impossible_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            models.vit(**{"in_channels": 3, "image_size": 8, "width": 8} | options)


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
