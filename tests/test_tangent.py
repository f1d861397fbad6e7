"""The tangent kernel and what comes of it, against Jacobians from torch.func in float64."""

import copy
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from catapults import models, tangent
from catapults.tangent import blocks, convolution, positions
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev, vmap
from torch.utils.checkpoint import checkpoint


def jacobian(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """(n c, parameters), one autograd pass a row: nothing is shared with the library's routes."""
    rows = []
    for sample in inputs:
        for output in model(sample[None]).reshape(-1):
            parameters = [p for p in model.parameters() if p.requires_grad]
            gradient = torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([g.flatten() for g in gradient]))
    return torch.stack(rows)


def error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return ((ours - reference).norm() / reference.norm()).item()


class Recurrent(nn.Module):
    """torch.func has no rule for its layer."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.last(self.inner(x)[0][:, -1])


class Checkpointed(nn.Module):
    """Its layer runs a second time in the backward pass, and is called by keyword."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.last(input=torch.tanh(checkpoint(self.inner, x, use_reentrant=False)))


def hooked() -> nn.Sequential:
    """A forward hook that changes a layer's output."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    model[0].register_forward_hook(lambda module, arguments, output: 3 * output)
    return model


def with_a_hook(model: nn.Sequential, layer: int) -> nn.Sequential:
    """A forward hook that keeps what it sees: stand-ins for tensors would be useless to it later."""
    model.seen = []
    model[layer].register_forward_hook(lambda module, arguments, output: model.seen.append(output))
    return model


class Stopped(nn.Module):
    """Of its two branches one is cut off from the gradient."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.kept, self.cut, self.last = how, nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        if self.how == "no_grad":
            with torch.no_grad():
                cut = self.cut(x)
        else:
            cut = self.cut(x)
            cut = cut.detach() if self.how == "detach" else cut + (torch.sign(cut) - cut).detach()
        return self.last(torch.tanh(self.kept(x) + cut))


class Heads(nn.Module):
    """Two heads beside each other, of which one is cut off."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 2), nn.Linear(4, 1)

    def forward(self, x):
        return torch.stack([*self.first(x).unbind(1), self.second(x).detach()[:, 0]], 1)


class BiasOnly(nn.Module):
    """Overwrites what entered a layer, which the gradient of a bias does not need."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 1)
        self.first.weight.requires_grad_(False)
        self.second.weight.requires_grad_(False)

    def forward(self, x):
        hidden = self.first(x) + 1
        output = self.second(hidden)
        hidden.mul_(2)
        return output + hidden.sum(1, keepdim=True)


class Residual(nn.Module):
    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, x):
        return x + self.block(x)


class Tied(nn.Module):
    """One parameter in two layers, and a third use of it outside of both."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 1)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))) + x @ self.first.weight)


class SequenceFirst(nn.Module):
    """Its layer sees (positions, samples, features): the first axis is not the samples'."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(4, 5), nn.Linear(10, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.inner(x.transpose(0, 1))).transpose(0, 1).flatten(1))


def frozen(model: nn.Sequential, *layers: int) -> nn.Sequential:
    for layer in layers:
        model[layer].requires_grad_(False)
    return model


def attention() -> nn.Sequential:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Linear(5, 8), layer, nn.Flatten(), nn.Linear(24, 2))


def in_eval_mode(model: nn.Module) -> nn.Module:
    return model.eval()


# name -> (model, shape of a sample, number of parameter tensors that take the general route)
NETWORKS = {
    "fcn": (lambda: models.fcn(20, 30, 4, gain=1.4), (20,), 0),
    "fcn with biases": (lambda: models.fcn(20, 30, 3, bias=True), (20,), 0),
    "fcn, PyTorch, three outputs": (lambda: models.fcn(20, 30, 3, 3, bias=True, parameterization="pytorch"), (20,), 0),
    "cnn": (lambda: models.cnn(3, 8, 6), (3, 8, 8), 0),
    "cnn with biases, three outputs": (lambda: models.cnn(3, 6, 5, 4, 3, bias=True), (3, 6, 6), 0),
    "fcn, ten outputs": (lambda: models.fcn(20, 30, 3, 10, gain=1.4), (20,), 0),
    "cnn, ten outputs": (lambda: models.cnn(3, 6, 5, 4, 10, gain=1.4), (3, 6, 6), 0),
    "wide resnet": (lambda: models.wide_resnet(3, 8, 1, gain=1.4), (3, 8, 8), 0),
    "wide resnet, layer norm, biases, three outputs": (
        lambda: models.wide_resnet(3, 8, 2, 10, 3, norm="layer", bias=True),
        (3, 8, 8),
        0,
    ),
    "myrtle, ten outputs": (lambda: models.myrtle(3, 8, 5, gain=1.4), (3, 8, 8), 0),
    "vit": (lambda: models.vit(2, 6, 8, 2, patch=3, heads=2, gain=1.4), (2, 6, 6), 11),
    "vit, PyTorch, biases, three outputs": (
        lambda: models.vit(2, 4, 8, 1, 3, patch=2, bias=True, parameterization="pytorch"),
        (2, 4, 4),
        7,
    ),
    "cnn, PyTorch": (lambda: models.cnn(3, 6, 5, parameterization="pytorch", bias=True), (3, 6, 6), 0),
    "first layer frozen": (lambda: frozen(models.fcn(10, 20, 3), 1), (10,), 0),
    "last layer frozen": (lambda: frozen(models.fcn(10, 20, 2), 3), (10,), 0),
    "stride, groups, same padding, dilation, circular, pooling": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, stride=2, groups=2),
            nn.Tanh(),
            nn.Conv2d(6, 5, 2, padding="same", dilation=2),
            nn.GELU(),
            nn.Conv2d(5, 4, 3, padding=1, padding_mode="circular"),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 2),
        ),
        (4, 10, 10),
        0,
    ),
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv1d(6, 9, 3), nn.Flatten(), nn.Linear(54, 2)
        ),
        (4, 8),
        0,
    ),
    "conv3d": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 3, 2, padding=1), nn.Tanh(), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(24, 1)
        ),
        (2, 4, 4, 4),
        0,
    ),
    "few positions, many channels": (
        lambda: nn.Sequential(
            nn.Conv2d(40, 60, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(60, 2),
        ),
        (40, 2, 2),
        0,
    ),
    "residual": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            Residual(nn.Sequential(nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1))),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(54, 1),
        ),
        (3, 6, 6),
        0,
    ),
    "tokens": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 50), nn.ReLU(), nn.Flatten(), nn.Linear(150, 2)),
        (3, 4),
        0,
    ),
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1)), (6,), 2),
    "batch norm in eval mode": (
        lambda: in_eval_mode(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))),
        (6,),
        2,
    ),
    "tied parameters": (Tied, (6,), 3),
    "sequence first": (SequenceFirst, (2, 4), 2),
    "attention": (attention, (3, 5), 8),
    "PReLU, group norm": (lambda: nn.Sequential(nn.PReLU(), nn.GroupNorm(2, 6), nn.Linear(6, 1)), (6,), 3),
    "recurrent": (Recurrent, (3, 4), 4),
    "checkpointed": (Checkpointed, (4,), 0),
    "a hook of the user's": (hooked, (4,), 0),
    "a hook that keeps outputs, layer norm": (
        lambda: with_a_hook(nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2)), 1),
        (4,),
        2,
    ),
    "a detached branch": (lambda: Stopped("detach"), (4,), 0),
    "a branch without gradient": (lambda: Stopped("no_grad"), (4,), 2),
    "straight through": (lambda: Stopped("straight"), (4,), 0),
    "a detached head": (Heads, (4,), 0),
    "an input overwritten that is not needed": (BiasOnly, (4,), 0),
    "one layer called twice": (lambda: nn.Sequential(*[nn.Linear(6, 6)] * 2, nn.Linear(6, 1)), (6,), 2),
}


# with layers at many positions, of each kind: only these have routes and blocks to choose from
MANY_POSITIONS = (
    "cnn with biases, three outputs",
    "wide resnet",
    "vit, PyTorch, biases, three outputs",
    "stride, groups, same padding, dilation, circular, pooling",
    "conv1d",
    "conv3d",
    "few positions, many channels",
    "residual",
    "tokens",
)


@pytest.fixture(params=NETWORKS, ids=str)
def network(request):
    build, shape, general = NETWORKS[request.param]
    return build(), shape, general


# torch's own remarks on batching rules that are slow
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.filterwarnings("ignore:.*scaled_dot_product_attention")
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
class TestEveryKindOfLayer:
    def test_the_kernel_is_the_gram_matrix_of_the_jacobian(self, network):
        model, shape, general = network
        model, inputs = model.double(), torch.randn(5, *shape, dtype=torch.float64)
        J = jacobian(copy.deepcopy(model), inputs)
        assert error(tangent.tangent_kernel(model, inputs), J @ J.T) <= 1e-10
        assert len(tangent.layers(model, inputs).general) == general

    def test_in_single_precision(self, network):
        model, shape, _ = network
        inputs = torch.randn(5, *shape)
        J = jacobian(copy.deepcopy(model).double(), inputs.double())
        assert error(tangent.tangent_kernel(model, inputs).double(), J @ J.T) <= 1e-4

    def test_vjp_is_the_gradient(self, network):
        model, shape, _ = network
        model, inputs = model.double(), torch.randn(5, *shape, dtype=torch.float64)
        linearization = tangent.linearize(model, inputs)
        cotangent = torch.randn_like(linearization.outputs)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        outputs = (model(inputs) * cotangent).sum()
        reference = torch.autograd.grad(outputs, list(parameters.values()), materialize_grads=True)
        for gradient in (linearization.vjp(cotangent), linearization.kernel_and_vjp(cotangent)[1]):
            assert gradient.keys() == parameters.keys()
            for name, expected in zip(parameters, reference, strict=True):
                torch.testing.assert_close(gradient[name], expected)

    def test_a_step_in_place(self, network):
        model, shape, _ = network
        model, inputs = model.double(), torch.randn(5, *shape, dtype=torch.float64)
        linearization = tangent.linearize(model, inputs)
        cotangent = torch.randn_like(linearization.outputs)
        kernel, gradient = linearization.kernel_and_vjp(cotangent)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        expected = {name: (p + gradient[name]).detach() for name, p in parameters.items()}
        same_kernel, _ = linearization.kernel_and_vjp(cotangent, add_to=parameters)
        torch.testing.assert_close(same_kernel, kernel)
        for name, p in parameters.items():
            torch.testing.assert_close(p.detach(), expected[name])

    def test_jvp_and_products_without_the_kernel(self, network):
        model, shape, _ = network
        model, inputs = model.double(), torch.randn(5, *shape, dtype=torch.float64)
        direction = {name: torch.randn_like(p) for name, p in model.named_parameters() if p.requires_grad}
        J = jacobian(copy.deepcopy(model), inputs)
        linearization = tangent.linearize(model, inputs)
        expected = J @ torch.cat([w.flatten() for w in direction.values()])
        torch.testing.assert_close(linearization.jvp(direction), expected.view_as(linearization.outputs))
        vectors = torch.randn(len(J), 3, dtype=torch.float64)
        torch.testing.assert_close(linearization @ vectors, J @ (J.T @ vectors))

    @pytest.mark.parametrize("network", MANY_POSITIONS, indirect=True)
    @pytest.mark.parametrize("route", ["by groups", "by unfolding", "by positions"])
    @pytest.mark.parametrize("block", [1, 5000])
    def test_blocks_and_routes_change_nothing(self, network, route, block, monkeypatch):
        model, shape, _ = network
        model, inputs = model.double(), torch.randn(7, *shape, dtype=torch.float64)
        J = jacobian(copy.deepcopy(model), inputs)
        linearization = tangent.linearize(model, inputs)
        cotangent = torch.randn_like(linearization.outputs)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        expected = (J.T @ cotangent.flatten()).split([p.numel() for p in parameters.values()])
        chosen = (lambda layer: layer._unfolds()) if route == "by positions" else (lambda layer: False)
        monkeypatch.setattr(positions.ManyPositions, "_by_positions", chosen)
        monkeypatch.setattr(blocks, "SIDE", 3)  # divides neither 7, 14 nor 70 rows
        for name, size in {"BLOCK": block, "IN_CACHE": block, "COLUMNS": 7}.items():
            monkeypatch.setattr(positions, name, size)
        monkeypatch.setattr(convolution, "_FEW_POSITIONS", 0 if route == "by groups" else math.inf)
        kernel, gradient = linearization.kernel_and_vjp(cotangent)
        assert torch.equal(kernel, kernel.T)
        assert error(kernel, J @ J.T) <= 1e-10
        for name, part in zip(parameters, expected, strict=True):
            torch.testing.assert_close(gradient[name].flatten(), part)

    @pytest.mark.parametrize(
        "network", ["fcn, ten outputs", "fcn with biases", "one layer called twice"], indirect=True
    )
    def test_blocks_of_the_kernel_change_nothing(self, network, monkeypatch):
        model, shape, _ = network
        model, inputs = model.double(), torch.randn(7, *shape, dtype=torch.float64)
        J = jacobian(copy.deepcopy(model), inputs)
        monkeypatch.setattr(blocks, "SIDE", 3)
        kernel = tangent.tangent_kernel(model, inputs)
        assert torch.equal(kernel, kernel.T)
        assert error(kernel, J @ J.T) <= 1e-10

    def test_the_layers_parts_add_up(self, network):
        model, shape, _ = network
        model, inputs = model.double(), torch.randn(4, *shape, dtype=torch.float64)
        linearization = tangent.linearize(model, inputs)
        torch.testing.assert_close(sum(linearization.kernels_by_layer().values()), linearization.kernel())


def test_the_kernel_agrees_with_vmapped_jacobians_from_torch_func():
    model, inputs = models.cnn(2, 5, 4, 3, 2).double(), torch.randn(3, 2, 5, 5, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    J = vmap(jacrev(lambda p, x: functional_call(model, p, (x[None],))[0]), (None, 0))(parameters, inputs)
    K = sum(torch.einsum("ikp,jlp->ikjl", j.flatten(2), j.flatten(2)) for j in J.values()).reshape(6, 6)
    torch.testing.assert_close(tangent.tangent_kernel(model, inputs), K)  # so rows are sample-major


def test_all_linear_layers_of_a_transformer_are_structured():
    model = models.vit(3, 8, 8, bias=True)
    found = tangent.layers(model, torch.randn(4, 3, 8, 8))
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    assert set(found.structured) == linear and len(linear) == 4 * 6 + 2
    assert set(found.general) == {"1.positions", *(f"{norm}.{kind}" for norm in norms for kind in ("weight", "bias"))}


@pytest.mark.filterwarnings("ignore:.*scaled_dot_product_attention")
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_the_model_is_left_as_it_was():
    model = attention()
    before, names = copy.deepcopy(model.state_dict()), [id(p) for p in model.parameters()]
    tangent.tangent_kernel(model, torch.randn(3, 3, 5))
    assert names == [id(p) for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_integer_inputs():
    model, inputs = (
        nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(12, 1)).double(),
        torch.randint(0, 9, (5, 4)),
    )
    J = jacobian(model, inputs)
    assert error(tangent.tangent_kernel(model, inputs), J @ J.T) <= 1e-10


def test_the_callers_gradient_mode_does_not_matter():
    model, inputs = models.fcn(4, 8, 3), torch.randn(5, 4)
    with torch.no_grad():
        kernel = tangent.tangent_kernel(model, inputs)
    assert torch.equal(kernel, tangent.tangent_kernel(model, inputs)) and not kernel.requires_grad


def test_blocks_of_channels_give_the_same_kernel(monkeypatch):
    model, inputs = models.cnn(3, 6, 8, 3, 2).double(), torch.randn(4, 3, 6, 6, dtype=torch.float64)
    whole = tangent.linearize(model, inputs).kernel_and_vjp(torch.ones(4, 2))
    monkeypatch.setattr(positions, "BLOCK", 3 * 4 * 2 * 72)
    in_blocks = tangent.linearize(model, inputs).kernel_and_vjp(torch.ones(4, 2))
    torch.testing.assert_close(in_blocks, whole)


def test_whether_the_kernel_fits(monkeypatch):
    linearization = tangent.linearize(models.fcn(4, 8, 2, 3), torch.randn(10, 4))
    needed = 1.5 * 4 * 30**2
    for free, fits in ((needed, True), (needed - 1, False), (2**40, True)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
        assert linearization.kernel_fits() == fits


PEAK = """
import os
import torch
from memory import peak
from catapults import models, tangent

torch.set_num_threads(1)
small, large = torch.randn(2, 20), torch.randn(3000, 20)
model = models.fcn(20, 256, 2)
tangent.linearize(model, small).kernel_and_vjp(torch.ones(2, 1))
print(peak(lambda: tangent.linearize(model, large).kernel_and_vjp(torch.ones(3000, 1)), os.getpid()))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc")
def test_peak_memory_is_little_more_than_the_kernels():
    root = Path(__file__).parents[1]
    path = {"PYTHONPATH": f"{root / 'benchmarks'}{os.pathsep}{root / 'lib'}"}
    command = [sys.executable, "-c", PEAK]
    taken = subprocess.run(command, env=os.environ | path, check=True, capture_output=True, text=True).stdout
    kernel, activations = 4 * 3000**2 / 2**20, 4 * 3000 * 256 / 2**20
    assert kernel <= float(taken) <= 1.5 * kernel + 6 * activations


networks = st.builds(
    lambda depth, width, outputs, bias, seed: (depth, width, outputs, bias, seed),
    st.integers(2, 4), st.integers(1, 12), st.integers(1, 3), st.booleans(), st.integers(0, 2**16),
)  # fmt: skip


class TestProperties:
    @settings(max_examples=25, deadline=None)
    @given(networks, st.integers(1, 7), st.booleans())
    def test_symmetric_positive_and_equivariant(self, network, n, convolutional):
        depth, width, outputs, bias, seed = network
        torch.manual_seed(seed)
        if convolutional:
            model, inputs = models.cnn(2, 3, width, depth, outputs, bias=bias), torch.randn(n, 2, 3, 3)
        else:
            model, inputs = models.fcn(5, width, depth, outputs, bias=bias), torch.randn(n, 5)
        kernel = tangent.tangent_kernel(model, inputs)
        assert kernel.shape == (n * outputs, n * outputs)
        assert torch.equal(kernel, kernel.T)
        eigenvalues = torch.linalg.eigvalsh(kernel.double())
        assert eigenvalues[0] >= -1e-5 * max(eigenvalues[-1], 1e-30)
        order = torch.randperm(n)
        permuted = kernel.view(n, outputs, n, outputs)[order][:, :, order].reshape(kernel.shape)
        torch.testing.assert_close(tangent.tangent_kernel(model, inputs[order]), permuted, rtol=1e-4, atol=1e-4)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(2, 20), st.integers(0, 2**16), st.data())
    def test_the_split_adds_up_and_the_top_grows(self, m, seed, drawn):
        torch.manual_seed(seed)
        root = torch.randn(m, m, dtype=torch.float64)
        residual = torch.randn(m, dtype=torch.float64)
        top = drawn.draw(st.integers(1, m - 1))
        in_top, rest = tangent.split_loss(residual, root @ root.T, top)
        assert in_top >= 0 and rest >= 0
        assert in_top + rest == pytest.approx(residual.square().mean().item())
        if top > 1:
            assert tangent.split_loss(residual, root @ root.T, top - 1)[0] <= in_top + 1e-12


def test_the_split_of_a_diagonal_kernel():
    assert tangent.split_loss(torch.tensor([1.0, 2.0, 3.0]), torch.diag(torch.tensor([5.0, 9.0, 1.0])), 1) == (
        pytest.approx(4 / 3),
        pytest.approx(10 / 3),
    )


def test_the_critical_learning_rate():
    assert tangent.critical_learning_rate(torch.diag(torch.tensor([1.0, 4.0])), 2) == 0.5
    assert tangent.critical_learning_rate(torch.zeros(3, 3), 3) == math.inf


@pytest.mark.parametrize("factor, grows", [(0.98, False), (1.02, True)])
def test_the_critical_rate_is_where_a_linear_model_stops_to_descend(factor, grows):
    inputs = torch.randn(6, 4, dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    kernel = tangent.tangent_kernel(model, inputs)
    eta = factor * tangent.critical_learning_rate(kernel, 6)
    residual = torch.linalg.eigh(kernel)[1][:, -1]
    after = residual - 2 * eta / 6 * kernel @ residual
    assert (after.norm() > residual.norm()) == grows


class TestRefusals:
    @pytest.mark.parametrize("norm", [nn.BatchNorm1d(8), nn.BatchNorm1d(8, track_running_stats=False).eval()])
    def test_batch_norm(self, norm):
        with pytest.raises(ValueError, match=r"layer '1' \(BatchNorm1d\) normalises over the batch"):
            tangent.tangent_kernel(nn.Sequential(nn.Linear(4, 8), norm, nn.Linear(8, 1)), torch.randn(5, 4))

    def test_dropout(self):
        with pytest.raises(ValueError, match=r"layer '1' \(Dropout\) is random in training mode"):
            tangent.tangent_kernel(nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 1)), torch.randn(5, 4))

    @pytest.mark.parametrize(
        "mix",
        [lambda x: x - x.mean(0), lambda x: x.cumsum(0), lambda x: x.flip(0)],
        ids=["mean", "sum", "order"],
    )
    def test_own_layers_that_mix_samples(self, mix):
        class Mixing(nn.Module):
            def forward(self, x):
                return mix(x)

        with pytest.raises(ValueError, match="depends on the other samples of the batch, or is random"):
            tangent.tangent_kernel(nn.Sequential(nn.Linear(4, 8), Mixing(), nn.Linear(8, 1)), torch.randn(5, 4))

    def test_integer_inputs_that_are_mixed(self):
        class Centred(nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding = nn.Embedding(9, 3)

            def forward(self, x):
                hidden = self.embedding(x).sum(1)
                return hidden - hidden.mean(0)

        with pytest.raises(ValueError, match="depends on the other samples"):
            tangent.tangent_kernel(Centred(), torch.randint(0, 9, (5, 4)))

    def test_a_kernel_that_is_not_finite(self):
        with pytest.raises(ValueError, match="kernel: has entries that are not finite"):
            tangent.critical_learning_rate(torch.full((3, 3), math.nan), 3)

    def test_nothing_to_train(self):
        with pytest.raises(ValueError, match="none of its parameters requires a gradient"):
            tangent.tangent_kernel(nn.Linear(4, 1).requires_grad_(False), torch.randn(5, 4))

    def test_no_samples(self):
        with pytest.raises(ValueError, match="allowed is at least one sample"):
            tangent.tangent_kernel(nn.Linear(4, 1), torch.randn(0, 4))

    def test_outputs_without_samples(self):
        class Total(nn.Linear):
            def forward(self, x):
                return super().forward(x).sum()

        with pytest.raises(ValueError, match="allowed is a tensor of shape"):
            tangent.tangent_kernel(Total(4, 1), torch.randn(5, 4))

    @pytest.mark.parametrize("top", [0, 3, -1])
    def test_top_out_of_range(self, top):
        with pytest.raises(ValueError, match=f"top = {top}: allowed are whole numbers from 1 to 2"):
            tangent.split_loss(torch.ones(3), torch.eye(3), top)

    def test_residual_of_another_size(self):
        with pytest.raises(ValueError, match="residual: 4 entries for a kernel of 3 rows"):
            tangent.split_loss(torch.ones(4), torch.eye(3), 1)

    def test_an_input_that_is_overwritten(self):
        class Overwriting(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 1)

            def forward(self, x):
                hidden = self.first(x)
                output = self.last(hidden.detach())
                hidden += 1
                return output + hidden.sum(1, keepdim=True)

        with pytest.raises(ValueError, match="layer 'last' is changed in place"):
            tangent.tangent_kernel(Overwriting(), torch.randn(5, 4))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["fcn", "cnn", "vit", "attention", "few positions, many channels"])
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of torch.func, with attention
def test_the_gpu_gives_the_same_kernel(name):
    build, shape, _ = NETWORKS[name]
    model, inputs = build(), torch.randn(5, *shape)
    reference = tangent.tangent_kernel(copy.deepcopy(model).double(), inputs.double())
    ours = tangent.tangent_kernel(model.cuda(), inputs.cuda()).cpu().double()
    assert error(ours, reference) <= 1e-4


class TestChains:
    """Networks of linear layers and ReLUs, of which the derivatives are written out."""

    CHAINS = {
        "fcn": lambda: models.fcn(6, 8, 4),
        "three outputs and biases": lambda: models.fcn(6, 8, 3, 3, bias=True),
        "PyTorch": lambda: models.fcn(6, 8, 3, parameterization="pytorch", bias=True),
        "one layer": lambda: nn.Linear(6, 2),
        "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(6, 5), nn.ReLU()), nn.ReLU(), nn.Linear(5, 1)),
        "frozen": lambda: frozen(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU()), 0)
        .append(nn.Linear(4, 1)),
    }  # fmt: skip

    @pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
    def test_the_chain_rule_written_out_is_what_autograd_gives(self, make):
        model, x = make(), torch.randn(9, 6)
        plan = tangent.layers(model, x)
        assert plan.chain
        ours, theirs = (tangent.linearize(model, x, p) for p in (plan, replace(plan, chain=())))
        torch.testing.assert_close(ours.outputs, theirs.outputs)
        torch.testing.assert_close(ours.kernel(), theirs.kernel())
        cotangent = torch.randn_like(ours.outputs)
        assert ours.vjp(cotangent).keys() == theirs.vjp(cotangent).keys()
        for name, value in ours.vjp(cotangent).items():
            torch.testing.assert_close(value, theirs.vjp(cotangent)[name])
        norm, gradient = ours.norm_and_vjp(cotangent)
        assert norm == pytest.approx(torch.linalg.matrix_norm(theirs.kernel(), 2).item(), rel=1e-5)
        for name, value in gradient.items():
            torch.testing.assert_close(value, theirs.vjp(cotangent)[name])

    @pytest.mark.parametrize(
        "make",
        [
            lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)),
            lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU()),
            lambda: nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.0), nn.Linear(5, 1)),
            lambda: nn.Sequential(layer := nn.Linear(6, 6), nn.ReLU(), layer),
        ],
    )
    def test_no_other_network_is_taken_for_one(self, make):
        assert tangent.layers(make(), torch.randn(3, 6)).chain == ()

    def test_a_network_with_a_hook_is_none(self):
        model, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)), torch.randn(3, 4)
        assert tangent.layers(model, x).chain
        model[1].register_forward_hook(lambda module, arguments, output: 3 * output)
        assert not tangent.layers(model, x).chain

    def test_images_are_flattened_first(self):
        x = torch.randn(4, 2, 3)
        flat = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))
        assert tangent.layers(flat, x).chain and not tangent.layers(nn.Linear(3, 1), x).chain
        reference = jacobian(copy.deepcopy(flat).double(), x.double())
        torch.testing.assert_close(tangent.tangent_kernel(flat, x), (reference @ reference.T).float())

    def test_adding_the_gradient_in_place(self):
        model, x = models.fcn(6, 8, 3), torch.randn(5, 6)
        parameters = {name: p for name, p in model.named_parameters()}
        before = {name: p.detach().clone() for name, p in parameters.items()}
        linearization = tangent.linearize(model, x)
        cotangent = torch.randn(5, 1)
        expected = linearization.vjp(cotangent)
        with torch.no_grad():
            linearization.norm_and_vjp(cotangent, add_to=parameters)
        for name, value in parameters.items():
            torch.testing.assert_close(value.detach(), before[name] + expected[name])
