import pytest
import torch
from catapults import models, tangent
from catapults.tangent import factored, hessian
from catapults.tangent.factored import FactoredHessian, applies
from torch import nn

DOUBLE = {"dtype": torch.float64}


def frozen(model, *indices):
    for index in indices:
        model[index].requires_grad_(False)
    return model


def without_weights(model, *indices):
    for index in indices:
        model[index].weight.requires_grad_(False)
    return model


NETWORKS = {
    "NTK": lambda: models.fcn(6, 5, 3),
    "biases": lambda: models.fcn(6, 5, 4, bias=True, gain=1.4),
    "three outputs": lambda: models.fcn(6, 5, 3, 3, bias=True),
    "PyTorch": lambda: models.fcn(6, 5, 3, bias=True, parameterization="pytorch"),
    "one layer": lambda: nn.Linear(6, 2),
    "two linear layers in a row": lambda: nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1)),
    "ReLU twice": lambda: nn.Sequential(nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.ReLU(), nn.Linear(5, 1)),
    "first layer fixed": lambda: frozen(models.fcn(6, 5, 3, bias=True), 1),
    "only biases trained": lambda: without_weights(models.fcn(6, 5, 3, bias=True), 1, 3),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(6, 5), nn.ReLU()), nn.Linear(5, 1)),
}


@pytest.fixture(params=NETWORKS)
def problem(request):
    """A network, inputs and targets; its Hessian and its Jacobian by autograd, over all trainable parameters."""
    torch.manual_seed(1)
    model, inputs = NETWORKS[request.param]().double(), torch.randn(7, 6, **DOUBLE)
    targets = torch.randn(model(inputs).shape, **DOUBLE)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def outputs(flat):
        pieces = flat.split([p.numel() for p in parameters.values()])
        values = {name: piece.view_as(p) for piece, (name, p) in zip(pieces, parameters.items(), strict=True)}
        return torch.func.functional_call(model, values, (inputs,))

    flat = torch.cat([p.detach().flatten() for p in parameters.values()])
    H = torch.func.hessian(lambda w: (outputs(w) - targets).square().mean())(flat)
    linearization = tangent.linearize(model, inputs)
    assert linearization.layers.chain
    return FactoredHessian(model, linearization, targets), H, torch.func.jacrev(outputs)(flat).flatten(0, 1)


def test_products_are_those_of_the_hessian_by_autograd(problem):
    ours, H, _ = problem
    for q in torch.randn(3, ours.size, **DOUBLE):
        torch.testing.assert_close(ours.vector(ours.product(ours.metric(q))), H @ ours.vector(q))


def test_the_metric_is_the_inner_product_of_the_vectors(problem):
    ours, _, _ = problem
    q, other = torch.randn(2, ours.size, **DOUBLE)
    torch.testing.assert_close(q @ ours.metric(other), ours.vector(q) @ ours.vector(other))


def test_the_start_is_the_jacobian_times_a_cotangent(problem):
    ours, _, J = problem
    cotangent = torch.randn(7, len(J) // 7, **DOUBLE)
    torch.testing.assert_close(ours.vector(ours.along(cotangent)), J.T @ cotangent.flatten())


def test_the_hessians_range_is_within_what_factors_describe(problem):
    """So that Lanczos iteration among them finds every eigenvalue but zero."""
    ours, H, _ = problem
    S = torch.stack([ours.vector(q) for q in torch.eye(ours.size, **DOUBLE)])
    projected = torch.linalg.lstsq(S.T, H, driver="gelsd").solution
    torch.testing.assert_close(S.T @ projected, H)


@pytest.mark.parametrize("depth, bias", [(2, True), (3, False), (5, False)])
def test_the_largest_eigenvalue_is_that_of_the_other_route(depth, bias, monkeypatch):
    torch.manual_seed(0)
    model, inputs = models.fcn(30, 200, depth, bias=bias, gain=1.4).double(), torch.randn(8, 30, **DOUBLE)
    targets = torch.randn(8, **DOUBLE)
    assert applies(model, tangent.linearize(model, inputs))
    ours = hessian.top_eigenpair(model, inputs, targets, tolerance=1e-10)
    monkeypatch.setattr(factored, "applies", lambda *_: False)
    theirs = hessian.top_eigenpair(model, inputs, targets, tolerance=1e-10)
    assert ours.value == pytest.approx(theirs.value, rel=1e-9) and ours.products == theirs.products
    torch.testing.assert_close(ours.vector, theirs.vector)


def test_a_known_linearization_gives_the_same():
    torch.manual_seed(0)
    model, inputs, targets = models.fcn(30, 200, 3), torch.randn(8, 30), torch.randn(8)
    known = tangent.linearize(model, inputs)
    first, second = (hessian.critical_learning_rate(model, inputs, targets, linearization=k) for k in (None, known))
    assert first == second


def test_a_kernel_of_zeros_does_not_make_the_hessian_zero():
    model = nn.Sequential(nn.Linear(30, 200, bias=False), nn.Linear(200, 1, bias=False))
    inputs, targets = torch.randn(8, 30), torch.ones(8)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    expected = 2 / 8 * inputs.sum(0).norm().item()  # of the bilinear form -2/n sum_i y_i v W x_i in v and W
    assert hessian.top_eigenpair(model, inputs, targets).value == pytest.approx(expected, rel=1e-3)


def test_the_hessian_of_a_dead_network_is_zero():
    model = models.fcn(30, 200, 3)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    dead = hessian.top_eigenpair(model, torch.randn(8, 30), torch.ones(8))
    assert dead.value == 0 and dead.vector.shape == (sum(p.numel() for p in model.parameters()),)


WIDE = {"fcn": lambda: models.fcn(6, 50, 3), "some layers": lambda: frozen(models.fcn(6, 50, 4), 1)}
OTHERS = {
    "layer between fixed": lambda: frozen(models.fcn(6, 50, 4), 3),
    "last layer fixed": lambda: frozen(models.fcn(6, 50, 3), -1),
    "convolutions": lambda: models.cnn(2, 4, 50, 3),
    "another nonlinearity": lambda: nn.Sequential(nn.Linear(6, 200), nn.Tanh(), nn.Linear(200, 1)),
}


@pytest.mark.parametrize(
    "build, expected", [*((b, True) for b in WIDE.values()), *((b, False) for b in OTHERS.values())]
)
def test_factors_are_for_fully_connected_networks(build, expected):
    model = build()
    inputs = torch.randn(2, 2, 4, 4) if isinstance(model[0], nn.Conv2d) else torch.randn(2, 6)
    assert applies(model, tangent.linearize(model, inputs)) is expected


def test_factors_are_chosen_where_they_are_fewer_numbers():
    model = models.fcn(6, 5, 3)  # 6 * 5 + 5 * 5 + 5 parameters; 6 + 5 + 5 + 5 + 5 + 1 factors a sample
    for n, fewer in ((2, True), (3, False)):
        assert applies(model, tangent.linearize(model, torch.randn(n, 6))) is fewer
