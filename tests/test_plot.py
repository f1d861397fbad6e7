"""The picture of any history: of each way to train, and of histories made by hand."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from catapults import sgd, training
from catapults.data import Split
from catapults.figures import plot
from histories import history
from torch import nn

PARTS = {
    "training": "The training loss",
    "batch": "The loss on each step's batch",
    "validation": "he validation loss",
    "shaded": "shaded where the learning rate η exceeds",
    "norm": "The norm of the tangent kernel",
    "split": "in the top-",
}


def drawn(history, title=""):
    """The figure, and which of the parts its caption names."""
    figure = plot(history, title)
    assert figure.svg.startswith("<?xml") and figure.caption.endswith(".") and figure.alt.endswith(".")
    assert "nan" not in re.findall(r"\w+", figure.caption + figure.alt)
    return figure, {name for name, words in PARTS.items() if words in figure.caption}


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    return model, torch.randn(16, 4), torch.randn(16, 1)


def test_gradient_descent(problem):
    trace = training.Quantity("trace", lambda point: point.linearization.kernel().trace(), every=5)
    h = training.gradient_descent(*problem, "1.5 eta_crit; 10: 0.5", 20, top=[1, 3], quantities=[trace])
    figure, parts = drawn(h, "ReLU at 1.5 eta_crit")
    assert parts == {"training", "shaded", "norm", "split"} and figure.name == "relu-at-1-5-eta-crit"
    assert figure.caption.startswith("ReLU at 1.5 eta_crit: The training loss, ") and figure.caption.endswith(" Trace.")
    assert figure.alt.startswith("5 line plots over the 20 steps. ") and "in the top-3 eigenspace lies" in figure.alt
    exceeds = h.learning_rate > h.critical_learning_rate[:-1]
    assert exceeds.any() and f"exceeds the critical one at {exceeds.sum()} of 20 steps" in figure.alt
    assert figure.svg == plot(h, "ReLU at 1.5 eta_crit").svg  # else every build would render all pages


def test_stochastic_gradient_descent(problem):
    h = sgd.stochastic_gradient_descent(*problem, "1.5 eta_crit", 4, 100, kernel_every=10)
    figure, parts = drawn(h)
    assert parts == {"training", "shaded", "norm", "split"} and figure.name == "history"
    assert f"exceeds the critical one at {h.exceeds.sum()} of 100 steps" in figure.alt


def test_what_was_measured_at_the_ends_only_is_not_drawn(problem):
    h = sgd.stochastic_gradient_descent(*problem, "0.5 eta_crit", 4, 50, kernel_every=None, loss_every=50)
    assert drawn(h)[1] == {"batch", "shaded"}


@pytest.mark.parametrize(
    "batch, settings, parts",
    [
        (16, {}, {"training", "validation", "shaded"}),
        (4, {"critical_every": 7}, {"training", "validation", "shaded"}),
        (4, {"critical_every": None, "optimizer": "adam", "stop_below": None}, {"validation"}),
    ],
)
def test_fit(problem, batch, settings, parts):
    model, x, y = problem
    h = training.fit(model, Split(x, y), Split(x + 0.1, y), 0.05, batch, 40, evaluate_every=4, **settings)
    figure, found = drawn(h)
    assert found - {"norm"} == parts and "The validation loss starts at" in figure.alt


@pytest.mark.filterwarnings("ignore::catapults.training.Diverged")
def test_one_that_diverges(problem):
    figure, parts = drawn(training.gradient_descent(*problem, "9 eta_crit", 60))
    assert parts == {"training", "shaded", "norm", "split"} and "The training diverges" in figure.alt
    infinite = history([1.0, 50.0, np.inf], diverged=True, batch_loss=[1.0, 50.0])
    assert "The training loss starts at 1, lies between 1 and 50 and ends at 50. The training diverges." in (
        plot(infinite).alt
    )


def test_a_critical_rate_holds_until_it_is_measured_again():
    h = history(np.ones(7), 2.0, batch_critical_learning_rate=[np.nan, 1.0, np.nan, 3.0, np.nan, 2.0])
    assert "exceeds the critical one at 2 of 6 steps" in plot(h).alt


def test_a_kernel_of_zeros_and_a_negative_quantity(problem):
    model, x, y = problem
    nn.init.zeros_(model[2].weight)
    model[0].requires_grad_(False)
    nn.init.constant_(model[0].bias, -100)
    model[2].bias.requires_grad_(False)
    below = training.Quantity("below", lambda point: -point.loss)
    figure, parts = drawn(training.gradient_descent(model, x, y, 0.1, 5, quantities=[below]))
    assert parts == {"training", "split"} and "below lies between -" in figure.alt


def test_there_is_nothing_to_plot():
    with pytest.raises(ValueError, match="history: it has no step"):
        plot(history([1]))


def test_it_brings_no_torch():
    code = "import sys; from catapults.figures import plot; print({'torch', 'matplotlib.pyplot'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
