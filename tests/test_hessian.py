import copy
import math

import curvlinops
import pytest
import torch
from catapults import models, tangent
from catapults.tangent import hessian
from catapults.tangent.eigenspace import NotFinite
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

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


def test_without_the_kernels_eigenvector_the_eigenvalue_is_the_same(problem, monkeypatch):
    model, inputs, targets = problem
    expected = hessian.top_eigenpair(model, inputs, targets).value
    monkeypatch.setattr(hessian, "top_eigenpairs", lambda *arguments: (_ for _ in ()).throw(RuntimeError))
    assert hessian.top_eigenpair(model, inputs, targets).value == pytest.approx(expected, rel=1e-3)


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
    size = sum(p.numel() for p in model.parameters())
    with pytest.raises(ValueError, match=r"start: shape \(3,\); allowed is"):
        hessian.top_eigenpair(model, inputs, targets, start=torch.ones(3))
    with pytest.raises(ValueError, match="start: has entries that are not finite"):
        hessian.top_eigenpair(model, inputs, targets, start=torch.full((size,), math.nan))
    with pytest.raises(ValueError, match="max_products = 0: allowed are whole numbers of at least 1"):
        hessian.top_eigenpair(model, inputs, targets, max_products=0)
    with pytest.raises(
        ValueError, match=r"targets: shape \(10, 2\); allowed is as many a sample as outputs, \(10, 1\)"
    ):
        hessian.top_eigenpair(model, inputs, torch.ones(10, 2))
    with pytest.raises(NotFinite, match="Hessian is not finite"):
        hessian.top_eigenpair(model, inputs, targets * math.inf, start=torch.ones(size))


def test_without_convergence_the_best_estimate_is_returned_with_a_warning(problem):
    model, inputs, targets = problem
    exact = hessian.top_eigenpair(model, inputs, targets, tolerance=1e-10)
    with pytest.warns(RuntimeWarning, match="max_products = 2 do not suffice for a tolerance of 0"):
        estimate = hessian.top_eigenpair(model, inputs, targets, tolerance=0.0, max_products=2)
    assert exact.converged and not estimate.converged and estimate.products == 2
    assert 0.5 * exact.value < estimate.value <= exact.value * (1 + 1e-9)


class TestOtherModels:
    """Against the whole Hessian in float64."""

    class Attention(nn.Module):
        """Fused, it has no second derivative."""

        def __init__(self):
            super().__init__()
            self.project, self.last = nn.Linear(4, 12), nn.Linear(4, 1)

        def forward(self, x):
            query, key, value = self.project(x)[:, None].chunk(3, 3)
            return self.last(nn.functional.scaled_dot_product_attention(query, key, value)[:, 0].mean(1))

    class Words(nn.Module):
        def __init__(self, bag: bool):
            super().__init__()
            self.bag = bag
            self.table = (nn.EmbeddingBag if bag else nn.Embedding)(9, 4, sparse=True)
            self.last = nn.Linear(4, 1)

        def forward(self, x):
            return self.last(torch.tanh(self.table(x) if self.bag else self.table(x).mean(1)))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
            self.last = nn.Linear(4, 1)

        def forward(self, x):
            return self.last(self.layer(x).mean(1))

    MODELS = {
        "fused attention": (Attention, lambda: torch.randn(5, 3, 4)),
        "a transformer's layer": (Encoder, lambda: torch.randn(5, 3, 4)),
        "a transformer's layer, eval mode": (lambda: TestOtherModels.Encoder().eval(), lambda: torch.randn(5, 3, 4)),
        "sparse embedding": (lambda: TestOtherModels.Words(False), lambda: torch.randint(0, 9, (5, 3))),
    }

    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.filterwarnings("ignore:.*scaled_dot_product", "ignore:There is a performance drop")
    def test_the_largest_eigenvalue(self, name):
        make, draw = self.MODELS[name]
        model, inputs, targets = make(), draw(), torch.randn(5)
        exact = copy.deepcopy(model).double()
        for module in exact.modules():
            module.sparse = False
        parameters = list(exact.parameters())
        inputs_64 = inputs.double() if inputs.is_floating_point() else inputs
        with sdpa_kernel(SDPBackend.MATH):
            loss = (exact(inputs_64)[:, 0] - targets).square().mean()
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        rows = [
            torch.cat(
                [
                    part.flatten()
                    for part in torch.autograd.grad(entry, parameters, retain_graph=True, materialize_grads=True)
                ]
            )
            for of_parameter in gradient
            for entry in of_parameter.flatten()
        ]
        reference = torch.linalg.eigvalsh(torch.stack(rows))[-1].item()
        assert hessian.top_eigenpair(model, inputs, targets).value == pytest.approx(reference, rel=1e-3)
        assert [getattr(m, "sparse", None) for m in model.modules()] == [
            getattr(m, "sparse", None) for m in make().modules()
        ]

    @pytest.mark.filterwarnings("ignore:There is a performance drop")
    def test_an_operation_without_a_second_derivative(self):
        class Once(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                return 2 * x

            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(context, gradient):
                return 2 * gradient

        class Model(nn.Linear):
            def forward(self, x):
                return Once.apply(super().forward(x))

        words = torch.randint(0, 9, (5, 3))
        for model, inputs in ((Model(3, 1), torch.randn(5, 3)), (TestOtherModels.Words(True), words)):
            with pytest.raises(ValueError, match="model: cannot be differentiated twice .*; allowed are operations"):
                hessian.critical_learning_rate(model, inputs, torch.ones(5))

    def test_a_model_of_which_nothing_reaches_the_outputs(self):
        model = nn.Linear(3, 1)
        model.requires_grad_(False).spare = nn.Parameter(torch.ones(2))
        assert hessian.top_eigenpair(model, torch.randn(5, 3), torch.ones(5)).value == 0
        assert hessian.critical_learning_rate(model, torch.randn(5, 3), torch.ones(5)) == math.inf


@pytest.mark.parametrize("kind", [torch.float64, torch.int64, torch.uint8, torch.bool])
def test_targets_of_other_types(problem, kind):
    model, inputs, _ = problem
    model, inputs, labels = model.float(), inputs.float(), torch.arange(10) % 2
    expected = hessian.critical_learning_rate(model, inputs, labels.float())
    assert hessian.critical_learning_rate(model, inputs, labels.to(kind)) == expected
    with pytest.raises(ValueError, match="targets: torch.complex64; allowed are real numbers"):
        hessian.critical_learning_rate(model, inputs, labels.to(torch.complex64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(problem, dtype):
    model, inputs, targets = (part.to(dtype) for part in problem)
    single = copy.deepcopy(model).float()
    expected = hessian.critical_learning_rate(single, inputs.float(), targets.float())
    assert hessian.critical_learning_rate(model, inputs, targets, tolerance=1e-2) == pytest.approx(expected, rel=0.1)
