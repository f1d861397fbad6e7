"""``figures.plot``: a picture of any history, by each front door."""

import subprocess
import sys

import pytest
import torch
from catapults.data import Split
from catapults.figures import plot
from catapults.sgd import stochastic_gradient_descent
from catapults.training import fit, gradient_descent
from histories import history
from torch import nn


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 1))
    return model, torch.randn(12, 5), torch.randn(12, 1)


def test_gradient_descent_has_loss_split_and_norm(problem):
    figure = plot(gradient_descent(*problem, "0.5 eta_crit", steps=6, top=2))
    assert figure.svg.count('id="axes_') == 2
    assert "its part in the top-2 eigenspace, the norm of the tangent kernel" in figure.caption
    assert "exceeds the critical one at 0 steps" in figure.alt


def test_sgd_says_at_how_many_steps_the_rate_exceeds(problem):
    h = stochastic_gradient_descent(*problem, "1 eta_crit", batch_size=4, steps=8, kernel_every=2)
    figure = plot(h)
    assert f"exceeds the critical one at {h.exceeds.sum()} steps" in figure.caption
    assert figure.svg.count('id="axes_') == 2


def test_a_fit_has_its_validation_loss_and_no_norm(problem):
    model, x, y = problem
    h = fit(
        model, Split(x, y[:, 0]), Split(x, y[:, 0]), 0.01, 4, 6, optimizer="adam", critical_every=None, evaluate_every=2
    )
    figure = plot(h)
    assert "the validation loss" in figure.caption and "kernel" not in figure.caption
    assert "at best" in figure.alt


def test_divergence_is_told():
    figure = plot(history([1, 1e9, float("inf")], diverged=True))
    assert "diverges" in figure.alt


def test_there_is_nothing_to_plot():
    with pytest.raises(ValueError, match="history: it has no step"):
        plot(history([1]))


def test_it_brings_no_torch():
    said = subprocess.run(
        [sys.executable, "-c", "from catapults.figures import plot; import sys; print('torch' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == "False\n"
