import math

import curvlinops
import pytest
import torch
from catapults import models, tangent
from catapults.tangent import hessian
from scipy.sparse.linalg import eigsh
from torch import nn

NETWORKS = {
    "fcn": (lambda: models.fcn(6, 12, 3, bias=True), (6,)),
    "cnn": (lambda: models.cnn(2, 4, 5, 3), (2, 4, 4)),
    "smooth": (lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 1)), (6,)),
}


@pytest.fixture(params=NETWORKS)
def problem(request):
    build, shape = NETWORKS[request.param]
    model = build().double()
    return model, torch.randn(10, *shape, dtype=torch.float64), torch.randn(10, dtype=torch.float64)


def test_the_largest_eigenvalue_is_curvlinops(problem):
    model, inputs, targets = problem
    data = [(inputs, targets[:, None])]
    operator = curvlinops.HessianLinearOperator(model, nn.MSELoss(), list(model.parameters()), data)
    reference = eigsh(operator.to_scipy(), k=1, which="LA")[0][0]
    assert hessian.top_eigenpair(model, inputs, targets).value == pytest.approx(reference, rel=1e-4)
    assert hessian.critical_learning_rate(model, inputs, targets) == pytest.approx(2 / reference, rel=1e-4)


def test_the_vector_is_an_eigenvector_and_a_warm_start(problem):
    model, inputs, targets = problem
    pair = hessian.top_eigenpair(model, inputs, targets, tolerance=1e-10)
    again = hessian.top_eigenpair(model, inputs, targets, start=pair.vector)
    assert again.value == pytest.approx(pair.value, rel=1e-6)
    assert again.products <= min(2, pair.products)
    assert abs(torch.dot(pair.vector / pair.vector.norm(), again.vector)) == pytest.approx(1, abs=1e-4)


def test_the_kernel_is_exact_for_a_linear_model():
    model, inputs = nn.Linear(5, 1).double(), torch.randn(8, 5, dtype=torch.float64)
    exact = hessian.critical_learning_rate(model, inputs, torch.randn(8, dtype=torch.float64))
    assert exact == pytest.approx(tangent.critical_learning_rate(tangent.tangent_kernel(model, inputs), 8))


def test_the_kernels_direction_needs_few_products():
    torch.manual_seed(0)
    model, inputs, targets = models.fcn(50, 512, 3), torch.randn(64, 50), torch.randn(64)
    assert hessian.top_eigenpair(model, inputs, targets).products <= 4


@pytest.mark.parametrize("seed", range(20))
def test_small_networks_whose_top_direction_is_not_the_kernels(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    inputs, targets = torch.randn(6, 3, dtype=torch.float64), 5 * torch.randn(6, dtype=torch.float64)
    parameters = dict(model.named_parameters())

    def loss(flat):
        pieces = flat.split([p.numel() for p in parameters.values()])
        values = {name: piece.view_as(p) for piece, (name, p) in zip(pieces, parameters.items(), strict=True)}
        return (torch.func.functional_call(model, values, (inputs,))[:, 0] - targets).square().mean()

    H = torch.func.hessian(loss)(torch.cat([p.detach().flatten() for p in parameters.values()]))
    reference = torch.linalg.eigvalsh(H)[-1].item()
    assert hessian.top_eigenpair(model, inputs, targets).value == pytest.approx(reference, rel=1e-3)


def test_a_zero_network_has_a_hessian_nevertheless():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert hessian.top_eigenpair(model, torch.eye(2), torch.ones(2)).value > 0.1


def test_an_unused_parameter():
    model = nn.Linear(2, 1)
    model.unused = nn.Parameter(torch.ones(3))
    assert hessian.critical_learning_rate(model, torch.randn(4, 2), torch.ones(4)) > 0


def test_no_positive_curvature():
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    assert hessian.critical_learning_rate(model, torch.zeros(3, 2), torch.ones(3)) == math.inf


def test_errors(problem):
    model, inputs, targets = problem
    with pytest.raises(ValueError, match=r"start: shape \(3,\); allowed is"):
        hessian.top_eigenpair(model, inputs, targets, start=torch.ones(3))
    with pytest.raises(RuntimeError, match="max_products = 1: not enough"):
        hessian.top_eigenpair(model, inputs, targets, tolerance=0.0, max_products=1)
