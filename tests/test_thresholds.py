"""Thresholds of optimisers: on quadratics, just below the weights converge, just above they diverge."""

import math

import pytest
import torch
from catapults.monitor import Unknown, threshold

CURVATURES = torch.tensor([0.3, 2.0, 5.0], dtype=torch.float64)
FROZEN = 1 - 1e-13  # a second moment that does not move
LATE = 1e15  # steps, after which nothing is corrected for its start any more

KINDS = {
    "plain": (torch.optim.SGD, {}),
    "weight decay": (torch.optim.SGD, {"weight_decay": 0.7}),
    "heavy ball": (torch.optim.SGD, {"momentum": 0.9}),
    "heavy ball, weight decay": (torch.optim.SGD, {"momentum": 0.6, "weight_decay": 0.5}),
    "dampened": (torch.optim.SGD, {"momentum": 0.8, "dampening": 0.4}),
    "Nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "Nesterov, weight decay": (torch.optim.SGD, {"momentum": 0.5, "nesterov": True, "weight_decay": 0.2}),
    "Adam": (torch.optim.Adam, {"betas": (0.9, FROZEN)}),
    "Adam, weight decay": (torch.optim.Adam, {"betas": (0.5, FROZEN), "weight_decay": 0.4}),
    "Adam, amsgrad": (torch.optim.Adam, {"betas": (0.9, FROZEN), "amsgrad": True}),
    "AdamW": (torch.optim.AdamW, {"betas": (0.9, FROZEN), "weight_decay": 0.1}),
    "RMSprop": (torch.optim.RMSprop, {"alpha": FROZEN}),
    "RMSprop, momentum": (torch.optim.RMSprop, {"alpha": FROZEN, "momentum": 0.7}),
    "RMSprop, centered": (torch.optim.RMSprop, {"alpha": FROZEN, "centered": True}),
}


def prepared(name: str, rate: float = 1.0) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
    """Weights with an optimiser whose second moments are what they will stay."""
    kind, options = KINDS[name]
    w = torch.nn.Parameter(torch.full((3,), 1e-6, dtype=torch.float64))
    optimizer = kind([w], lr=rate, **options)
    w.grad = CURVATURES * w.detach()
    squares = torch.tensor([4.0, 0.25, 9.0], dtype=torch.float64)
    if kind in (torch.optim.Adam, torch.optim.AdamW):
        state = {"step": torch.tensor(LATE), "exp_avg": torch.zeros_like(w), "exp_avg_sq": squares}
        optimizer.state[w] = state | ({"max_exp_avg_sq": squares.clone()} if options.get("amsgrad") else {})
    elif kind is torch.optim.RMSprop:
        state = {"step": torch.tensor(LATE), "square_avg": squares}
        state |= {"momentum_buffer": torch.zeros_like(w)} if options.get("momentum") else {}
        optimizer.state[w] = state | ({"grad_avg": torch.zeros_like(w)} if options.get("centered") else {})
    return w, optimizer


def sharpness(optimizer: torch.optim.Optimizer) -> float:
    step = threshold(optimizer)
    (d,), (decay,) = step.D, step.decay
    return ((CURVATURES + decay) * d).max().item()


@pytest.mark.parametrize("name", KINDS)
def test_below_converges_and_above_diverges(name):
    for of_critical, converges in ((0.97, True), (1.03, False)):
        rate = 1.0
        for _ in range(50):  # AdamW's bound depends on the rate itself
            _, optimizer = prepared(name, rate)
            rate = of_critical * threshold(optimizer).critical(sharpness(optimizer))
        w, optimizer = prepared(name, rate)
        before = w.detach().norm()
        for _ in range(2000):
            w.grad = CURVATURES * w.detach()
            optimizer.step()
            if w.detach().norm() > 1e3:
                break
        assert (w.detach().norm() < 0.1 * before) == converges, (name, of_critical, w)


def test_are_those_of_the_books():
    """2 / lambda of gradient descent, 38 for Adam's defaults."""
    _, plain = prepared("plain")
    assert threshold(plain).bound == 2
    _, adam = prepared("Adam")
    assert threshold(adam).bound == pytest.approx(38)
    _, nesterov = prepared("Nesterov")
    assert threshold(nesterov).bound == pytest.approx(2 * 1.9 / 2.8)


def test_first_steps_of_adam_are_corrected_as_its_momentum_is():
    w = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = torch.optim.Adam([w], lr=0.1)
    w.grad = torch.tensor([3.0, 0.5], dtype=torch.float64)
    step = threshold(optimizer)
    assert step.bound == pytest.approx(38 * 0.1)
    torch.testing.assert_close(step.D[0], 1 / (w.grad.abs() + 1e-8))  # v_hat is the first gradient's square


def test_preconditioner_is_the_one_that_the_step_will_use():
    torch.manual_seed(0)
    w = torch.nn.Parameter(torch.randn(4, dtype=torch.float64))
    optimizer = torch.optim.Adam([w], lr=0.1, weight_decay=0.3, amsgrad=True)
    for _ in range(5):
        w.grad = torch.randn(4, dtype=torch.float64)
        D = threshold(optimizer).D[0]
        optimizer.step()
    state, t = optimizer.state[w], 5
    torch.testing.assert_close(D, 1 / ((state["max_exp_avg_sq"] / (1 - 0.999**t)).sqrt() + 1e-8))


def test_groups_have_their_rates_and_momenta():
    a, b = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.3, "momentum": 0.5}], lr=0.1)
    a.grad = b.grad = torch.ones(1)
    step = threshold(optimizer)
    assert step.rate == 0.1 and step.bound == 2 and not step.uniform
    assert [1.0, pytest.approx(3 * 2 / 3)] == step.D  # three times the rate, one and a half times the bound


def test_rate_of_zero_has_a_critical_one():
    w = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([w], lr=0.0)
    w.grad = torch.ones(1)
    assert threshold(optimizer).critical(4.0) == 0.5 and threshold(optimizer).critical(0.0) == math.inf


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda w: torch.optim.Adagrad([w]), "Adagrad"),
        (lambda w: torch.optim.SGD([w], lr=0.1, maximize=True), "maximize = True"),
        (lambda w: torch.optim.SGD([w], lr=0.1), "none of its parameters has a gradient"),
    ],
)
def test_what_is_not_known_is_refused(make, says):
    w = torch.nn.Parameter(torch.ones(1))
    optimizer = make(w)
    if "gradient" not in says:
        w.grad = torch.ones(1)
    with pytest.raises(Unknown, match=says):
        threshold(optimizer)
