"""The mean-square threshold of SGD against its exact second moment, simulations, and automatic differentiation."""

import math

import pytest
import torch
from catapults import models, stability, tangent
from torch import nn


def gaussian_kernel(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Of a linear model with Gaussian inputs, whose eigenvectors are as delocalised as can be."""
    X = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return X @ X.T


def rate_at(S: float, kernel: torch.Tensor, b: int, replacement: bool = True) -> float:
    """The rate with this mean-square S, by bisection."""
    values = torch.linalg.eigvalsh(kernel)
    low, high = 0.0, len(kernel) / values[-1].item() / (1 - 1 / b if b > 1 else 1e-3)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stability.mean_square(values, middle, b, replacement) < S else (low, middle)
    return low


class TestSecondMoment:
    @pytest.mark.parametrize("replacement", [True, False])
    @pytest.mark.parametrize("b", [1, 2, 5, 12])
    def test_the_map_is_the_mean_over_all_batches(self, b, replacement):
        """Against the mean over very many drawn batches of r' r'^T, from one r."""
        n, draws = 12, 200_000
        K, generator = gaussian_kernel(n, 30), torch.Generator().manual_seed(b)
        A = K * 0.01
        r = torch.randn(n, generator=generator, dtype=torch.float64)
        if replacement:
            batches = torch.randint(n, (draws, b), generator=generator)
        else:
            batches = torch.rand(draws, n, generator=generator).argsort(1)[:, :b]
        counts = torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, batches, torch.ones(draws, b).double())
        after = r - n / b * (counts * r) @ A
        drawn = after.T @ after / draws
        expected = stability.moment_after_step(torch.outer(r, r), A, stability.sampling_noise(n, b, replacement))
        assert torch.allclose(drawn, expected, atol=0.02 * expected.abs().max().item())
        if b == n and not replacement:
            assert torch.allclose(drawn, expected, atol=1e-12)

    @pytest.mark.parametrize(("b", "replacement"), [(1, True), (3, True), (3, False), (10, True)])
    def test_of_a_gaussian_design_it_is_bounded_below_one_and_grows_above(self, b, replacement):
        K = gaussian_kernel(80, 320)
        for S, stable in ((0.9, True), (1.1, False)):
            growth = stability.second_moment_growth(K, rate_at(S, K, b, replacement), b, replacement)
            assert (growth < 1) == stable

    def test_simulated_trainings_do_what_it_says(self):
        """SGD of a linear model itself, 400 trainings at once: the mean loss falls below the threshold, grows above."""
        n, d, b, steps, runs = 40, 400, 2, 60, 400
        generator = torch.Generator().manual_seed(3)
        X = torch.randn(n, d, generator=generator, dtype=torch.float64)
        ratios = {}
        for S in (0.5, 1.5):
            eta = rate_at(S, X @ X.T, b)
            w = torch.randn(d, generator=generator, dtype=torch.float64).repeat(runs, 1)
            first = (w @ X.T).square().mean().item()
            for _ in range(steps):
                batch = torch.randint(n, (runs, b), generator=generator)
                x = X[batch]
                w -= eta * 2 / b * torch.einsum("rb,rbd->rd", torch.einsum("rbd,rd->rb", x, w), x)
            ratios[S] = (w @ X.T).square().mean().item() / first
        assert ratios[0.5] < 0.1 and ratios[1.5] > 10

    def test_of_all_samples_it_is_gradient_descent(self):
        K = gaussian_kernel(20, 40)
        eta = 0.3 * 20 / torch.linalg.eigvalsh(K)[-1].item()
        slowest = 1 - 2 * eta * torch.linalg.eigvalsh(K)[0].item() / 20
        assert stability.second_moment_growth(K, eta, 20, replacement=False) == pytest.approx(slowest**2, rel=1e-6)


class TestMeanSquare:
    def test_of_one_sample_it_is_the_trace(self):
        K = gaussian_kernel(30, 50)
        values = torch.linalg.eigvalsh(K)
        S = stability.mean_square(values, 0.01, 1)
        assert pytest.approx(0.01 * K.trace().item() / 30) == S
        assert pytest.approx(stability.by_trace(K.trace().item(), 30, 0.01, 1)) == S

    def test_of_many_samples_it_is_the_sum_of_agarwala_and_pennington(self):
        values, eta, b, n = torch.linspace(0, 30, 5000), 50.0, 100, 5000
        x = eta * values.double() / n
        expected = (1 / b - 1 / n) * (x / (1 - x)).sum().item()
        assert stability.mean_square(values, eta, b, False) == pytest.approx(expected, rel=0.01)
        assert stability.by_trace(values.sum().item(), n, eta, b, False) < expected

    def test_is_infinite_from_the_critical_rate_of_gradient_descent_on(self):
        values = torch.tensor([1.0, 4.0])
        assert stability.mean_square(values, 0.499, 2, replacement=False) == 0  # eta_crit is n / lambda_1 = 0.5
        assert stability.mean_square(values, 0.501, 2, replacement=False) == math.inf

    def test_a_kernel_of_one_direction_that_all_samples_share_has_no_noise_of_its_own(self):
        """K = kappa 1 1^T: a residual along 1 is the same in every batch, so that S < 1 whatever the batch."""
        n, eta = 50, 0.9
        K = torch.ones(n, n, dtype=torch.float64)
        M, A = torch.full((n, n), 1.0, dtype=torch.float64), 2 * eta / n * K
        after = stability.moment_after_step(M, A, 1.0)
        assert torch.allclose(after, (1 - 2 * eta) ** 2 * M)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([1.0], 0.0, 1), r"learning_rate = 0.0: allowed are finite numbers above 0"),
            (([1.0], math.inf, 1), r"learning_rate = inf"),
            (([math.nan], 1.0, 1), "eigenvalues: holds values that are not finite"),
            (([1.0], 1.0, 0), "batch_size = 0"),
            (([1.0], 1.0, 2, False), "batch_size = 2"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            stability.mean_square(torch.tensor(arguments[0]), *arguments[1:])


class TestBatchSharpness:
    def test_of_a_linear_model_is_that_by_the_hessian(self):
        model = nn.Linear(7, 1, dtype=torch.float64)
        X, y = torch.randn(20, 7).double(), torch.randn(20).double()
        batches = torch.randint(20, (30, 4))
        K = tangent.tangent_kernel(model, X)
        residual = model(X).detach().flatten() - y
        ours = stability.batch_sharpness(K, residual, batches)
        assert ours == pytest.approx(stability.batch_sharpness_by_hessian(model, X, y, batches), rel=1e-9)
        whole = torch.arange(20)[None]
        H = torch.autograd.functional.hessian(
            lambda w: (X @ w[:7] + w[7] - y).square().mean(), torch.cat([model.weight.flatten(), model.bias]).detach()
        )
        g = torch.cat([2 / 20 * X.T @ residual, 2 / 20 * residual.sum()[None]])
        assert stability.batch_sharpness(K, residual, whole) == pytest.approx((g @ H @ g / (g @ g)).item(), rel=1e-9)

    def test_by_the_hessian_differs_from_gauss_newton_in_a_network_and_not_at_zero_residual(self):
        torch.manual_seed(0)
        model = models.fcn(6, 40, 2, 1, gain=1.0, bias=False, parameterization="ntk").double()
        X = torch.randn(16, 6).double()
        f, K, batches = model(X).detach().flatten(), tangent.tangent_kernel(model, X), torch.randint(16, (40, 3))
        for shift, tolerance in ((1e-6, 1e-4), (3.0, 1.0)):
            y = f + shift * torch.randn(16).double()
            ours = stability.batch_sharpness(K, f - y, batches)
            exact = stability.batch_sharpness_by_hessian(model, X, y, batches)
            assert exact == pytest.approx(ours, rel=tolerance)
            assert (abs(exact / ours - 1) > 1e-3) == (shift > 1)

    def test_is_twice_the_mean_of_the_inverse_break_even_rate(self):
        K, r, batches = gaussian_kernel(10, 20), torch.randn(10).double(), torch.randint(10, (5, 2))
        even = []
        for batch in batches:
            block, part = K[batch][:, batch], r[batch]
            even.append((2 * part @ block @ part / (block @ part).square().sum()).item())
        assert stability.batch_sharpness(K, r, batches) == pytest.approx(2 * sum(1 / e for e in even) / 5)

    def test_without_a_gradient_there_is_none(self):
        assert math.isnan(stability.batch_sharpness(torch.eye(3), torch.zeros(3), torch.tensor([[0, 1]])))
        with pytest.raises(ValueError, match=r"allowed are \(n, n\), \(n,\), \(k, b\)"):
            stability.batch_sharpness(torch.eye(3), torch.zeros(2), torch.tensor([[0, 1]]))


def test_the_share_of_batches_above_is_counted_with_the_norm_of_each():
    K, batches = gaussian_kernel(30, 10), torch.randint(30, (50, 3))
    rates = [3 / torch.linalg.matrix_norm(K[b][:, b], 2).item() for b in batches]
    eta = sorted(rates)[20] * 1.0001
    assert stability.critical_rates_exceeded(K, eta, batches) == pytest.approx(21 / 50)
