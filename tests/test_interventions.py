"""Trainings without catapults."""

import copy

import pytest
import torch
from catapults import models, training
from catapults.data import Split
from catapults.training.interventions import APPLIED, fit_with
from catapults.training.run import Batches

N, SIZE, STEPS = 24, 4, 12
ETA = 2.0  # above the critical rate of some batches


@pytest.fixture
def problem():
    torch.manual_seed(0)
    with_double = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    model = models.fcn(6, 16, 3)
    train = Split(torch.randn(N, 6), torch.randn(N))
    torch.set_default_dtype(with_double)
    return model, train, train


def jacobian(model, x):
    """By reverse mode, a row a sample."""
    parameters = list(model.parameters())
    rows = [torch.autograd.grad(output, parameters, retain_graph=True) for output in model(x).flatten()]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def trained_by_hand(model, train, eta, batches, change_residual, limit=None):
    """The same steps by plain autograd."""
    for batch in batches:
        x, y = train.inputs[batch], train.targets[batch]
        J = jacobian(model, x)
        K, residual = J @ J.T, model(x).flatten().detach() - y
        rate = eta if limit is None else min(eta, limit * len(y) / torch.linalg.eigvalsh(K)[-1].item())
        step = -2 * rate / len(y) * J.T @ change_residual(K, residual, eta)
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(
                torch.nn.utils.parameters_to_vector(model.parameters()) + step, model.parameters()
            )
    return model


def drawn():
    source = Batches(N, SIZE, True, 3)
    return [next(source) for _ in range(STEPS)]


def run(kind, c, problem, eta, **options):
    """Trained, and left at the last weights, which are better than the first ones."""
    model, train, validation = problem
    model = copy.deepcopy(model)
    history = fit_with(
        kind, c, model, train, validation, eta, SIZE, STEPS, replacement=True, seed=3, evaluate_every=STEPS,
        stop_below=0.0, **options,
    )  # fmt: skip
    assert history.best == 1
    return model, history


class TestClip:
    def test_takes_the_steps_that_autograd_says(self, problem):
        model, train, _ = problem
        c = 0.9
        expected = trained_by_hand(copy.deepcopy(model), train, ETA, drawn(), lambda K, r, _: r, limit=c)
        got, _ = run("clip", c, problem, ETA)
        for a, b in zip(got.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a, b)

    def test_no_step_is_above_the_limit_and_some_are_at_it(self, problem):
        _, history = run("clip", 0.9, problem, ETA)
        applied, critical = history.quantity(APPLIED)[:-1], history.batch_critical_learning_rate
        assert (applied <= 0.9 * critical * (1 + 1e-12)).all()
        limited = applied < history.learning_rate
        assert 0 < limited.sum() < STEPS and (applied[~limited] == ETA).all()

    def test_a_rate_far_below_the_critical_one_is_plain_sgd(self, problem):
        model, train, validation = problem
        plain = copy.deepcopy(model)
        training.fit(
            plain, train, validation, 1e-3, SIZE, STEPS, replacement=True, seed=3, evaluate_every=STEPS, stop_below=0.0
        )
        for kind in ("clip", "shrink"):
            got, history = run(kind, 1.0, problem, 1e-3)
            for a, b in zip(got.parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(a, b)
            assert (history.quantity(APPLIED)[:-1] == 1e-3).all()


class TestShrink:
    @staticmethod
    def damped(c):
        def change(K, residual, eta):
            values, vectors = torch.linalg.eigh(K)
            bound = c * len(residual) / eta
            factors = torch.where(values > bound, bound / values, 1.0)
            return vectors @ (factors * (vectors.T @ residual))

        return change

    def test_takes_the_steps_that_autograd_says(self, problem):
        model, train, _ = problem
        expected = trained_by_hand(copy.deepcopy(model), train, ETA, drawn(), self.damped(0.9))
        got, history = run("shrink", 0.9, problem, ETA)
        assert (history.learning_rate > history.batch_critical_learning_rate).any()
        for a, b in zip(got.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a, b)

    def test_of_all_samples_where_the_kernel_is_known_by_its_products(self, monkeypatch):
        monkeypatch.setattr("catapults.tangent.Linearization.kernel_fits", lambda self: False)
        torch.manual_seed(0)
        model, train = models.fcn(6, 16, 2).double(), Split(torch.randn(300, 6).double(), torch.randn(300).double())
        eta = 1.5 * 300 / torch.linalg.eigvalsh(jacobian(model, train.inputs) @ jacobian(model, train.inputs).T)[-1]
        expected = trained_by_hand(copy.deepcopy(model), train, eta.item(), [slice(None)], self.damped(0.9))
        got = copy.deepcopy(model)
        fit_with("shrink", 0.9, got, train, train, eta.item(), 300, 1, stop_below=0.0)
        worst = max((a - b).abs().max() for a, b in zip(got.parameters(), expected.parameters(), strict=True))
        moved = max((a - b).abs().max() for a, b in zip(model.parameters(), expected.parameters(), strict=True))
        assert worst < 1e-3 * moved

    def test_each_component_that_would_overshoot_is_multiplied_by_1_minus_2c(self):
        """Of a linear model, whose kernel does not change."""
        torch.manual_seed(1)
        x, y = torch.randn(5, 8).double(), torch.randn(5).double()
        values, vectors = torch.linalg.eigh(x @ x.T)
        eta = 5 / values[-2].item()  # the largest is above, the second just at the critical rate
        model = torch.nn.Linear(8, 1, bias=False).double()
        before = vectors.T @ (model(x)[:, 0] - y)
        fit_with("shrink", 0.75, model, Split(x, y), Split(x[:1], y[:1]), eta, 5, 1, stop_below=0.0, evaluate_every=1)
        after = vectors.T @ (model(x)[:, 0] - y)
        factors = torch.where(eta * values > 0.75 * 5, -0.5, 1 - 2 * eta * values / 5)
        torch.testing.assert_close(after, factors * before)


def test_an_interrupted_training_goes_on_bit_for_bit(problem):
    class Kept:
        def __init__(self):
            self.state, self.asked = None, 0

        def due(self):
            self.asked += 1
            return self.asked == 5

        def load(self):
            return self.state

        def save(self, state):
            self.state = state
            raise KeyboardInterrupt

    for kind in ("clip", "shrink"):
        whole, _ = run(kind, 0.9, problem, ETA)
        kept = Kept()
        with pytest.raises(KeyboardInterrupt):
            run(kind, 0.9, problem, ETA, checkpoint=kept)
        again, history = run(kind, 0.9, problem, ETA, checkpoint=kept)
        assert len(history) == STEPS
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"intervention": "stop"}, "intervention = 'stop': allowed are clip, shrink"),
        ({"c": 0}, "c = 0: allowed are positive numbers"),
        ({"c": float("nan")}, "c = nan: allowed are positive numbers"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"steps": 0}, "steps = 0"),
        ({"stop_below": -1.0}, "stop_below = -1.0"),
        ({"learning_rate": "x"}, "learning_rate = 'x'"),
        ({"learning_rate": "1; 99: 2"}, "allowed are changes at iterations below steps = 12"),
        ({"validation": Split(torch.empty(0, 6), torch.empty(0))}, "validation: holds no sample"),
    ],
)
def test_impossible_arguments(problem, changed, message, no_type_checks):
    model, train, validation = problem
    arguments = {
        "intervention": "clip", "c": 1.0, "model": model, "training": train, "validation": validation,
        "learning_rate": 0.1, "batch_size": SIZE, "steps": STEPS,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        fit_with(**arguments | changed)
