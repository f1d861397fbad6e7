"""The expansions of a network: against the Hessian of automatic differentiation, closed forms and frozen gates."""

import math
import warnings

import numpy as np
import pytest
import torch
from catapults import models, tangent, training
from catapults.expansion import ChainExpansion, Expansion, FrozenGates, expansion, frozen_gates
from torch import nn
from torch.func import functional_call, hessian, jacrev

FLOAT64 = {"rtol": 1e-10, "atol": 1e-12}


class Products(nn.Module):
    """No chain: a product of two layers, and a parameter that is not trained."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 3)
        self.one.bias.requires_grad_(False)

    def forward(self, x):
        return torch.tanh(self.one(x)) * self.other(x)


NETWORKS = {
    "three layers": (lambda: models.fcn(4, 3, 3, gain=math.sqrt(2)), (4,), ChainExpansion),
    "four layers, two outputs": (lambda: models.fcn(4, 3, 4, 2, gain=math.sqrt(2)), (4,), ChainExpansion),
    "biases": (lambda: models.fcn(4, 3, 3, 2, bias=True), (4,), ChainExpansion),
    "PyTorch's": (lambda: models.fcn(4, 3, 3, bias=True, parameterization="pytorch"), (2, 2), ChainExpansion),
    "convolutional": (lambda: models.cnn(1, 3, 2, 2), (1, 3, 3), Expansion),
    "GELU": (lambda: nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)), (4,), Expansion),
    "products": (Products, (4,), Expansion),
}


def drawn(name: str) -> tuple[nn.Module, torch.Tensor, type]:
    torch.manual_seed(3)
    make, shape, kind = NETWORKS[name]
    return make().double(), torch.randn(5, *shape, dtype=torch.float64), kind


def changed(model: nn.Module, size: float = 0.7) -> torch.Tensor:
    """Draw the parameters that are trained; as one vector."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, size)
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def derivatives(model: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """f, (m,), J, (m, p), and the second derivatives, (m, p, p), of all outputs by one vector of parameters."""
    named = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    start = torch.cat([p.flatten() for p in named.values()])

    def outputs(vector: torch.Tensor) -> torch.Tensor:
        pieces = vector.split([p.numel() for p in named.values()])
        weights = {name: piece.view_as(p) for (name, p), piece in zip(named.items(), pieces, strict=True)}
        return functional_call(model, weights, (inputs,)).flatten()

    return outputs(start), jacrev(outputs)(start), hessian(outputs)(start)


@pytest.mark.parametrize("name", NETWORKS)
class TestAgainstTheHessian:
    @pytest.mark.parametrize("order", [1, 2])
    def test_outputs_and_kernel_away_from_the_start(self, name, order):
        model, inputs, kind = drawn(name)
        f, J, H = derivatives(model, inputs)
        other = expansion(model, order)
        assert type(other) is kind
        delta = changed(other)
        quadratic = order == 2
        expected = f + J @ delta + quadratic * torch.einsum("mpq,p,q->m", H, delta, delta) / 2
        outputs = other(inputs)
        assert outputs.shape == model(inputs).shape
        torch.testing.assert_close(outputs.detach().flatten(), expected, **FLOAT64)
        moved = J + quadratic * H @ delta
        torch.testing.assert_close(tangent.tangent_kernel(other, inputs), moved @ moved.T, **FLOAT64)

    def test_at_the_start_it_is_the_network(self, name):
        model, inputs, _ = drawn(name)
        for order in (1, 2):
            other = expansion(model, order)
            torch.testing.assert_close(other(inputs), model(inputs), **FLOAT64)
            kernels = (tangent.tangent_kernel(m, inputs) for m in (other, model))
            torch.testing.assert_close(*kernels, **FLOAT64)

    def test_leaves_the_network_as_it_is(self, name):
        model, inputs, _ = drawn(name)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        other = expansion(model, 2)
        changed(other)
        training.gradient_descent(other, inputs, torch.zeros_like(model(inputs)), "0.1 eta_crit", 2, 1)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("order", [1, 2])
def test_the_layers_of_a_chain_give_what_forward_derivatives_give(bias, order):
    torch.manual_seed(1)
    model, inputs = models.fcn(6, 5, 4, 2, bias=bias).double(), torch.randn(7, 6, dtype=torch.float64)
    chain, general = expansion(model, order), Expansion(model, order)
    plan = tangent.layers(chain, inputs)
    assert plan.general == () and len(plan.structured) == 4 * (1 + bias)  # no gradient of a single sample is formed
    targets = torch.randn(7, 2, dtype=torch.float64)
    histories = [training.gradient_descent(m, inputs, targets, "1.2 eta_crit", 6, 1) for m in (chain, general)]
    for column in ("loss", "kernel_norm"):
        np.testing.assert_allclose(*(getattr(h, column) for h in histories), rtol=1e-8)


class TestTraining:
    """Small networks on random numbers."""

    @pytest.fixture
    def problem(self):
        torch.manual_seed(0)
        inputs = torch.randn(12, 10, dtype=torch.float64)
        return models.fcn(10, 40, 3, gain=math.sqrt(2)).double(), inputs, torch.randn(12, dtype=torch.float64)

    def test_the_linear_model_has_the_closed_form(self, problem):
        model, inputs, targets = problem
        kernel = tangent.tangent_kernel(model, inputs)
        rate = 0.9 * len(inputs) / torch.linalg.eigvalsh(kernel)[-1].item()
        history = training.gradient_descent(expansion(model, 1), inputs, targets, rate, 20, 2)
        step = torch.eye(12, dtype=torch.float64) - 2 * rate / 12 * kernel
        residual = model(inputs).detach().squeeze(1) - targets
        expected = [(torch.linalg.matrix_power(step, t) @ residual).square().mean().item() for t in range(21)]
        np.testing.assert_allclose(history.loss, expected, rtol=1e-9)
        np.testing.assert_allclose(history.kernel_norm, history.kernel_norm[0], rtol=1e-10)

    @pytest.mark.parametrize(("multiple", "diverges"), [(0.98, False), (1.02, True)])
    def test_the_linear_model_diverges_just_above_the_critical_rate(self, problem, multiple, diverges):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", training.Diverged)
            history = training.gradient_descent(expansion(problem[0], 1), *problem[1:], f"{multiple} eta_crit", 600)
        assert history.diverged == diverges

    @pytest.mark.parametrize("bias", [False, True])
    def test_two_layers_with_frozen_gates_are_the_quadratic_model(self, bias):
        torch.manual_seed(0)
        model, inputs = models.fcn(6, 30, 2, bias=bias).double(), torch.randn(9, 6, dtype=torch.float64)
        targets = torch.randn(9, dtype=torch.float64)
        both = [expansion(model, 2), frozen_gates(model)]
        histories = [training.gradient_descent(m, inputs, targets, "1.4 eta_crit", 15, 2) for m in both]
        for column in ("loss", "kernel_norm"):
            np.testing.assert_allclose(*(getattr(h, column) for h in histories), rtol=1e-9)
        assert np.ptp(histories[0].kernel_norm) > 0.1 * histories[0].kernel_norm[0]
        network = training.gradient_descent(model, inputs, targets, "1.4 eta_crit", 15, 2)
        assert np.abs(network.loss - histories[0].loss).max() > 1e-3  # whose gates move

    def test_three_layers_with_frozen_gates_are_not(self, problem):
        losses = [
            training.gradient_descent(m, *problem[1:], "1.2 eta_crit", 15, 2).loss
            for m in (expansion(problem[0], 2), frozen_gates(problem[0]))
        ]
        assert np.abs(losses[0] - losses[1]).max() > 1e-3


def test_a_model_of_degree_two_is_its_own_expansion():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double(), torch.randn(5, 4, dtype=torch.float64)
    other = expansion(model, 2)
    with torch.no_grad():
        for ours, theirs in zip([p for p in other.parameters() if p.requires_grad], model.parameters(), strict=True):
            change = torch.randn_like(theirs)
            theirs += change
            ours.copy_(change.view_as(ours))
    torch.testing.assert_close(other(inputs), model(inputs), **FLOAT64)


def test_gates_are_those_of_the_start():
    torch.manual_seed(0)
    model, inputs = models.fcn(4, 8, 3).double(), torch.randn(5, 4, dtype=torch.float64)
    frozen = frozen_gates(model)
    assert isinstance(frozen, FrozenGates)
    torch.testing.assert_close(frozen(inputs), model(inputs), **FLOAT64)
    with torch.no_grad():
        for parameter in frozen.model.parameters():
            parameter.neg_()  # three layers change the sign; the gates of the network would all turn
    torch.testing.assert_close(frozen(inputs), -model(inputs), **FLOAT64)


class TestRefuses:
    @pytest.mark.parametrize("order", [0, 3, 1.5, "2", True])
    def test_another_order(self, order, no_type_checks):
        with pytest.raises(ValueError, match=r"^order = .*: allowed are whole numbers from 1 to 2"):
            expansion(models.fcn(3, 2, 2), order)

    def test_a_model_without_parameters_to_train(self):
        with pytest.raises(ValueError, match="^model: none of its parameters requires a gradient"):
            expansion(models.fcn(3, 2, 2).requires_grad_(False), 1)

    def test_frozen_gates_of_another_model(self):
        with pytest.raises(ValueError, match="^model: is no chain of linear layers and ReLUs"):
            frozen_gates(models.cnn(1, 4, 2, 2))

    def test_a_model_without_forward_derivatives(self):
        class Odd(torch.autograd.Function):
            generate_vmap_rule = True

            @staticmethod
            def forward(x):
                return x * 2

            @staticmethod
            def setup_context(ctx, inputs, output):
                pass

            @staticmethod
            def backward(ctx, gradient):
                return gradient * 2

        class Layer(nn.Linear):
            def forward(self, x):
                return Odd.apply(super().forward(x))

        with pytest.raises(ValueError, match="^model: has no forward-mode derivative of order 2"):
            expansion(Layer(3, 2), 2)(torch.randn(4, 3))
