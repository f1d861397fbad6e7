"""The sharpness of any loss: beside explicit matrices by float64 autograd, and beside curvlinops."""

import pytest
import torch
from catapults import models
from catapults.monitor import Curvature, Threshold
from curvlinops import GGNLinearOperator, HessianLinearOperator
from torch import nn
from torch.func import functional_call, hessian, jacrev
from torch.nn import functional as F


class Tokens(nn.Module):
    """Scores of the next of seven tokens at each of five positions."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.out = nn.Embedding(7, 6), nn.LayerNorm(6), nn.Linear(6, 7)

    def forward(self, x):
        return self.out(torch.tanh(self.norm(self.table(x)).cumsum(1)))


def of_tokens(outputs, targets):
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def batch_contrast(outputs, targets):
    """Samples are told from one another: convex, and not apart."""
    return torch.logsumexp(outputs[:, 0], 0) - outputs[:, 0].mean()


def problems():
    torch.manual_seed(0)
    x = torch.randn(12, 6)
    labels = torch.randint(4, (12,))
    convolution = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.GELU(), nn.Flatten(), nn.Linear(12, 4))
    return {
        "MSE": (models.fcn(6, 8, 3), nn.MSELoss(), x, torch.randn(12)[:, None]),
        "MSE, three outputs": (nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), nn.MSELoss(), x, x[:, :3]),
        "cross-entropy": (nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4)), nn.CrossEntropyLoss(), x, labels),
        "cross-entropy, sum": (nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)),
                               nn.CrossEntropyLoss(reduction="sum", label_smoothing=0.1), x, labels),
        "logistic": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)), nn.BCEWithLogitsLoss(), x,
                     labels[:, None].float().clamp(max=1)),
        "samples mixed by the loss": (nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)), batch_contrast,
                                      x, labels),
        "batch norm": (convolution, nn.CrossEntropyLoss(), torch.randn(12, 1, 4, 4), labels),
        "tokens": (Tokens(), of_tokens, torch.randint(7, (6, 5)), torch.randint(7, (6, 5))),
    }  # fmt: skip


def doubled(model, x, y):
    in_double = [t.double() if t.is_floating_point() else t for t in (x, y)]
    return model.double(), *in_double


def step_for(model, D=1.0, decay=0.0) -> Threshold:
    parameters = [p for p in model.parameters() if p.requires_grad]
    D = D if isinstance(D, list) else [D] * len(parameters)
    return Threshold(0.1, 2.0, parameters, D, [decay] * len(parameters))


def explicit(model, loss, x, y, matrix):
    """The matrix itself, from all of torch.func's derivatives."""
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    sizes, shapes = [p.numel() for p in parameters.values()], [p.shape for p in parameters.values()]

    def outputs(vector):
        pieces = [v.view(shape) for v, shape in zip(vector.split(sizes), shapes, strict=True)]
        state = dict(zip(parameters, pieces, strict=True)) | {k: b.clone() for k, b in model.named_buffers()}
        return functional_call(model, state, (x,))

    w = torch.cat([p.flatten() for p in parameters.values()])
    if matrix == "hessian":
        return torch.autograd.functional.hessian(lambda vector: loss(outputs(vector), y), w)
    f = outputs(w)
    J = jacrev(outputs)(w).reshape(f.numel(), -1)
    H = hessian(lambda f: loss(f, y))(f).reshape(f.numel(), f.numel())
    return J.T @ H @ J


@pytest.mark.parametrize("matrix", ["gauss-newton", "hessian"])
@pytest.mark.parametrize("name", problems())
def test_is_the_largest_eigenvalue(name, matrix):
    model, loss, x, y = problems()[name]
    model, x, y = doubled(model, x, y)
    A = explicit(model, loss, x, y, matrix)
    measured = Curvature(model, loss, matrix, tolerance=1e-9)([(x, y)], step_for(model))
    assert measured.value == pytest.approx(torch.linalg.eigvalsh((A + A.T) / 2)[-1].item(), rel=1e-5)
    assert measured.loss == pytest.approx(loss(model(x), y).item()) and measured.converged
    structured = matrix == "gauss-newton" and name not in ("samples mixed by the loss", "batch norm", "tokens")
    assert (measured.products == 0) == structured


@pytest.mark.parametrize("name", ["MSE, three outputs", "cross-entropy", "batch norm"])
def test_what_an_optimiser_sees(name):
    """D^1/2 (G + W) D^1/2 with another D for each weight."""
    model, loss, x, y = problems()[name]
    model, x, y = doubled(model, x, y)
    D = [torch.rand_like(p.detach()) + 0.1 for p in model.parameters()]
    step = step_for(model, D, 0.3)
    root = torch.cat([d.flatten() for d in D]).sqrt()
    A = explicit(model, loss, x, y, "gauss-newton") + 0.3 * torch.eye(len(root), dtype=torch.float64)
    measured = Curvature(model, loss, tolerance=1e-6)([(x, y)], step)
    assert measured.value == pytest.approx(torch.linalg.eigvalsh(root[:, None] * A * root)[-1].item(), rel=1e-5)
    uniform = Curvature(model, loss, tolerance=1e-6)([(x, y)], step_for(model, 0.5, 0.3))
    assert uniform.value == pytest.approx(0.5 * torch.linalg.eigvalsh(A)[-1].item(), rel=1e-5)


@pytest.mark.parametrize("name", ["MSE, three outputs", "cross-entropy"])
def test_is_that_of_curvlinops(name):
    model, loss, x, y = problems()[name]
    parameters = list(model.parameters())
    for matrix, peer in (("gauss-newton", GGNLinearOperator), ("hessian", HessianLinearOperator)):
        operator = peer(model, loss, parameters, [(x, y)])
        A = operator @ torch.eye(operator.shape[1])
        measured = Curvature(model, loss, matrix, tolerance=1e-5)([(x, y)], step_for(model))
        assert measured.value == pytest.approx(torch.linalg.eigvalsh((A + A.T) / 2)[-1].item(), rel=1e-3)


def test_accumulated_batches_count_as_one():
    model, loss, x, y = problems()["cross-entropy"]
    whole = Curvature(model, loss, tolerance=1e-5)([(x, y)], step_for(model))
    parts = Curvature(model, loss, tolerance=1e-5)([(x[:6], y[:6]), (x[6:], y[6:])], step_for(model))
    assert parts.value == pytest.approx(whole.value, rel=1e-3) and parts.products > 0
    assert parts.loss == pytest.approx(whole.loss)


def test_only_parameters_of_the_step_count():
    model, loss, x, y = problems()["MSE, three outputs"]
    model, x, y = doubled(model, x, y)
    last = Threshold(0.1, 2.0, list(model[2].parameters()), [1.0, 1.0], [0.0, 0.0])
    measured = Curvature(model, loss, tolerance=1e-6)([(x, y)], last)
    model[0].requires_grad_(False)
    A = explicit(model, loss, x, y, "gauss-newton")
    assert measured.value == pytest.approx(torch.linalg.eigvalsh(A)[-1].item(), rel=1e-5)


def test_warm_start_finds_an_eigenvalue_that_has_overtaken():
    """From the eigenvector of one batch to a batch on which another one is the largest."""
    model = nn.Linear(2, 1, bias=False).double()
    a = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    measure = Curvature(model, nn.MSELoss(), "hessian", tolerance=1e-4)
    for x in (a, a.flip(1) * torch.tensor([1.0, 2.0])):
        expected = torch.linalg.eigvalsh(x.T @ x)[-1].item()  # 2/n with n = 2
        assert measure([(x, torch.zeros(2, 1).double())], step_for(model)).value == pytest.approx(expected, rel=1e-3)


def test_dropout_is_held_and_random_numbers_are_as_before():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.Dropout(), nn.Linear(30, 1))
    x, y = torch.randn(9, 6), torch.randn(9, 1)
    before = torch.get_rng_state()
    measured = Curvature(model, nn.MSELoss(), tolerance=1e-4)([(x, y)], step_for(model))
    assert torch.equal(before, torch.get_rng_state())
    A = explicit_with_masks(model, x)
    torch.set_rng_state(before)
    assert measured.value == pytest.approx(torch.linalg.eigvalsh(A)[-1].item(), rel=1e-3)


def explicit_with_masks(model, x):
    """2/n J^T J with the very mask that comes next, for one output."""
    outputs = model(x)
    rows = [torch.autograd.grad(f, list(model.parameters()), retain_graph=True) for f in outputs[:, 0]]
    J = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    return 2 / len(x) * J.T @ J


class TestRefuses:
    def measured(self, loss, model=None, outputs=1, **options):
        model = model or nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, outputs))
        return Curvature(model, loss, **options)([(torch.randn(9, 6), torch.randn(9, outputs))], step_for(model))

    def test_a_loss_that_is_no_number(self):
        with pytest.raises(ValueError, match=r"loss: returns a tensor of shape \(9, 1\); allowed is one real number"):
            self.measured(nn.MSELoss(reduction="none"))
        with pytest.raises(ValueError, match="loss: returns float"):
            self.measured(lambda f, y: 3.0)

    def test_a_loss_that_does_not_depend_on_the_outputs(self):
        with pytest.raises(ValueError, match="loss: its value has no gradient"):
            self.measured(lambda f, y: y.mean())

    @pytest.mark.parametrize("outputs", [1, 3])
    def test_a_loss_that_is_not_convex(self, outputs):
        with pytest.raises(ValueError, match="loss: is not convex"):
            self.measured(lambda f, y: -f.square().mean(), outputs=outputs)
        with pytest.raises(ValueError, match="loss: is not convex"):
            self.measured(lambda f, y: -f.square().mean() - 0 * f.mean(0).square().sum(), outputs=20)
        self.measured(lambda f, y: -f.square().mean(), outputs=outputs, matrix="hessian")

    def test_half_precision(self):
        model = nn.Linear(6, 1).to(torch.bfloat16)
        with pytest.raises(ValueError, match="has parameters of torch.bfloat16; allowed are float32"):
            self.measured(nn.MSELoss(), model)

    def test_outputs_that_are_no_tensor(self):
        class Pair(nn.Linear):
            def forward(self, x):
                return super().forward(x), x

        with pytest.raises(ValueError, match="model: its output is a tuple; allowed is a tensor, or forward="):
            self.measured(nn.MSELoss(), Pair(6, 1))
        measured = self.measured(nn.MSELoss(), Pair(6, 1), forward=lambda model, x: model(x)[0])
        assert measured.value > 0

    def test_a_model_that_cannot_be_differentiated_twice(self):
        class Once(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return 2 * x

            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(ctx, g):
                return 2 * g

        class Net(nn.Linear):
            def forward(self, x):
                return Once.apply(super().forward(x))

        with pytest.raises(ValueError, match="cannot be differentiated twice"):
            self.measured(nn.MSELoss(), Net(6, 1), matrix="hessian")

    def test_weights_that_are_not_finite(self):
        model = nn.Linear(6, 1)
        with torch.no_grad():
            model.weight[0, 0] = torch.nan
        for matrix in ("gauss-newton", "hessian"):
            with pytest.raises(ValueError, match="not finite"):
                self.measured(nn.MSELoss(), model, matrix=matrix)


def test_loss_that_is_linear_in_the_outputs_has_no_curvature():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    step = step_for(model)
    measured = Curvature(model, lambda f, y: (f - y).mean())([(torch.randn(9, 6), torch.randn(9, 1))], step)
    assert measured.value == 0 and step.critical(measured.value) == float("inf")
