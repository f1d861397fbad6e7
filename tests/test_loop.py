"""What holds for every training, whichever front door it came through."""

import copy
import json
import warnings

import numpy as np
import pytest
import torch
from catapults.data import Split
from catapults.sgd import stochastic_gradient_descent
from catapults.tangent import hessian
from catapults.training import Batches, Diverged, History, Quantity, fit, gradient_descent
from loop_problems import GOLDEN, KINDS, NAMES, arguments, network, sums

DOORS = {"gd": gradient_descent, "sgd": stochastic_gradient_descent, "fit": fit}
NOT_TAKEN = ("fit", "divergence, measured")  # its last step, whose batch has shown the divergence, was still taken then


def train(kind, name, **more):
    """The history, and the model that was trained."""
    model, given = arguments(kind, name)
    if "divergence" in name:
        with pytest.warns(Diverged):
            return DOORS[kind](**given, **more), model
    return DOORS[kind](**given, **more), model


class TestGolden:
    """The same numbers as before gradient descent, SGD and optimisers shared a loop."""

    @pytest.mark.parametrize("kind, name", NAMES)
    def test_results(self, kind, name):
        history, model = train(kind, name)
        expected = json.loads(GOLDEN.read_text())[kind][name]
        for column, values in expected.items():
            found = sums(model) if column == "weights" else getattr(history, column)
            if column in ("diverged", "converged", "best", "catapults", "steps_above", "evaluated", "batches"):
                assert np.array_equal(found, values), column
                continue
            found, values = np.atleast_1d(np.array(found, float)), np.atleast_1d(np.array(values, float))
            if (kind, name) == NOT_TAKEN and column in ("batch_loss", "learning_rate"):
                values = values[:-1]
            assert found.shape == values.shape, column
            measured = np.isfinite(values)
            # the loss in the last state was a gap, and is what is reached: infinite where it is no number
            if "divergence" in name and len(values) > 1:
                measured &= np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1)) < len(values) - 1
            else:
                assert np.array_equal(np.isnan(found), np.isnan(values)), column
            tolerance = {"rtol": 2e-3, "atol": 1e-5} if column in ("splits", "weights") else {"rtol": 1e-3}
            np.testing.assert_allclose(found[measured], values[measured], **tolerance, err_msg=column)

    def test_every_problem_is_stored(self):
        stored = json.loads(GOLDEN.read_text())
        assert {kind: set(problems) for kind, problems in stored.items()} == {k: set(p) for k, p in KINDS.items()}


STOPPED = [
    *(("gd", name) for name in ("absolute", "current", "ten outputs", "Hessian, cnn")),
    *(("sgd", name) for name in ("with replacement", "cyclical", "seldom", "below", "frozen", "span")),
    *(("fit", name) for name in ("GD, settle", "SGD, now and then", "SGD, plain, outputs", "cnn", "below")),
    *(("fit", name) for name in ("sgd+m", "adadelta", "adagrad", "rmsprop", "adam")),
]


class Interrupted(Exception):
    pass


class Kept:
    """A checkpoint in a file. The training is interrupted after so many times of having been asked."""

    def __init__(self, path, stop_after, every=2):
        self.path, self.stop_after, self.every, self.asked, self.saved = path, stop_after, every, 0, 0

    def due(self):
        self.asked += 1
        if self.asked > self.stop_after:
            raise Interrupted
        return self.asked % self.every == 0

    def load(self):
        return torch.load(self.path, weights_only=True) if self.path.exists() else None

    def save(self, state):
        self.saved += 1
        torch.save(state, self.path)


def assert_same(a: History, b: History) -> None:
    for name, value in vars(a).items():
        if name != "seconds":
            np.testing.assert_array_equal(value, getattr(b, name), err_msg=name)


class TestCheckpoints:
    @pytest.mark.parametrize("kind, name", STOPPED)
    def test_an_interrupted_training_goes_on_bit_for_bit(self, tmp_path, kind, name):
        """Twice interrupted, in between two saves; every time with a new model, a checkpoint and nothing else."""
        straight, of_straight = train(kind, name)
        interruptions = 0
        for stop_after in (3, 2, 1000):
            kept = Kept(tmp_path / "state", stop_after)
            try:
                history, model = train(kind, name, checkpoint=kept)
            except Interrupted:
                interruptions += 1
                assert kept.saved or kept.path.exists()
        assert interruptions == (len(straight) > 3) + (len(straight) > 4)  # all but the shortest one
        assert_same(history, straight)
        assert sums(model) == sums(of_straight)
        for ours, theirs in zip(model.parameters(), of_straight.parameters(), strict=True):
            assert torch.equal(ours, theirs)

    @pytest.mark.parametrize("kind, name", [("gd", "relative"), ("sgd", "span"), ("fit", "adam"), ("fit", "sgd+m")])
    def test_in_the_middle_of_a_save(self, tmp_path, kind, name):
        """The one before counts. And the model that comes may be another one: all its weights are in the state."""

        class Full(Kept):
            def save(self, state):
                if self.saved == 2:
                    raise Interrupted
                super().save(state)

        straight, of_straight = train(kind, name)
        with pytest.raises(Interrupted):
            train(kind, name, checkpoint=Full(tmp_path / "state", 1000))
        model, given = arguments(kind, name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        kept = Kept(tmp_path / "state", 1000)
        history = DOORS[kind](**given, checkpoint=kept)
        assert_same(history, straight)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), of_straight.parameters(), strict=True))
        assert kept.asked == 8 - 4  # the saved state is that before step 4

    def test_a_larger_kernel_is_followed_from_where_it_was(self, tmp_path, monkeypatch):
        """With subspace iteration, whose start is part of the state."""
        from catapults.tangent import eigenspace

        monkeypatch.setattr(eigenspace, "_SMALL", 8)
        for kind, name in (("gd", "relative"), ("sgd", "with replacement"), ("fit", "GD, settle")):
            straight, _ = train(kind, name)
            path = tmp_path / kind
            with pytest.raises(Interrupted):
                train(kind, name, checkpoint=Kept(path, 5))
            assert_same(train(kind, name, checkpoint=Kept(path, 1000))[0], straight)

    def test_a_state_has_simple_values_and_is_of_its_moment(self):
        kept = []

        class Listed(Kept):
            def load(self):
                return None

            def save(self, state):
                kept.append(state)

        def assert_simple(value):
            if isinstance(value, dict):
                assert type(value) is dict
                for key, item in value.items():
                    assert type(key) in (str, int)
                    assert_simple(item)
            elif isinstance(value, list):
                for item in value:
                    assert_simple(item)
            else:
                assert type(value) in (torch.Tensor, int, float, str, bool), type(value)

        for kind, name in (("gd", "Hessian"), ("sgd", "span"), ("fit", "adam")):
            kept.clear()
            train(kind, name, checkpoint=Listed(None, 1000, every=1))
            assert_simple(kept)
            weights = [state["weights"] for state in kept]
            assert len(weights) == 8 and not any(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    def test_of_another_training(self, tmp_path):
        with pytest.raises(Interrupted):
            train("sgd", "cnn", checkpoint=Kept(tmp_path / "state", 3))
        with pytest.raises(ValueError, match=r"checkpoint: is one of \[training = SGD, .*; allowed is one of \["):
            train("sgd", "with replacement", checkpoint=Kept(tmp_path / "state", 3))

    @pytest.mark.parametrize("replacement, n, size", [(False, 10, 3), (True, 10, 3), (True, 3, 8), (False, 4, 4)])
    def test_batches_go_on_wherever_they_stopped(self, replacement, n, size):
        batches = Batches(n, size, replacement, seed=2)
        expected = [next(batches) for _ in range(12)]
        for taken in range(9):
            first, second = (Batches(n, size, replacement, seed=s) for s in (2, 5))
            for _ in range(taken):
                next(first)
            second.load(first.state())
            again = Batches(n, size, replacement, seed=7)
            again.load(second.state())
            for batch in expected[taken:]:
                assert torch.equal(next(second), batch) and torch.equal(next(again), batch)


class TestTargets:
    """Numbers of any type, as they come from numpy or from labels."""

    @pytest.mark.parametrize(
        "kind, dtype",
        [
            *(("fcn", dtype) for dtype in (torch.float64, torch.int64, torch.uint8, torch.bool, torch.float16)),
            ("cnn", torch.float64),
            ("tanh", torch.bool),
        ],
    )
    @pytest.mark.usefixtures("no_type_checks")
    def test_whole_numbers_truth_values_and_other_floats(self, kind, dtype):
        model, inputs = network(kind)
        targets = torch.arange(12) % 2

        def run(targets):
            a, b, c = (copy.deepcopy(model) for _ in range(3))
            split = Split(inputs, targets)
            return (
                gradient_descent(a, inputs, targets, "0.5 eta_crit", 3, hessian_every=1),
                stochastic_gradient_descent(b, inputs, targets, "0.5 eta_crit", 4, 3, hessian_every=1),
                fit(c, split, split, 0.1, 4, 3, classes=2),
            )

        for found, expected in zip(run(targets.to(dtype)), run(targets.float()), strict=True):
            assert_same(found, expected)

    @pytest.mark.usefixtures("no_type_checks")
    def test_complex_numbers(self):
        model, inputs = network()
        with pytest.raises(ValueError, match=r"targets: torch.complex64; allowed are real numbers"):
            gradient_descent(model, inputs, torch.rand(12).cfloat(), 0.1, 2)


@pytest.mark.parametrize("kind", ["fcn", "cnn", "tanh"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_in_half_precision(kind, dtype):
    """A training does what it does in single precision, to the digits that the type has."""
    model, inputs = network(kind, outputs=2)
    targets = torch.rand(12, 2)
    models = [copy.deepcopy(model).to(dtype).to(kept) for kept in (dtype, torch.float32) for _ in range(3)]
    found, expected = (
        (
            gradient_descent(a, x, y, "0.5 eta_crit", 3, hessian_every=3),
            stochastic_gradient_descent(b, x, y, "0.3 eta_crit", 4, 3, hessian_every=3),
            fit(c, Split(x, y), Split(x, y), 0.1, 4, 3),
        )
        for (a, b, c), x, y in (
            (models[:3], inputs.to(dtype), targets.to(dtype)),
            (models[3:], inputs.to(dtype).float(), targets.to(dtype).float()),
        )
    )
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("learning_rate", "batch_loss", "loss", "batch_critical_learning_rate", "validation_loss"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0.05, err_msg=name)
        name = "batch_hessian_critical_learning_rate"
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0.1)


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize("given", [{"ids": torch.rand(3)}, [torch.rand(4)], np.random.rand(12, 10), iter([1])])
def test_inputs_of_other_kinds(given):
    model, inputs = network()
    targets = torch.rand(12)
    for bad, name in (((given, targets), "inputs"), ((inputs, given), "targets")):
        message = f"{name}: a {type(given).__name__}; allowed is a tensor"
        with pytest.raises(TypeError, match=message):
            gradient_descent(model, *bad, 0.1, 2)
        with pytest.raises(TypeError, match=message):
            stochastic_gradient_descent(model, *bad, 0.1, 4, 2)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", ["fcn", "cnn", "tanh"])
def test_autograd_that_the_caller_has_switched_off(off, kind):
    model, inputs = network(kind)
    targets = torch.rand(12)

    def run(inputs, a, b, c):
        split = Split(inputs, targets)
        histories = (
            gradient_descent(a, inputs, targets, "0.5 eta_crit", 3, hessian_every=2),
            stochastic_gradient_descent(b, inputs, targets, "0.5 eta_crit", 4, 3, hessian_every=2),
            fit(c, split, split, 0.1, 4, 3, critical_every=2),
        )
        return histories

    of_expected = [copy.deepcopy(model) for _ in range(3)]
    expected = run(inputs, *of_expected)
    for made_inside in (False, True):
        trained = [copy.deepcopy(model) for _ in range(3)]
        with off():
            histories = run(inputs.clone() if made_inside else inputs, *trained)
            assert torch.is_inference_mode_enabled() == (off is torch.inference_mode)
        for found, wanted in zip(histories, expected, strict=True):
            assert_same(found, wanted)
        assert [sums(m) for m in trained] == [sums(m) for m in of_expected]


def test_a_model_made_under_inference_mode():
    with torch.inference_mode():
        model, inputs = network()
    with pytest.raises(ValueError, match="model: has parameters made under torch.inference_mode"):
        gradient_descent(model, inputs, torch.rand(12), 0.1, 2)


class TestQuantities:
    def test_of_the_whole_set_at_each_state(self):
        """By hand: the Hessian's largest eigenvalue, and the norm of the weights."""

        def sharpness(point):
            return 2 / hessian.critical_learning_rate(point.model, point.inputs, point.targets)

        def error(point):
            return point.residual.abs().max().item()

        for kind in DOORS:
            model, given = arguments(kind, {"gd": "relative", "sgd": "span", "fit": "adam"}[kind])
            plain = DOORS[kind](**given)
            model, given = arguments(kind, {"gd": "relative", "sgd": "span", "fit": "adam"}[kind])
            own = [Quantity("sharpness", sharpness, 3), Quantity("error", error)]
            history = DOORS[kind](**given, quantities=own)
            assert history.quantities == ("sharpness", "error") and history.quantity_values.shape == (9, 2)
            known = np.flatnonzero(np.isfinite(history.quantity("sharpness")))
            assert known.tolist() == [0, 3, 6, 8] and np.isfinite(history.quantity("error")).all()
            for name, value in vars(plain).items():
                if "quantit" not in name and name != "seconds":
                    np.testing.assert_array_equal(getattr(history, name), value)  # measuring changes nothing
            model, given = arguments(kind, {"gd": "relative", "sgd": "span", "fit": "adam"}[kind])
            inputs = given["training"].inputs if kind == "fit" else given["inputs"]
            targets = given["training"].targets if kind == "fit" else given["targets"]
            residual = model(inputs).detach().flatten() - targets
            assert history.quantity("error")[0] == pytest.approx(residual.abs().max().item(), rel=1e-4)
            exact = hessian.critical_learning_rate(model, inputs, targets)
            assert history.quantity("sharpness")[0] == pytest.approx(2 / exact, rel=1e-3)
            with pytest.raises(ValueError, match="name = 'norm': allowed are sharpness, error"):
                history.quantity("norm")

    def test_where_a_rule_ends_the_training(self):
        model, given = arguments("sgd", "below")
        history = stochastic_gradient_descent(**given, quantities=[Quantity("one", lambda point: 1.0, 1000)])
        assert history.converged and np.isfinite(history.quantity("one")[[0, -1]]).all()

    def test_go_on_after_an_interruption(self, tmp_path):
        own = {"quantities": [Quantity("error", lambda point: point.loss, 2)]}
        straight, _ = train("gd", "relative", **own)
        with pytest.raises(Interrupted):
            train("gd", "relative", checkpoint=Kept(tmp_path / "state", 5), **own)
        assert_same(train("gd", "relative", checkpoint=Kept(tmp_path / "state", 100), **own)[0], straight)

    def test_two_of_one_name(self):
        model, given = arguments("gd", "relative")
        with pytest.raises(ValueError, match="quantities: a, a; allowed are different names"):
            gradient_descent(**given, quantities=[Quantity("a", lambda point: 1.0)] * 2)

    @pytest.mark.parametrize("wrong", [Quantity("a", lambda point: 1.0), [lambda point: 1.0], 3])
    @pytest.mark.usefixtures("no_type_checks")
    def test_what_are_none(self, wrong):
        model, given = arguments("gd", "relative")
        with pytest.raises(TypeError, match="^quantities = .*: allowed is a list of Quantity"):
            gradient_descent(**given, quantities=wrong)

    def test_a_period(self):
        with pytest.raises(ValueError, match="every = 0: allowed are whole numbers of at least 1"):
            Quantity("a", lambda point: 1.0, 0)


@pytest.mark.parametrize("kind, name", [pair for pair in NAMES if "divergence" in pair[1]])
def test_a_training_that_diverges_says_so_once(kind, name):
    model, given = arguments(kind, name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        history = DOORS[kind](**given)
    assert history.diverged and not history.converged
    (warning,) = [w for w in said if w.category is Diverged]
    text = str(warning.message)
    assert f"step {len(history)} " in text or f"step {len(history) - 1} " in text
    assert f"learning rate {history.learning_rate[-1]:.4g}" in text
    measured = np.isfinite([*history.critical_learning_rate, *history.batch_critical_learning_rate]).any()
    assert ("the last critical one measured was" in text) == measured
    for column in (history.batch_loss, history.learning_rate, history.seconds):
        assert not np.isnan(column).any()


@pytest.mark.parametrize("kind", DOORS)
def test_times(kind):
    history, _ = train(kind, next(iter(KINDS[kind])))
    assert history.seconds.shape == (len(history) + 1,) and (history.seconds > 0).all()
