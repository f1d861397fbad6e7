import math

import pytest
import torch
from catapults import agop as module
from catapults import models
from catapults.agop import agop, alignment, factor
from catapults.data.synthetic import SYNTHETIC
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev, vmap

FLOAT64 = {"rtol": 1e-10, "atol": 1e-12}


def by_jacrev(model, inputs):
    """Eq. (5), sample by sample, through ``torch.func``."""
    parameters = dict(model.named_parameters())
    jacobian = vmap(jacrev(lambda x: functional_call(model, parameters, (x[None],))[0]))(inputs)
    rows = jacobian.reshape(len(inputs), -1, inputs[0].numel())
    return torch.einsum("ncd,nce->de", rows, rows) / len(inputs)


class Steps(nn.Linear):
    def forward(self, x):
        return super().forward(x.detach().sign())


NETWORKS = {
    "one output": (lambda: models.fcn(7, 16, 3), (7,)),
    "three outputs": (lambda: models.fcn(7, 16, 3, 3), (7,)),
    "convolutional": (lambda: models.cnn(2, 4, 6, 3, 2), (2, 4, 4)),
    "transformer": (lambda: models.vit(1, 8, 8, 1, 2), (1, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_is_the_mean_outer_product_of_the_jacobians(name):
    torch.manual_seed(0)
    network, shape = NETWORKS[name]
    model, inputs = network().double(), torch.randn(9, *shape, dtype=torch.float64)
    torch.testing.assert_close(agop(model, inputs), by_jacrev(model, inputs), **FLOAT64)


def test_some_samples_at_a_time_give_the_same(monkeypatch):
    torch.manual_seed(0)
    model, inputs = models.fcn(5, 8, 2, 2).double(), torch.randn(11, 5, dtype=torch.float64)
    whole = agop(model, inputs)
    monkeypatch.setattr(module, "_SAMPLES", 4)
    torch.testing.assert_close(agop(model, inputs), whole, **FLOAT64)


def test_a_linear_model_has_the_outer_product_of_its_weights():
    model = nn.Linear(4, 3).double()
    G = agop(model, torch.randn(6, 4, dtype=torch.float64))
    torch.testing.assert_close(G, model.weight.detach().T @ model.weight.detach(), **FLOAT64)


def test_leaves_the_model_as_it_is():
    model, inputs = models.fcn(5, 8, 2), torch.randn(6, 5)
    agop(model, inputs)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not inputs.requires_grad


def test_frozen_weights_do_not_matter():
    torch.manual_seed(0)
    model, inputs = models.fcn(5, 8, 2), torch.randn(6, 5)
    expected = agop(model, inputs)
    model.requires_grad_(False)
    torch.testing.assert_close(agop(model, inputs), expected)


@pytest.mark.parametrize("task", ["rank-2", "rank-3", "rank-4", "full-rank"])
def test_exact_egop_is_the_limit_of_the_agop_of_the_true_function(task):
    """The AGOP of f* by automatic differentiation, over many samples: an independent route to G*."""

    class TrueFunction(nn.Module):
        def forward(self, x):
            return SYNTHETIC[task].function(x)[:, None]

    samples = torch.randn(200_000, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    estimate, exact = agop(TrueFunction(), samples), SYNTHETIC[task].egop(12)
    assert (estimate - exact).abs().max() < 0.05 * exact.abs().max()
    assert alignment(estimate, exact) > 0.999


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.Linear(3, 1), torch.zeros(0, 3), r"inputs: shape \(0, 3\)"),
        (nn.Linear(3, 1), torch.zeros(2, 3, dtype=torch.int64), "torch.int64"),
        (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), torch.randn(4, 3), "BatchNorm1d"),
        (nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)), torch.randn(4, 3), "Dropout"),
        (nn.Sequential(nn.Linear(3, 2), nn.Softmax(0)), torch.randn(4, 3), "depends on the other samples"),
        (nn.Sequential(nn.Linear(3, 2), nn.Flatten(0)), torch.randn(4, 3), "its output for 2 samples"),
        (Steps(3, 2), torch.randn(4, 3), "not differentiable in its inputs"),
        (Steps(3, 2).requires_grad_(False), torch.randn(4, 3), "not differentiable in its inputs"),
    ],
)
def test_refuses(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        agop(model, inputs)


matrices = st.integers(1, 6).flatmap(
    lambda d: st.tuples(
        *[st.lists(st.floats(-10, 10, width=32), min_size=d * d, max_size=d * d) for _ in range(2)], st.just(d)
    )
)


def psd(entries, d):
    root = torch.tensor(entries, dtype=torch.float64).view(d, d)
    return root @ root.T


@settings(max_examples=60, deadline=None)
@given(matrices, st.floats(1e-100, 1e100))
def test_alignment_of_psd_matrices(drawn, scale):
    a, b = (psd(entries, drawn[2]) for entries in drawn[:2])
    if not a.any() or not b.any():
        assert math.isnan(alignment(a, b))
        return
    value = alignment(a, b)
    assert -1e-12 <= value <= 1
    assert alignment(a, a) == pytest.approx(1, abs=1e-12)
    assert alignment(a * scale, b) == pytest.approx(value, abs=1e-9)
    assert alignment(b, a) == pytest.approx(value, abs=1e-12)


def test_alignment_is_the_cosine_of_the_flattened_matrices():
    a, b = torch.randn(5, 5, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64)
    assert alignment(a, b) == pytest.approx(torch.cosine_similarity(a.flatten(), b.flatten(), 0).item())


def test_alignment_of_a_large_float32_matrix_keeps_its_digits():
    G = torch.randn(1500, 1500)
    assert alignment(G, G) == pytest.approx(1, abs=1e-12)


def test_alignment_refuses_different_shapes():
    with pytest.raises(ValueError, match=r"shapes \(2, 2\) and \(3, 3\)"):
        alignment(torch.eye(2), torch.eye(3))


@settings(max_examples=60, deadline=None)
@given(matrices, st.floats(1e-4, 0.5))
def test_a_factor_leaves_no_more_out_than_it_may_and_changes_alignments_no_more(drawn, rest):
    G, other = (psd(entries, drawn[2]) for entries in drawn[:2])
    if not G.any() or not other.any():
        return
    V = factor(G, rest)
    assert (G - V @ V.T).norm() <= (rest + 1e-9) * G.norm()
    values = torch.linalg.eigvalsh(G)
    fewer = values[: len(values) - V.shape[1] + 1].norm()  # what one column less would leave out
    assert fewer > (rest - 1e-9) * G.norm()
    assert alignment(V @ V.T, other) == pytest.approx(alignment(G, other), abs=rest + 1e-9)


@pytest.mark.parametrize("G", [torch.zeros(2, 2), torch.full((2, 2), torch.nan), torch.diag(torch.tensor([1.0, -1.0]))])
def test_there_is_no_factor_of(G):
    with pytest.raises(ValueError, match="allowed are finite positive semi-definite matrices that are not zero"):
        factor(G, 0.01)


@pytest.mark.gpu
def test_on_the_gpu():
    torch.manual_seed(0)
    model, inputs = models.fcn(7, 16, 3, 2), torch.randn(9, 7)
    expected = agop(model, inputs)
    torch.testing.assert_close(agop(model.cuda(), inputs.cuda()).cpu(), expected, rtol=1e-4, atol=1e-5)
