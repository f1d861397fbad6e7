"""The top eigenspace against the full eigendecomposition in float64."""

import math

import pytest
import torch
from catapults import models, tangent
from catapults.tangent import eigenspace
from catapults.tangent.eigenspace import NotFinite, top_eigenpairs
from hypothesis import given
from hypothesis import strategies as st
from samples import few_examples


@pytest.fixture
def always_iterate(monkeypatch):
    monkeypatch.setattr(eigenspace, "_SMALL", 1)


def matrix(values: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A symmetric float64 matrix with these eigenvalues, ascending, and its eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))[0]
    return vectors * values @ vectors.T, vectors


def spectra() -> dict[str, torch.Tensor]:
    index = torch.arange(200, dtype=torch.float64)
    return {
        "one large": torch.cat([1 + index[:199] / 199, torch.tensor([500.0], dtype=torch.float64)]),
        "power law": (index + 1).flip(0) ** -1.5,
        "low rank": torch.cat([torch.zeros(190, dtype=torch.float64), 1 + index[:10]]),
        "all equal": torch.ones(200, dtype=torch.float64),
        "zero": torch.zeros(200, dtype=torch.float64),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", spectra())
@pytest.mark.usefixtures("always_iterate")
def test_eigenpairs(name, dtype):
    values, _ = torch.sort(spectra()[name])
    kernel, _ = matrix(values)
    pairs = top_eigenpairs(kernel.to(dtype), 5)
    assert pairs.values.shape == (5,) and pairs.vectors.shape == (200, 5)
    torch.testing.assert_close(pairs.values.double(), values[-5:], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pairs.vectors.T @ pairs.vectors, torch.eye(5, dtype=dtype), rtol=0, atol=1e-5)
    residuals = kernel @ pairs.vectors.double() - pairs.vectors.double() * values[-5:]
    rounding = 30 * torch.finfo(dtype).eps * values[-1]
    assert (residuals.norm(dim=0) <= 1.5 * torch.maximum(1e-3 * (values[-5:] - values[-6]), rounding)).all()


@given(st.integers(1, 12), st.integers(0, 100))
@few_examples
def test_the_start_changes_the_work_and_not_the_result(top, seed):
    kernel, vectors = matrix(torch.linspace(0, 1, 600, dtype=torch.float64) ** 8, seed)
    other = torch.randn(600, top + 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    counting = Counting(kernel)
    cold = top_eigenpairs(counting, top).values
    products, counting.products = counting.products, 0
    warm = top_eigenpairs(counting, top, vectors[:, -top:]).values
    assert counting.products <= products
    torch.testing.assert_close(warm, cold, rtol=1e-6, atol=0)
    torch.testing.assert_close(top_eigenpairs(kernel, top, other).values, cold, rtol=1e-6, atol=0)


class Counting:
    """A kernel that is only known by its products."""

    def __init__(self, matrix: torch.Tensor):
        self.matrix, self.products = matrix, 0
        self.dtype, self.device = matrix.dtype, matrix.device

    def __len__(self) -> int:
        return len(self.matrix)

    def __matmul__(self, vectors: torch.Tensor) -> torch.Tensor:
        self.products += vectors.shape[1]
        return self.matrix @ vectors


@pytest.mark.usefixtures("always_iterate")
def test_all_eigenvalues_above_a_bound():
    kernel, _ = matrix(torch.arange(300, dtype=torch.float64))
    pairs = top_eigenpairs(kernel, 3, above=280.5)
    assert (pairs.values > 280.5).sum() == 19 and pairs.values[0] <= 280.5
    everything = top_eigenpairs(kernel, 3, above=-1.0)
    torch.testing.assert_close(everything.values, torch.arange(300, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_a_similar_kernels_eigenvectors_save_most_of_the_work():
    kernel, vectors = matrix(torch.linspace(0, 1, 600, dtype=torch.float64) ** 8)
    small_change = 1e-5 * matrix(torch.rand(600, dtype=torch.float64), seed=1)[0]
    cold, warm = Counting(kernel + small_change), Counting(kernel + small_change)
    top_eigenpairs(cold, 5)
    top_eigenpairs(warm, 5, vectors[:, -5:])
    assert warm.products < cold.products / 2


def test_a_large_tangent_kernel_against_the_float64_route():
    """n c = 1200, rate and split along three steps: the accuracy that the library promises at scale."""
    model = models.fcn(30, 256, 3, 2)
    inputs, residual = torch.randn(600, 30), torch.rand(600, 2)
    exact_kernel = tangent.tangent_kernel(model.double(), inputs.double())
    values, vectors = torch.linalg.eigh(exact_kernel)
    kernel = tangent.tangent_kernel(model.float(), inputs)
    assert tangent.critical_learning_rate(kernel, 1200) == pytest.approx(1200 / values[-1].item(), rel=1e-3)
    squares = (vectors.T @ residual.double().flatten()).square() / 1200
    expected = squares[-5:].sum().item(), squares[:-5].sum().item()
    assert tangent.split_loss(residual, kernel, 5) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("size", [10, 700])
def test_kernels_that_are_not_finite(bad, size):
    kernel = torch.eye(size)
    kernel[3, 3] = bad
    for given_as in (kernel, Counting(kernel)):
        with pytest.raises(NotFinite, match="kernel: has entries that are not finite"):
            top_eigenpairs(given_as, 2)


def test_half_precision_is_decomposed_in_single():
    values, _ = torch.sort(torch.rand(20))
    pairs = top_eigenpairs(matrix(values.double())[0].bfloat16(), 2)
    assert pairs.values.dtype == torch.float32
    torch.testing.assert_close(pairs.values[-2:], values[-2:], rtol=0.02, atol=0.02)


@pytest.mark.gpu
def test_on_the_gpu():
    kernel, _ = matrix(torch.linspace(0, 1, 700, dtype=torch.float64) ** 4)
    ours = top_eigenpairs(kernel.float().cuda(), 5).values.cpu().double()
    torch.testing.assert_close(ours, torch.linalg.eigvalsh(kernel)[-5:], rtol=1e-4, atol=0)


@pytest.mark.usefixtures("always_iterate")
def test_without_convergence_the_whole_kernel_is_decomposed(monkeypatch):
    kernel, _ = matrix(torch.linspace(0, 1, 300, dtype=torch.float64))
    monkeypatch.setattr(eigenspace, "_EXPANSIONS", 1)
    pairs = top_eigenpairs(kernel, 3)
    torch.testing.assert_close(pairs.values[-3:], torch.linspace(0, 1, 300, dtype=torch.float64)[-3:])
    with pytest.raises(RuntimeError, match="top = 3: a kernel of 300 rows that is not formed"):
        top_eigenpairs(Counting(kernel), 3)


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1e18, 1e25])
@pytest.mark.usefixtures("always_iterate")
def test_extreme_scales(scale):
    kernel, _ = matrix(torch.linspace(0, 1, 300, dtype=torch.float64) ** 4)
    pairs = top_eigenpairs((scale * kernel).float(), 3)
    expected = scale * torch.linspace(0, 1, 300, dtype=torch.float64)[-3:] ** 4
    torch.testing.assert_close(pairs.values[-3:].double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("size", [27.5, 31.0, 40.0, 100.0])
def test_an_eigenvalue_that_appears_outside_of_the_space_followed_is_found(size):
    """Twenty eigenvalues from 11 to 30; then one of the others becomes large, and the kernel stays as it is."""
    values = torch.cat([torch.linspace(0, 1, 680), torch.arange(11.0, 31.0)]).double()
    before, vectors = matrix(values)
    after = before + (size - values[300]) * torch.outer(vectors[:, 300], vectors[:, 300])
    pairs, expected = top_eigenpairs(before, 5), torch.sort(torch.cat([values[-5:], torch.tensor([size])])).values[-5:]
    for _ in range(12):
        pairs = top_eigenpairs(after, 5, pairs.start)
    torch.testing.assert_close(pairs.values, expected.double(), rtol=1e-5, atol=0)


@pytest.mark.usefixtures("always_iterate")
def test_a_gap_that_rounding_hides_is_resolved_in_float64():
    """The gap below the top five is 1e-4 beside a norm of 1e3, and single precision resolves 3e-3."""
    values = torch.cat([torch.linspace(0, 0.9, 394), torch.tensor([1.0, 1.0001, 1.1, 1.2, 1.3, 1000.0])]).double()
    kernel, vectors = matrix(values)
    pairs = top_eigenpairs(kernel.float(), 5)
    assert pairs.vectors.dtype == torch.float32
    cosines = torch.linalg.svdvals(torch.linalg.eigh(kernel.float().double())[1][:, -5:].T @ pairs.vectors.double())
    assert 1 - cosines.min() < 1e-5


@pytest.mark.parametrize("solve", [lambda K: eigenspace.spectrum(K).values[-1].item(), eigenspace.largest_eigenvalue])
def test_where_lapack_does_not_converge_in_single_precision(solve, monkeypatch):
    """It did not with a kernel of a network of which most samples see nothing; here it never does."""
    kernel = matrix(torch.arange(1.0, 9.0, dtype=torch.float64))[0].float()

    def only_double(solver):
        def solved(K):
            if K.dtype == torch.float32:
                raise torch.linalg.LinAlgError("failed to converge")
            return solver(K)

        return solved

    for name in ("eigh", "eigvalsh"):
        monkeypatch.setattr(torch.linalg, name, only_double(getattr(torch.linalg, name)))
    assert solve(kernel) == pytest.approx(8, rel=1e-6)
