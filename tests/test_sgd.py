import copy
import itertools
import math

import numpy as np
import pytest
import torch
from catapults import models, tangent
from catapults.sgd import stochastic_gradient_descent
from catapults.tangent import blocks as kernel_blocks
from catapults.tangent import hessian
from catapults.training import Batches, Diverged, probes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

N, B = 12, 4


def problem(model="fcn", outputs=1, seed=0, **options):
    torch.manual_seed(seed)
    targets = torch.rand(N, outputs) if outputs > 1 else torch.rand(N)
    if model == "cnn":
        return models.cnn(2, 4, 6, 3, outputs, **options), torch.randn(N, 2, 4, 4), targets
    size = options.pop("size", 10)
    return models.fcn(size, 64, 3, outputs, **options), torch.randn(N, size), targets


def reference(model, inputs, targets, rates, drawn):
    """The same run by autograd in float64: the network before each step and after the last one."""
    model, inputs, targets = copy.deepcopy(model).double(), inputs.double(), targets.double()
    networks = [copy.deepcopy(model)]
    for rate, batch in zip(rates, drawn, strict=True):
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
        optimiser.zero_grad()
        loss_of(model, inputs[batch], targets[batch]).backward()
        optimiser.step()
        networks.append(copy.deepcopy(model))
    return networks, inputs, targets


def loss_of(model, inputs, targets):
    outputs = model(inputs)
    return nn.functional.mse_loss(outputs, targets.view_as(outputs))


def jacobian_of(model, inputs):
    """(n c, p) by autograd."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (inputs,)).flatten())(parameters)
    return torch.cat([part.flatten(1) for part in jacobian.values()], 1).detach()


def norm_of(model, inputs):
    """||K||."""
    return torch.linalg.matrix_norm(jacobian_of(model, inputs), 2).item() ** 2


CASES = {
    "fcn": {},
    "biases": {"bias": True},
    "three outputs": {"outputs": 3},
    "cnn": {"model": "cnn", "bias": True},
    "PyTorch": {"parameterization": "pytorch", "bias": True},
    "more inputs than samples": {"size": 30, "bias": True},
}


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_everything_measured_is_what_float64_autograd_gives(case, replacement):
    model, inputs, targets = problem(**case)
    initial = copy.deepcopy(model)
    h = stochastic_gradient_descent(
        model, inputs, targets, "0.7 eta_crit", B, 7, replacement=replacement, seed=3, hessian_every=3
    )
    networks, inputs, targets = reference(initial, inputs, targets, h.learning_rate, h.batches)
    for ours, theirs in zip(model.parameters(), networks[-1].parameters(), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-4)
    outputs = networks[0](inputs).shape[1]
    np.testing.assert_allclose(h.learning_rate, 0.7 * N * outputs / norm_of(networks[0], inputs), rtol=1e-4)
    assert len(h) == 7 and len(h.loss) == 8 and not h.diverged and not h.converged
    np.testing.assert_allclose(h.loss, [loss_of(net, inputs, targets).item() for net in networks], rtol=1e-3)
    np.testing.assert_allclose(h.kernel_norm, [norm_of(net, inputs) for net in networks], rtol=1e-3)
    np.testing.assert_allclose(h.critical_learning_rate, N * outputs / h.kernel_norm)
    np.testing.assert_allclose(sum(h.split(1)), h.loss, rtol=1e-4)
    for t, batch in enumerate(h.batches):
        before, after = (loss_of(networks[i], inputs[batch], targets[batch]).item() for i in (t, t + 1))
        np.testing.assert_allclose((h.batch_loss[t], h.batch_loss_after[t]), (before, after), rtol=1e-3)
        critical = B * outputs / norm_of(networks[t], inputs[batch])
        assert h.batch_critical_learning_rate[t] == pytest.approx(critical, rel=1e-3)
        assert h.exceeds[t] == (h.learning_rate[t] > critical)
        if t % 3 == 0:
            exact = hessian.critical_learning_rate(networks[t], inputs[batch], targets[batch])
            assert h.batch_hessian_critical_learning_rate[t] == pytest.approx(exact, rel=1e-2)
        else:
            assert math.isnan(h.batch_hessian_critical_learning_rate[t])


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_break_even_rates_are_those_of_the_jacobian_in_float64(case, replacement):
    model, inputs, targets = problem(**case)
    initial = copy.deepcopy(model)
    with torch.inference_mode():
        outputs = model(inputs).shape[1]
    h = stochastic_gradient_descent(
        model, inputs, targets, "0.7 eta_crit", B, 5, replacement=replacement, seed=3, break_even_every=2
    )
    networks, inputs, targets = reference(initial, inputs, targets, h.learning_rate, h.batches)
    for t, batch in enumerate(h.batches):
        if t % 2:
            assert np.isnan([h.batch_break_even_rate[t], h.whole_break_even_rate[t]]).all()
            continue
        J = jacobian_of(networks[t], inputs).unflatten(0, (N, outputs))
        r = networks[t](inputs).detach() - targets.view(N, outputs)
        K_B = J.flatten(0, 1) @ J[batch].flatten(0, 1).T  # all rows, the batch's columns
        of_batch, of_all = r[batch].flatten(), r.flatten()
        change = (K_B @ of_batch).unflatten(0, (N, outputs))
        rows = B * outputs
        expected = rows * of_batch @ change[batch].flatten() / change[batch].square().sum()
        assert h.batch_break_even_rate[t] == pytest.approx(expected.item(), rel=1e-3)
        assert h.batch_break_even_rate[t] >= h.batch_critical_learning_rate[t] * (1 - 1e-3)
        expected = rows * of_all @ change.flatten() / change.square().sum()
        assert h.whole_break_even_rate[t] == pytest.approx(expected.item(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("whose", ["batch", "whole"])
def test_a_linear_model_breaks_even_exactly_there(whose):
    """Just below the loss falls with the step, just above it rises."""
    inputs, targets = torch.randn(N, 5, generator=torch.Generator().manual_seed(1)), torch.arange(N) / N
    start = nn.Linear(5, 1)

    def after(rate):
        model = copy.deepcopy(start)
        h = stochastic_gradient_descent(model, inputs, targets, rate, B, 1, break_even_every=1)
        known = {"batch": (h.batch_break_even_rate, h.batch_loss, h.batch_loss_after)}
        return known.get(whose, (h.whole_break_even_rate, h.loss[:1], h.loss[1:]))

    even = after(0.01)[0][0]
    assert even > 0
    _, before, below = after(0.999 * even)
    _, _, above = after(1.001 * even)
    assert below[0] < before[0] < above[0]


def test_measuring_break_even_rates_changes_no_number():
    model, *data = problem("cnn", outputs=2)
    plain, measured = (
        stochastic_gradient_descent(copy.deepcopy(model), *data, 0.2, B, 6, break_even_every=every)
        for every in (None, 1)
    )
    np.testing.assert_allclose(measured.loss, plain.loss, rtol=1e-5)
    assert np.isnan(plain.whole_break_even_rate).all() and np.isfinite(measured.whole_break_even_rate).all()


@pytest.mark.parametrize("every", [1, 3])
def test_turning_is_what_the_eigenvectors_do(every):
    model, inputs, targets = problem()
    initial = copy.deepcopy(model)
    h = stochastic_gradient_descent(model, inputs, targets, "1 eta_crit", B, 6, top=[1, 2], kernel_every=every)
    networks, inputs, targets = reference(initial, inputs, targets, h.learning_rate, h.batches)
    assert np.isnan(h.turning[0]).all()
    for start, end in itertools.pairwise(range(0, 7, every)):
        (_, before), (r, after) = (residual_and_vectors(networks[t], inputs, targets) for t in (start, end))
        for place, s in enumerate((1, 2)):
            rests = [r.square().mean() - (r @ vectors[:, -s:]).square().sum() / N for vectors in (before, after)]
            expected = (rests[1] - rests[0]).item()
            assert h.turning[end, place] == pytest.approx(expected, rel=2e-3, abs=1e-5)
            assert h.turned(s, start, end) == h.turning[end, place]
    first, last = h.turning[every, 0], h.turning[2 * every, 0]
    assert h.turned(1, 0, 2 * every) == pytest.approx(first + last)
    assert math.isnan(h.turned(1, 0, 0)) and (every == 1 or math.isnan(h.turned(1, 0, 1)))


def residual_and_vectors(model, inputs, targets):
    J = jacobian_of(model, inputs)
    return model(inputs).detach()[:, 0] - targets, torch.linalg.eigh(J @ J.T)[1]


def test_the_split_is_along_the_whole_kernel():
    model, inputs, targets = problem()
    initial = copy.deepcopy(model)
    h = stochastic_gradient_descent(model, inputs, targets, 0.1, B, 2, top=[1, 3])
    for network, t in ((initial, 0), (model, 2)):
        residual = network(inputs).detach()[:, 0] - targets
        kernel = tangent.tangent_kernel(network, inputs)
        for s in (1, 3):
            expected = tangent.split_loss(residual, kernel, s)
            np.testing.assert_allclose([part[t] for part in h.split(s)], expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="top = 2: allowed are 1, 3"):
        h.split(2)


def test_what_is_measured_now_and_then_is_what_is_measured_always():
    always, seldom = (
        stochastic_gradient_descent(*problem(), 0.3, B, 11, **every)
        for every in ({}, {"loss_every": 3, "kernel_every": 4})
    )
    known = [0, 3, 4, 6, 8, 9, 11]  # a kernel comes with the loss; the last one always
    assert np.flatnonzero(np.isfinite(seldom.loss)).tolist() == known
    assert np.flatnonzero(np.isfinite(seldom.kernel_norm)).tolist() == [0, 4, 8, 11]
    assert np.flatnonzero(np.isfinite(seldom.batch_loss_after)).tolist() == [t - 1 for t in known if t]
    np.testing.assert_allclose(seldom.loss[known], always.loss[known], rtol=1e-4)
    np.testing.assert_allclose(seldom.kernel_norm[[0, 4, 8, 11]], always.kernel_norm[[0, 4, 8, 11]], rtol=1e-4)
    for name in ("batches", "batch_loss", "batch_critical_learning_rate", "learning_rate"):
        assert np.array_equal(getattr(always, name), getattr(seldom, name))


def test_no_kernel_of_the_whole_set():
    h = stochastic_gradient_descent(*problem(), 0.3, B, 3, kernel_every=None)
    assert np.isnan(h.kernel_norm).all() and np.isnan(h.splits).all() and np.isfinite(h.loss).all()
    relative = stochastic_gradient_descent(*problem(), "1 eta_crit", B, 3, kernel_every=None)
    assert np.flatnonzero(np.isfinite(relative.kernel_norm)).tolist() == [0]  # which the rate is a multiple of


def test_the_same_again_and_another_seed():
    first, again, other = (
        stochastic_gradient_descent(*problem(), "0.5 eta_crit", B, 6, seed=seed) for seed in (0, 0, 1)
    )
    assert np.array_equal(first.loss, again.loss) and np.array_equal(first.batches, again.batches)
    assert not np.array_equal(first.batches, other.batches)


def test_parameters_that_are_not_trained_stay_and_do_not_count():
    model, inputs, targets = problem()
    model[-1].requires_grad_(False)
    last = model[-1].weight.clone()
    h = stochastic_gradient_descent(model, inputs, targets, 0.1, B, 3)
    assert torch.equal(model[-1].weight, last)
    assert h.kernel_norm[-1] == pytest.approx(norm_of(model.double(), inputs.double()), rel=1e-3)


class TestTheEnd:
    def test_below_the_goal(self):
        h = stochastic_gradient_descent(*problem(), "0.5 eta_crit", N, 500, stop_below=0.01, kernel_every=50)
        assert h.converged and not h.diverged and h.loss[-1] < 0.01 and len(h) < 500
        assert (h.loss[:-1] >= 0.01).all() and np.isfinite(h.kernel_norm[-1])
        assert len(h.loss) == len(h) + 1 == len(h.kernel_norm)

    def test_already_there(self):
        model, inputs, targets = problem()
        h = stochastic_gradient_descent(model, inputs, model(inputs).detach()[:, 0], 0.1, B, 5, stop_below=0.1)
        assert h.converged and len(h) == 0 and len(h.loss) == 1 and h.batches.shape == (0, B)

    def test_divergence(self):
        with pytest.warns(Diverged, match="diverges at step [12] with learning rate"):
            h = stochastic_gradient_descent(*problem(), "60 eta_crit", B, 200)
        assert h.diverged and not h.converged and 0 < len(h) < 200
        assert np.isfinite(h.loss[0]) and len(h.loss) == len(h) + 1 and np.isfinite(h.batch_loss).all()


@pytest.mark.parametrize("every", [{}, {"loss_every": 5, "kernel_every": None}])
def test_divergence_between_measurements_with_a_hessian(every):
    with pytest.warns(Diverged):
        h = stochastic_gradient_descent(*problem(), "60 eta_crit", B, 200, hessian_every=1, **every)
    assert h.diverged and np.isfinite(h.batch_loss).all()


class TestRates:
    def test_steps(self):
        h = stochastic_gradient_descent(*problem(), "0.3; 2: 0.2; 4: 0.1", B, 6)
        assert h.learning_rate.tolist() == [0.3, 0.3, 0.2, 0.2, 0.1, 0.1]

    def test_multiples_of_the_moment(self):
        h = stochastic_gradient_descent(
            *problem(), "0.5 eta_crit; 3: 0.5 current eta_crit", B, 5, kernel_every=None, loss_every=2
        )
        assert h.learning_rate[0] == pytest.approx(0.5 * h.critical_learning_rate[0])
        assert h.learning_rate[4] == pytest.approx(0.5 * h.critical_learning_rate[3])

    def test_a_multiple_that_comes_later(self):
        h = stochastic_gradient_descent(*problem(), "0.1; 3: 0.5 eta_crit", B, 5, kernel_every=None, loss_every=2)
        assert h.learning_rate[0] == 0.1 and h.learning_rate[4] == pytest.approx(0.5 * h.critical_learning_rate[0])

    def test_a_network_that_dies_keeps_its_rate(self):
        model, inputs, targets = problem()
        with torch.no_grad():
            model[-1].weight.mul_(1e-30), model[-3].weight.mul_(1e-30)
        h = stochastic_gradient_descent(model, inputs, targets, "0.1; 2: 2 current eta_crit", B, 4)
        assert h.learning_rate.tolist() == [0.1] * 4 and np.isinf(h.critical_learning_rate).all()

    def test_cycles(self):
        h = stochastic_gradient_descent(*problem(), "0.1 .. 0.3, 2", B, 6)
        np.testing.assert_allclose(h.learning_rate, [0.1, 0.2, 0.3, 0.2, 0.1, 0.2])
        h = stochastic_gradient_descent(*problem(), "0.2 eta_crit .. 0.4 eta_crit, 1", B, 4)
        np.testing.assert_allclose(h.learning_rate / h.critical_learning_rate[0], [0.2, 0.4, 0.2, 0.4])


class TestBatches:
    @given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
    def test_without_replacement_every_sample_has_its_turn(self, n, size, seed):
        size = min(n, size)
        drawn = torch.stack(list(itertools.islice(Batches(n, size, False, seed), 3 * (n // size))))
        assert drawn.shape == (3 * (n // size), size)
        for epoch in drawn.view(3, -1):
            assert len(set(epoch.tolist())) == len(epoch) == n - n % size

    def test_with_replacement_samples_recur(self):
        drawn = torch.stack(list(itertools.islice(Batches(5, 4, True, 0), 2000))).flatten()
        counts = torch.bincount(drawn, minlength=5) / len(drawn)
        assert (counts - 0.2).abs().max() < 0.02
        assert torch.equal(next(Batches(3, 8, True, 1)).bincount(minlength=3).sum(), torch.tensor(8))

    def test_seeds(self):
        first, again, other = (torch.stack(list(itertools.islice(Batches(20, 3, False, s), 9))) for s in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)


@given(st.integers(0, 200), st.floats(0.05, 0.95))
@settings(max_examples=25)
def test_below_the_critical_rate_of_the_batch_a_linear_model_lowers_its_loss(seed, part):
    """Where the curvature does not change, the critical rate is exact."""
    torch.manual_seed(seed)
    model, inputs, targets = nn.Linear(10, 1), torch.randn(N, 10), torch.randn(N)
    h = stochastic_gradient_descent(model, inputs, targets, f"{part * B / N} eta_crit", B, 8)
    assert not h.exceeds.any() and (h.batch_loss_after <= h.batch_loss * (1 + 1e-5)).all()
    above = stochastic_gradient_descent(model, inputs, targets[:], 3 * h.batch_critical_learning_rate.max(), N, 2)
    assert above.exceeds.all()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"learning_rate": -1}, "learning_rate = -1: allowed are a positive number"),
        ({"learning_rate": "1; 9: 2"}, "learning_rate = '1; 9: 2': allowed are changes at iterations below steps = 5"),
        ({"batch_size": 0}, "batch_size = 0: allowed are whole numbers from 1 to 12"),
        ({"batch_size": 13}, "batch_size = 13: allowed are whole numbers from 1 to 12"),
        ({"batch_size": 0, "replacement": True}, "batch_size = 0: allowed are whole numbers of at least 1"),
        ({"steps": 0}, "steps = 0"),
        ({"loss_every": 0}, "loss_every = 0"),
        ({"kernel_every": 0}, "kernel_every = 0"),
        ({"hessian_every": -1}, "hessian_every = -1"),
        ({"seed": -1}, "seed = -1"),
        ({"stop_below": -0.1}, "stop_below = -0.1: allowed are numbers of at least 0"),
        ({"stop_below": math.nan}, "stop_below = nan"),
        ({"top": 12}, "top = 12: allowed are whole numbers from 1 to 11"),
        ({"targets": torch.rand(5)}, "targets: shape"),
        ({"targets": torch.full((N,), math.nan)}, "targets: holds values that are not finite"),
    ],
)
@pytest.mark.usefixtures("no_type_checks")
def test_impossible_arguments(changed, message):
    model, inputs, targets = problem()
    start = [p.clone() for p in model.parameters()]
    arguments = {"targets": targets, "learning_rate": 0.1, "batch_size": B, "steps": 5} | changed
    with pytest.raises(ValueError, match=message):
        stochastic_gradient_descent(model, inputs, **arguments)
    assert all(torch.equal(a, b) for a, b in zip(start, model.parameters(), strict=True))


def test_a_network_without_outputs_that_are_finite():
    model, inputs, targets = problem()
    with torch.no_grad():
        model[-1].weight.fill_(math.inf)
    with pytest.raises(ValueError, match="model: its outputs are not finite"):
        stochastic_gradient_descent(model, inputs, targets, 0.1, B, 5)


def test_a_dead_network_has_no_critical_rate():
    model, inputs, targets = problem()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    with pytest.raises(ValueError, match="model: its tangent kernel is zero"):
        stochastic_gradient_descent(model, inputs, targets, "1 eta_crit", B, 5)


def test_larger_batches_than_a_block_of_the_kernel(monkeypatch):
    """Then the norm comes from subspace iteration and not from all eigenvalues."""
    whole = stochastic_gradient_descent(*problem(), 0.2, N, 2)
    monkeypatch.setattr(kernel_blocks, "SIDE", 5)
    blocks = stochastic_gradient_descent(*problem(), 0.2, N, 2)
    np.testing.assert_allclose(blocks.batch_critical_learning_rate, whole.batch_critical_learning_rate, rtol=1e-4)
    np.testing.assert_allclose(blocks.loss, whole.loss, rtol=1e-4)


@pytest.mark.gpu
def test_on_a_gpu():
    model, inputs, targets = problem()
    here = stochastic_gradient_descent(copy.deepcopy(model), inputs, targets, "0.5 eta_crit", B, 5, hessian_every=2)
    there = stochastic_gradient_descent(
        model.cuda(), inputs.cuda(), targets.cuda(), "0.5 eta_crit", B, 5, hessian_every=2
    )
    assert np.array_equal(here.batches, there.batches)
    for name in ("loss", "kernel_norm", "batch_critical_learning_rate", "batch_loss_after"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-3)


def test_the_whole_set_is_measured_in_parts(monkeypatch):
    all_at_once = stochastic_gradient_descent(*problem(), 0.2, B, 3, kernel_every=None)
    monkeypatch.setattr(probes, "_AT_ONCE", 5)
    in_parts = stochastic_gradient_descent(*problem(), 0.2, B, 3, kernel_every=None)
    np.testing.assert_allclose(in_parts.loss, all_at_once.loss, rtol=1e-5)
