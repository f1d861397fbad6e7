import pytest
import torch
from catapults.data.synthetic import SYNTHETIC
from hypothesis import given
from hypothesis import strategies as st
from samples import few_examples


@pytest.mark.parametrize("name", SYNTHETIC)
@few_examples
@given(seed=st.integers(0, 2**40), n=st.integers(0, 12), dim=st.integers(10, 30), stream=st.integers(0, 2))
def test_draw(name, seed, n, dim, stream):
    task = SYNTHETIC[name]
    inputs, targets, gradients = task.draw(n, dim, 0, seed, stream)
    assert inputs.shape == gradients.shape == (n, dim) and targets.shape == (n,)
    assert {inputs.dtype, targets.dtype, gradients.dtype} == {torch.float32}
    x = inputs.double().requires_grad_()
    (gradient,) = torch.autograd.grad(task.function(x).sum(), x)
    torch.testing.assert_close(targets.double(), task.function(x), atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(gradients.double(), gradient, atol=1e-5, rtol=1e-6)
    longer = task.draw(n + 4, dim, 0, seed, stream)
    for part, more in zip((inputs, targets, gradients), longer, strict=True):
        torch.testing.assert_close(more[:n], part)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_egop_is_the_expectation_of_autograd_gradients(name):
    """Within five standard errors of the mean of a million samples, entry by entry."""
    task, dim, samples = SYNTHETIC[name], 12, 1_000_000
    first, second = torch.zeros(2, dim, dim, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        x = torch.randn(samples // 10, dim, dtype=torch.float64, generator=generator)
        if task.on_sphere:
            x /= x.norm(dim=1, keepdim=True)
        (g,) = torch.autograd.grad(task.function(x.requires_grad_()).sum(), x)
        first += g.T @ g / samples
        second += (g**2).T @ g**2 / samples
    error = ((second - first**2).clamp(min=0) / samples).sqrt()
    assert ((first - task.egop(dim)).abs() <= 5 * error + 1e-12).all()


def test_egop_has_the_rank_in_the_name():
    for rank in (2, 3, 4):
        assert torch.linalg.matrix_rank(SYNTHETIC[f"rank-{rank}"].egop(100)) == rank
    assert torch.linalg.matrix_rank(SYNTHETIC["full-rank"].egop(100)) == 100


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_noise_has_its_deviation(stream):
    (_, noisy, _), (_, clean, _) = (SYNTHETIC["rank-2"].draw(4000, 2, noise, 0, stream) for noise in (0.1, 0))
    noise = noisy - clean
    assert abs(noise.std() - 0.1) < 0.005 and abs(noise.mean()) < 0.006


def test_sphere_doubles_the_first_training_sample_only():
    inputs, targets, _ = SYNTHETIC["sphere"].draw(100, 20, 0.1, 0, 0)
    norms = torch.ones(100)
    norms[0] = 2
    torch.testing.assert_close(inputs.norm(dim=1), norms)
    assert torch.equal(targets, norms)
    inputs, targets, _ = SYNTHETIC["sphere"].draw(10, 20, 0.1, 0, 1)
    torch.testing.assert_close(inputs.norm(dim=1), torch.ones(10))
    assert torch.equal(targets, torch.ones(10))


@pytest.mark.parametrize("name", SYNTHETIC)
def test_description(name):
    text = SYNTHETIC[name].describe(20, 0.25)
    assert SYNTHETIC[name].formula in text and "20" in text
    assert ("sphere" in text) == (name == "sphere") == ("0.25" not in text)
