import copy
import itertools
import math

import numpy as np
import pytest
import torch
from catapults import models, tangent
from catapults.data import Split
from catapults.tangent import descent
from catapults.training import Batches, Diverged, evaluation, fit, performance, probes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

N, B, STEPS = 12, 4, 9
BY = {
    "sgd": lambda parameters, rate: torch.optim.SGD(parameters, lr=rate),
    "sgd+m": lambda parameters, rate: torch.optim.SGD(parameters, lr=rate, momentum=0.9),
    "adam": lambda parameters, rate: torch.optim.Adam(parameters, lr=rate),
    "rmsprop": lambda parameters, rate: torch.optim.RMSprop(parameters, lr=rate),
    "adagrad": lambda parameters, rate: torch.optim.Adagrad(parameters, lr=rate),
    "adadelta": lambda parameters, rate: torch.optim.Adadelta(parameters, lr=rate),
}


def problem(model="fcn", outputs=1, seed=0, **options):
    """A network in float64, a training set and a validation set."""
    torch.manual_seed(seed)
    shape = (2, 4, 4) if model == "cnn" else (7,)
    network = models.cnn(2, 4, 4, 3, outputs, **options) if model == "cnn" else models.fcn(7, 32, 3, outputs, **options)
    targets = (outputs,) if outputs > 1 else ()
    sets = (Split(torch.randn(n, *shape).double(), torch.rand(n, *targets).double()) for n in (N, 10))
    return network.double(), *sets


def by_hand(model, training, validation, rates, batches, optimizer="sgd"):
    """Autograd and PyTorch's own optimiser: weights and losses before each step and after the last, batch losses."""
    model = copy.deepcopy(model)
    steps = BY[optimizer](model.parameters(), rates[0])
    states, losses, batch_losses = [], [], []
    for rate, batch in [*zip(rates, batches, strict=True), (None, None)]:
        states.append(copy.deepcopy(model))
        losses.append([loss_of(model, split).item() for split in (training, validation)])
        if rate is None:
            break
        for group in steps.param_groups:
            group["lr"] = rate
        steps.zero_grad()
        loss = loss_of(model, Split(training.inputs[batch], training.targets[batch]))
        batch_losses.append(loss.item())
        loss.backward()
        steps.step()
    return states, np.array(losses), np.array(batch_losses)


def loss_of(model, split):
    outputs = model(split.inputs)
    return nn.functional.mse_loss(outputs, split.targets.view_as(outputs))


def critical_of(model, inputs):
    """n c / ||K|| by autograd's Jacobian."""
    parameters = dict(model.named_parameters())
    jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (inputs,)).flatten())(parameters)
    J = torch.cat([part.flatten(1) for part in jacobian.values()], 1)
    return len(J) / torch.linalg.matrix_norm(J, 2).item() ** 2


def drawn(size, replacement=False, seed=0, steps=STEPS):
    if size == N:
        return [torch.arange(N)] * steps
    return list(itertools.islice(Batches(N, size, replacement, seed), steps))


def assert_same_weights(ours, theirs, **tolerance):
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, **({"rtol": 1e-8, "atol": 1e-10} | tolerance))


HOW = {
    "GD": {"batch_size": N},
    "GD with critical rates": {"batch_size": N, "critical_every": 2},
    "SGD": {"batch_size": B},
    "SGD with critical rates": {"batch_size": B, "critical_every": 1},
    "with replacement": {"batch_size": B, "replacement": True, "critical_every": 3},
    "batches of more than all": {"batch_size": N + 3, "replacement": True, "critical_every": 1},
    **{name: {"batch_size": B, "optimizer": name} for name in BY if name != "sgd"},
}
MODELS = {
    "one output": {},
    "biases": {"bias": True},
    "three outputs": {"outputs": 3},
    "cnn": {"model": "cnn", "outputs": 2},
}
FEW = [("one output", how) for how in HOW] + [
    (name, how) for name in MODELS for how in ("GD", "SGD", "SGD with critical rates", "adam") if name != "one output"
]


@pytest.mark.parametrize("name, how", FEW)
def test_a_training_is_that_of_a_plain_loop(name, how):
    """Losses, weights, and of these the best by the validation set."""
    model, training, validation = problem(**MODELS[name])
    options = {"critical_every": None} | HOW[how]
    rate = {"adam": 0.03, "rmsprop": 0.02}.get(options.get("optimizer"), 0.3)
    batches = drawn(options["batch_size"], options.get("replacement", False), seed=5)
    rates, optimizer = [rate] * STEPS, options.get("optimizer", "sgd")
    states, losses, batch_losses = by_hand(model, training, validation, rates, batches, optimizer)
    result = fit(model, training, validation, rate, steps=STEPS, seed=5, stop_below=0.0, **options)
    assert result.evaluated.tolist() == list(range(STEPS + 1)) and not result.diverged and not result.converged
    np.testing.assert_allclose(result.training_loss, losses[:, 0], rtol=1e-8)
    np.testing.assert_allclose(result.validation_loss, losses[:, 1], rtol=1e-8)
    np.testing.assert_allclose(result.batch_loss, batch_losses, rtol=1e-8)
    assert result.learning_rate.tolist() == rates and np.isnan(result.validation_error).all()
    assert result.best == losses[:, 1].argmin()
    assert_same_weights(model, states[result.best])


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("size, replacement", [(N, False), (B, False), (B, True), (N + 3, True)])
def test_the_steps_above_the_critical_rate_of_their_batch(size, replacement, every):
    """Counted by hand, each batch's kernel from autograd's Jacobian."""
    model, training, validation = problem(outputs=2)
    batches = drawn(size, replacement)
    eta = 1.02 * np.median([critical_of(model, training.inputs[batch]) for batch in batches[::every]])
    states, losses, _ = by_hand(model, training, validation, [eta] * STEPS, batches)
    of_steps = [critical_of(states[t], training.inputs[batches[t]]) for t in range(0, STEPS, every)]
    above = eta - np.repeat(of_steps, every)[:STEPS] > 1e-8
    assert 0 < above.sum() < STEPS  # both happen
    options = {"replacement": replacement, "critical_every": every, "evaluate_every": 2, "stop_below": 0.0}
    result = fit(model, training, validation, eta, size, STEPS, **options)
    assert result.evaluated.tolist() == [0, 2, 4, 6, 8, 9]
    assert result.steps_above.tolist() == [above[:t].sum() for t in result.evaluated]
    assert result.best == losses[result.evaluated, 1].argmin()
    assert result.catapults == above[: result.evaluated[result.best]].sum()
    initial = critical_of(states[0], training.inputs) if size == N else math.nan  # else nobody asked for it
    assert result.initial_critical_learning_rate == pytest.approx(initial, nan_ok=True)


def test_a_rate_has_to_exceed_the_critical_one_by_more_than_rounding(monkeypatch):
    monkeypatch.setattr(tangent, "critical_rate", lambda norm, n: 0.3 - 0.5e-8)
    assert fit(*problem(), 0.3, B, 3).steps_above.tolist() == [0, 0, 0, 0]
    monkeypatch.setattr(tangent, "critical_rate", lambda norm, n: 0.3 - 2e-8)
    assert fit(*problem(), 0.3, B, 3).steps_above.tolist() == [0, 1, 2, 3]


def test_no_critical_rates_count_as_no_step_above():
    assert not fit(*problem(), 3.0, B, 4, critical_every=None).steps_above.any()


class TestLargeSets:
    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.parametrize("size", [N, 10])
    def test_a_batch_in_parts_is_the_batch(self, monkeypatch, name, size):
        (whole, *sets), (parts, *_) = problem(**MODELS[name]), problem(**MODELS[name])
        one = fit(whole, *sets, 0.3, size, STEPS, critical_every=None)
        monkeypatch.setattr(descent, "_SIDE", 5)
        monkeypatch.setattr(evaluation, "_AT_ONCE", 7)
        several = fit(parts, *sets, 0.3, size, STEPS, critical_every=None)
        for field in ("batch_loss", "training_loss", "validation_loss"):
            np.testing.assert_allclose(getattr(several, field), getattr(one, field), rtol=1e-10)
        assert one.best == several.best
        assert_same_weights(parts, whole)

    def test_the_critical_rate_is_that_of_the_first_samples(self, monkeypatch):
        model, training, validation = problem(outputs=3)
        expected = critical_of(model, training.inputs[:5])
        assert expected != pytest.approx(critical_of(model, training.inputs), rel=0.01)
        monkeypatch.setattr(probes, "SUBSET", 5)
        result = fit(model, training, validation, "0.5 eta_crit", N, 2)
        assert result.initial_critical_learning_rate == pytest.approx(expected, rel=1e-6)

    def test_a_kernel_that_does_not_fit_into_memory(self, monkeypatch):
        expected = fit(*problem(), "0.5 eta_crit", N, 3)
        monkeypatch.setattr(tangent.Linearization, "kernel_fits", lambda self: False)
        found = fit(*problem(), "0.5 eta_crit", N, 3)
        np.testing.assert_allclose(found.learning_rate, expected.learning_rate, rtol=1e-4)
        assert found.steps_above.tolist() == expected.steps_above.tolist()


def rates_by_hand(model, training, first, raises, settle, every, steps):
    """Gradient descent whose rate changes as told, and is halved from ``settle`` steps after the last change on."""
    model, etas, eta, initial = copy.deepcopy(model), [], math.nan, critical_of(model, training.inputs)
    for t in range(steps):
        now = critical_of(model, training.inputs)
        if t in raises:
            eta = raises[t](initial, now)
        elif t == 0:
            eta = first * initial
        if settle is not None and t % every == 0 and t >= max(raises, default=0) + settle and eta > now:
            eta = now / 2
        etas.append(eta)
        model = by_hand(model, training, training, [eta], [torch.arange(N)])[0][1]
    return etas


SCHEDULES = {
    "a multiple": ("0.5 eta_crit", 0.5, {}),
    "too large": ("1.6 eta_crit", 1.6, {}),
    "of the moment": ("0.5 eta_crit; 3: 1.2 current eta_crit", 0.5, {3: lambda initial, now: 1.2 * now}),
    "of the start, later": ("0.5; 3: 1.2 eta_crit", None, {0: lambda *_: 0.5, 3: lambda initial, now: 1.2 * initial}),
    "twice": ("0.5 eta_crit; 2, 5: 1.3 current eta_crit", 0.5, dict.fromkeys((2, 5), lambda initial, now: 1.3 * now)),
}


@pytest.mark.parametrize("settle, every", [(None, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rates_of_a_schedule_and_when_they_are_lowered(name, settle, every):
    model, training, validation = problem()
    schedule, first, raises = SCHEDULES[name]
    expected = rates_by_hand(model, training, first, raises, settle, every, 8)
    initial = critical_of(model, training.inputs)
    result = fit(model, training, validation, schedule, N, 8, settle=settle, critical_every=every, stop_below=0.0)
    np.testing.assert_allclose(result.learning_rate, expected, rtol=1e-5)
    assert result.initial_critical_learning_rate == pytest.approx(initial, rel=1e-6)


def test_a_rate_is_lowered_only_where_it_exceeds_the_critical_one():
    kept, lowered = (
        fit(*problem(), f"{multiple} eta_crit", N, 6, settle=2, stop_below=0.0).learning_rate for multiple in (0.3, 1.9)
    )
    assert len(set(kept)) == 1
    assert lowered[0] == lowered[1] and len(set(lowered)) > 1 and (np.diff(lowered) <= 0).all()


def test_multiples_with_small_batches_are_of_the_whole_set():
    model, training, validation = problem()
    expected = 0.4 * critical_of(model, training.inputs)
    assert fit(model, training, validation, "0.4 eta_crit", B, 3).learning_rate == pytest.approx([expected] * 3)


def test_cycles():
    np.testing.assert_allclose(fit(*problem(), "0.1 .. 0.3, 2", B, 5).learning_rate, [0.1, 0.2, 0.3, 0.2, 0.1])


def test_a_network_that_has_died_keeps_its_rate():
    model, training, validation = problem()
    with torch.no_grad():
        for layer in (1, 3, 5):
            model[layer].weight.zero_()
    result = fit(model, training, validation, "0.1; 2: 2 current eta_crit", N, 4)
    assert result.learning_rate.tolist() == [0.1] * 4 and not result.steps_above.any()


class TestTheEnd:
    def test_patience(self):
        """From the run without: the first evaluation that is so many behind the best one until then."""
        model, training, validation = problem()
        validation = Split(validation.inputs, 5 * validation.targets.flip(0))  # which is not learned for long
        long = fit(copy.deepcopy(model), training, validation, 0.4, B, 80, stop_below=0.0)
        behind = [e - long.validation_loss[: e + 1].argmin() for e in range(81)]
        for patience in (1, 3, 6):
            short = fit(copy.deepcopy(model), training, validation, 0.4, B, 80, stop_below=0.0, patience=patience)
            end = next(e for e in range(81) if behind[e] >= patience)
            assert 0 < end < 80 and short.evaluated[-1] == end == len(short.batch_loss)
            assert short.best == end - patience and not short.converged and not short.diverged

    def test_below_the_goal_where_it_is_looked_at(self):
        result = fit(*problem(), "0.5 eta_crit", N, 400, stop_below=0.01, evaluate_every=7)
        assert result.converged and not result.diverged and len(result.batch_loss) < 400
        assert result.training_loss[-1] < 0.01 and (result.training_loss[:-1] >= 0.01).all()
        assert (np.diff(result.evaluated) == 7).all() and len(result.batch_loss) == result.evaluated[-1]

    def test_a_training_loss_that_nobody_asks_for(self):
        looked, unlooked = (fit(*problem(), 0.3, B, 5, stop_below=goal) for goal in (0.0, None))
        assert np.isnan(unlooked.training_loss).all() and not unlooked.converged and not unlooked.diverged
        assert unlooked.validation_loss.tolist() == looked.validation_loss.tolist() and unlooked.best == looked.best
        with pytest.warns(Diverged):
            assert fit(*problem(), 1e6, B, 50, stop_below=None).diverged

    def test_already_there(self):
        result = fit(*problem(), 0.1, B, 5, stop_below=1e3)
        assert result.converged and len(result.batch_loss) == 0 and result.evaluated.tolist() == [0]
        assert result.best == result.catapults == 0

    def test_the_last_step_is_evaluated(self):
        assert fit(*problem(), 0.1, B, 7, evaluate_every=3).evaluated.tolist() == [0, 3, 6, 7]

    @pytest.mark.parametrize("size, every", [(N, 1), (N, None), (B, 1), (B, None)])
    def test_divergence(self, size, every):
        """Is recorded, and the best weights before are left."""
        model, training, validation = problem()
        start = copy.deepcopy(model)
        with pytest.warns(Diverged, match="with learning rate 1000"):
            result = fit(model, training, validation, 1e3, size, 300, critical_every=every, evaluate_every=2)
        assert result.diverged and not result.converged and 0 < len(result.batch_loss) < 300
        assert len(result.batch_loss) == len(result.learning_rate)
        assert result.best == result.validation_loss.argmin() == 0
        assert_same_weights(model, start)
        assert loss_of(model, validation).item() == pytest.approx(result.validation_loss[0])


def test_the_same_again_and_other_seeds():
    (a, *sets), (b, *_), (c, *_) = (problem() for _ in range(3))
    first, again, other = (fit(model, *sets, 0.2, B, 6, seed=seed) for model, seed in ((a, 0), (b, 0), (c, 1)))
    assert np.array_equal(first.batch_loss, again.batch_loss) and first.best == again.best
    assert_same_weights(a, b, rtol=0, atol=0)
    assert not np.array_equal(first.batch_loss, other.batch_loss)


class Says(nn.Module):
    """Outputs that are told; the parameter makes it trainable."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        return self.scale * inputs


def sample(outputs, targets):
    return Split(torch.tensor(outputs, dtype=torch.float64), torch.tensor(targets, dtype=torch.float64))


class TestPerformance:
    def test_regression(self):
        loss, error = performance(Says(), sample([[1.0], [2.0], [4.0]], [1.0, 0.0, 1.0]), None)
        assert loss == pytest.approx((0 + 4 + 9) / 3) and math.isnan(error)

    @pytest.mark.parametrize(
        "outputs, targets, wrong",
        [
            ([[0.4], [0.6], [0.6], [-3.0]], [0.0, 1.0, 0.0, 0.0], 1),
            ([[0.4], [0.6], [0.6], [-3.0]], [-1.0, 1.0, 1.0, -1.0], 1),  # the middle is 0
            ([[-0.1], [0.1], [9.0], [-9.0]], [1.0, -1.0, -1.0, 1.0], 4),
            ([[0.1, 0.9], [0.9, 0.1], [0.2, 0.3], [0.5, 0.4]], [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], 1),
        ],
    )
    def test_two_classes(self, outputs, targets, wrong):
        loss, error = performance(Says(), sample(outputs, targets), 2)
        expected = np.square(np.array(outputs) - np.array(targets).reshape(np.shape(outputs))).mean()
        assert error == wrong / 4 and loss == pytest.approx(expected)

    @given(st.lists(st.tuples(st.integers(0, 2), st.permutations([0.0, 0.7, -2.0])), min_size=1, max_size=9))
    @settings(max_examples=30, deadline=None)
    @pytest.mark.parametrize("low", [0.0, -1.0])
    def test_several_classes(self, low, answers):
        numbers = [number for number, _ in answers]
        targets = [[1.0 if k == number else low for k in range(3)] for number in numbers]
        outputs = [list(values) for _, values in answers]
        wrong = sum(values.index(0.7) != number for number, values in zip(numbers, outputs, strict=True))
        assert performance(Says(), sample(outputs, targets), 3)[1] == pytest.approx(wrong / len(numbers))

    def test_targets_of_one_class_do_not_say_which_the_other_is(self):
        with pytest.raises(ValueError, match=r"split: its targets are all 1; allowed are targets of two classes"):
            performance(Says(), sample([[0.5], [0.7]], [1.0, 1.0]), 2)


def test_for_classes_the_error_comes_first_then_the_loss():
    """One weight w, samples at -1 and 2: with targets 0 and 1 the errors depend on 2 w > 1/2 and -w > 1/2 only."""
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(0.0)
    training = sample([[1.0]], [1.2])  # towards w = 1.2
    validation = sample([[2.0], [-1.0]], [1.0, 0.0])
    start = copy.deepcopy(model)
    result = fit(model, training, validation, 0.1, 1, 12, classes=2, stop_below=0.0)
    states = by_hand(start, training, validation, [0.1] * 12, [torch.arange(1)] * 12)[0]
    weights = np.array([state.weight.item() for state in states])
    errors, losses = (2 * weights <= 0.5) / 2, ((2 * weights - 1) ** 2 + weights**2) / 2
    np.testing.assert_allclose(result.validation_error, errors)
    np.testing.assert_allclose(result.validation_loss, losses)
    assert len(set(errors)) == 2
    assert result.best == min(range(13), key=lambda e: (errors[e], losses[e])) != 12
    assert model.weight.item() == pytest.approx(weights[result.best])


def test_for_classes_a_smaller_loss_with_a_larger_error_is_not_better():
    """Beyond the best loss, at w = 0.4, a larger weight gets more right."""
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(0.0)
    training, validation = sample([[1.0]], [2.0]), sample([[0.6], [4.0], [-1.0]], [1.0, 1.0, 0.0])
    by_error, by_loss = (
        fit(copy.deepcopy(model), training, validation, 0.1, 1, 12, classes=classes, stop_below=0.0)
        for classes in (2, None)
    )
    assert by_error.best == by_error.validation_error.argmin() != by_error.validation_loss.argmin()
    assert by_loss.best == by_error.validation_loss.argmin()


def test_parameters_that_are_not_trained_stay():
    model, training, validation = problem()
    model[1].requires_grad_(False)
    first = model[1].weight.clone()
    result = fit(model, training, validation, 0.3, B, 5, stop_below=0.0)
    assert torch.equal(model[1].weight, first) and result.batch_loss[0] != result.batch_loss[-1]


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"learning_rate": -1}, "learning_rate = -1: allowed are a positive number"),
        ({"learning_rate": "1; 5: 2"}, "learning_rate = '1; 5: 2': allowed are changes at iterations below steps = 5"),
        ({"batch_size": 0}, "batch_size = 0: allowed are whole numbers from 1 to 12"),
        ({"batch_size": 13}, "batch_size = 13: allowed are whole numbers from 1 to 12"),
        ({"batch_size": 0, "replacement": True}, "batch_size = 0: allowed are whole numbers of at least 1"),
        ({"steps": 0}, "steps = 0: allowed are whole numbers of at least 1"),
        ({"evaluate_every": 0}, "evaluate_every = 0"),
        ({"critical_every": 0}, "critical_every = 0"),
        ({"settle": 0}, "settle = 0"),
        ({"patience": 0}, "patience = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"optimizer": "lion"}, "optimizer = 'lion': allowed are sgd, sgd[+]m, adadelta, adagrad, rmsprop, adam"),
        ({"optimizer": "adam"}, "critical_every = 1: optimizer 'adam' has no critical rate; use None"),
        ({"settle": 3}, "settle = 3: allowed for gradient descent with critical_every"),
        ({"settle": 3, "batch_size": N, "critical_every": None}, "settle = 3: allowed for gradient descent"),
        ({"settle": 3, "batch_size": N, "learning_rate": "1 .. 2, 2"}, "settle = 3: .* no cycles of the rate"),
        ({"stop_below": -0.1}, "stop_below = -0.1: allowed are numbers of at least 0 and None"),
        ({"stop_below": math.nan}, "stop_below = nan"),
        ({"stop_below": math.inf}, "stop_below = inf"),
        ({"validation": Split(torch.rand(0, 7), torch.rand(0))}, "validation: holds no sample"),
        ({"training": Split(torch.rand(N, 7), torch.full((N,), math.nan))}, "training.targets: holds values"),
        ({"validation": Split(torch.full((3, 7), math.inf), torch.rand(3))}, "validation.inputs: holds values"),
        ({"training": Split(torch.rand(N, 7).double(), torch.rand(N, 2).double())}, r"targets: shape \(12, 2\)"),
    ],
)
@pytest.mark.usefixtures("no_type_checks")
def test_impossible_arguments(changed, message):
    model, training, validation = problem()
    start = copy.deepcopy(model)
    arguments = {"training": training, "validation": validation, "learning_rate": 0.1, "batch_size": B, "steps": 5}
    with pytest.raises(ValueError, match=message):
        fit(model, **arguments | changed)
    assert_same_weights(model, start, rtol=0, atol=0)


class TestNetworksThatCannotBeTrained:
    def test_no_finite_outputs(self):
        model, training, validation = problem()
        with torch.no_grad():
            model[-1].weight.fill_(1e200)
        with pytest.raises(ValueError, match="model: at initialisation its outputs or its tangent kernel"):
            fit(model, training, validation, 0.1, B, 5)

    @pytest.mark.parametrize("size", [N, B])
    def test_no_finite_kernel(self, size):
        """The outputs are zero, their derivatives by the last weights are not."""
        model, training, validation = problem()
        with torch.no_grad():
            model[1].weight.mul_(1e200), model[-1].weight.zero_()
        with pytest.raises(ValueError, match="model: at initialisation its outputs or its tangent kernel"):
            fit(model, training, validation, 0.1, size, 5)

    def test_no_kernel(self):
        model, training, validation = problem()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        with pytest.raises(ValueError, match="model: its tangent kernel is zero"):
            fit(model, training, validation, "1 eta_crit", B, 5)


@pytest.mark.gpu
@pytest.mark.parametrize("how", HOW)
def test_on_a_gpu(how):
    options = {"critical_every": None} | HOW[how]
    (here, *sets), (there, *_) = problem(), problem()
    on_gpu = [Split(s.inputs.cuda(), s.targets.cuda()) for s in sets]
    expected = fit(here, *sets, 0.02, steps=STEPS, **options)
    found = fit(there.cuda(), *on_gpu, 0.02, steps=STEPS, **options)
    np.testing.assert_allclose(found.validation_loss, expected.validation_loss, rtol=1e-6)
    assert_same_weights(there.cpu(), here, rtol=1e-6)
