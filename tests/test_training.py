import copy
import math
import weakref

import numpy as np
import pytest
import torch
from catapults import models, tangent, training
from catapults.tangent import eigenspace, hessian
from catapults.training import gradient_descent
from torch import nn


def problem(n=12, seed=0, outputs=1, **options):
    torch.manual_seed(seed)
    inputs = torch.randn(n, 10)
    targets = torch.rand(n, outputs) if outputs > 1 else torch.rand(n)
    return models.fcn(10, 64, 3, outputs, **options), inputs, targets


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_the_steps_are_those_of_torch_optim(outputs, bias):
    model, inputs, targets = problem(outputs=outputs, bias=bias)
    reference = copy.deepcopy(model)
    history = gradient_descent(model, inputs, targets, 0.3, steps=5)
    optimiser = torch.optim.SGD(reference.parameters(), lr=0.3)
    losses = []
    for _ in range(6):
        loss = nn.functional.mse_loss(reference(inputs), targets.view(12, -1))
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        if len(losses) <= 5:
            optimiser.step()
    np.testing.assert_allclose(history.loss, losses, rtol=1e-4)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_every_step_is_measured_before_its_update():
    model, inputs, targets = problem()
    initial = copy.deepcopy(model)
    history = gradient_descent(model, inputs, targets, 0.1, steps=3, top=2)
    assert len(history) == 3 and list(history.iteration) == [0, 1, 2, 3] and not history.diverged
    for network, t in ((initial, 0), (model, 3)):
        kernel = tangent.tangent_kernel(network, inputs)
        residual = network(inputs).detach()[:, 0] - targets
        norm = history.kernel_norm[t]
        assert norm == pytest.approx(torch.linalg.eigvalsh(kernel)[-1].item(), rel=1e-4)
        assert history.critical_learning_rate[t] == pytest.approx(12 / norm)
        assert history.splits[t, 0] == pytest.approx(tangent.split_loss(residual, kernel, 2), rel=1e-3)
    np.testing.assert_allclose(history.loss, history.loss_top + history.loss_rest, rtol=1e-4)
    assert (history.seconds > 0).all()


def test_below_the_critical_rate_the_loss_descends_and_above_it_a_wide_network_catapults():
    calm = gradient_descent(*problem(seed=1), "0.5 eta_crit", steps=15)
    assert (np.diff(calm.loss) < 0).all() and (calm.unstable_directions == 0).all()
    torch.manual_seed(0)
    inputs, targets = torch.randn(24, 20), torch.rand(24)
    catapult = gradient_descent(models.fcn(20, 1024, 3), inputs, targets, "2 eta_crit", steps=60)
    assert catapult.loss.max() > 1.5 * catapult.loss[0] and catapult.loss[-1] < catapult.loss[0]
    assert catapult.kernel_norm[-1] < catapult.kernel_norm[0]


def test_relative_rates_are_multiples_of_the_first_critical_rate():
    history = gradient_descent(*problem(), "0.25 eta_crit", steps=2)
    assert history.learning_rate == pytest.approx(0.25 * history.critical_learning_rate[0], rel=1e-4)


def test_rates_are_set_at_their_iterations():
    history = gradient_descent(*problem(), "0.5; 2: 0.25 eta_crit; 4: 0.5 current eta_crit", steps=6)
    critical = history.critical_learning_rate
    expected = [0.5, 0.5, 0.25 * critical[0], 0.25 * critical[0], *[0.5 * critical[4]] * 3]
    np.testing.assert_allclose(history.rate_at_states, expected, rtol=1e-6)
    assert history.learning_rate.tolist() == history.rate_at_states[:-1].tolist()


def test_the_batch_is_the_whole_set():
    """What holds for a batch in SGD holds for gradient descent, too."""
    history = gradient_descent(*problem(), "1.3 eta_crit", steps=4, hessian_every=3)
    assert history.batches.shape == (4, 0)
    for of_batch, whole in (
        (history.batch_loss, history.loss[:-1]),
        (history.batch_loss_after, history.loss[1:]),
        (history.batch_critical_learning_rate, history.critical_learning_rate[:-1]),
        (history.batch_hessian_critical_learning_rate, history.hessian_critical_learning_rate[:-1]),
    ):
        np.testing.assert_array_equal(of_batch, whole)
    assert history.exceeds[0] and history.initial_critical_learning_rate == history.critical_learning_rate[0]


def test_the_loss_is_split_at_several_dimensions():
    history = gradient_descent(*problem(outputs=3), 0.1, steps=2, top=[3, 9])
    one_by_one = [gradient_descent(*problem(outputs=3), 0.1, steps=2, top=s) for s in (3, 9)]
    for s, alone in zip((3, 9), one_by_one, strict=True):
        np.testing.assert_allclose(history.split(s), (alone.loss_top, alone.loss_rest), rtol=1e-5)
    assert (history.split(3)[0] <= history.split(9)[0]).all()
    np.testing.assert_array_equal(history.loss_rest, history.split(9)[1])
    with pytest.raises(ValueError, match="top = 5: allowed are 3, 9"):
        history.split(5)


def test_the_hessian_is_measured_at_the_weights_of_its_step():
    model, inputs, targets = problem()
    initial = copy.deepcopy(model)
    history = gradient_descent(model, inputs, targets, "1.2 eta_crit", steps=4, hessian_every=2)
    measured = history.hessian_critical_learning_rate
    assert list(np.isnan(measured)) == [False, True, False, True, False]
    column = targets[:, None]
    assert measured[0] == pytest.approx(hessian.critical_learning_rate(initial, inputs, column), rel=1e-3)
    assert measured[4] == pytest.approx(hessian.critical_learning_rate(model, inputs, column), rel=1e-3)
    plain = gradient_descent(initial, inputs, targets, "1.2 eta_crit", steps=4)
    np.testing.assert_allclose(history.loss, plain.loss, rtol=1e-4)  # measuring changes nothing


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_kernel_that_does_not_fit_is_not_formed_and_gives_the_same_run(monkeypatch, outputs):
    formed = gradient_descent(*problem(outputs=outputs), "1.5 eta_crit", steps=6, top=2)
    monkeypatch.setattr(tangent.Linearization, "kernel_fits", lambda self: False)
    monkeypatch.setattr(tangent.Linearization, "kernel", lambda self: pytest.fail("formed"))
    monkeypatch.setattr(eigenspace, "_SMALL", 20)
    free = gradient_descent(*problem(outputs=outputs), "1.5 eta_crit", steps=6, top=2)
    for name in ("loss", "loss_top", "loss_rest", "kernel_norm", "unstable_directions"):
        np.testing.assert_allclose(getattr(free, name), getattr(formed, name), rtol=1e-3)


def test_divergence_is_recorded():
    with pytest.warns(training.Diverged, match="diverges at step [123] with learning rate 1e[+]04, where"):
        history = gradient_descent(*problem(), 1e4, steps=50)
    assert history.diverged and len(history) < 50
    assert history.loss[-1] > training.DIVERGED * min(history.loss[0], 1) or math.isinf(history.loss[-1])
    assert math.isnan(history.kernel_norm[-1]) and np.isnan(history.splits[-1]).all()
    assert np.isfinite(history.loss[:-1]).all() and history.measured == len(history)


@pytest.mark.parametrize("scale, rate", [(1e30, 0.1), (1e30, "1 eta_crit"), (0.0, "1 eta_crit"), (math.nan, 0.1)])
def test_initialisations_without_a_kernel(scale, rate):
    model, inputs, targets = problem()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
    with pytest.raises(ValueError, match="not finite"):
        gradient_descent(model, inputs, targets, rate, steps=3)


def test_a_dead_network_keeps_its_rate():
    """After the first step all ReLUs are off: the kernel is zero, of which no multiple is a learning rate."""
    model, inputs, targets = problem()
    with torch.no_grad():
        model[-1].weight.abs_()
    model[-1].requires_grad_(False)
    inputs = inputs.abs()
    with torch.no_grad():
        model[1].weight.abs_()
        model[3].weight.abs_()
    history = gradient_descent(model, inputs, targets - 100, "60 eta_crit; 2: 1.5 current eta_crit", steps=4)
    assert math.isinf(history.critical_learning_rate[2]) and len(history) == 4
    assert (history.learning_rate == history.learning_rate[0]).all()


def test_an_error_of_the_hessian_is_no_gap_in_its_column(monkeypatch):
    def failing(*arguments):
        raise ValueError("model: its Hessian does not exist")

    monkeypatch.setattr(hessian, "critical_learning_rate", failing)
    with pytest.raises(ValueError, match="model: its Hessian does not exist"):
        gradient_descent(*problem(), 0.1, steps=2, hessian_every=1)


def test_a_step_holds_one_kernel_only(monkeypatch):
    alive, most = weakref.WeakSet(), []
    formed = tangent.Linearization._zeros

    def zeros(self):
        kernel = formed(self)
        alive.add(kernel)
        most.append(len(alive))
        return kernel

    monkeypatch.setattr(tangent.Linearization, "_zeros", zeros)
    gradient_descent(*problem(), 0.1, steps=4)
    assert max(most) == 1 and len(most) == 5


def test_the_same_seed_gives_the_same_numbers():
    first, second = (gradient_descent(*problem(), "1.5 eta_crit", steps=10) for _ in range(2))
    assert np.array_equal(first.loss, second.loss) and np.array_equal(first.kernel_norm, second.kernel_norm)


@pytest.mark.usefixtures("no_type_checks")
@pytest.mark.parametrize(
    "changed, message",
    [
        ({"steps": 0}, "steps = 0: allowed are whole numbers of at least 1"),
        ({"steps": 2.5}, "steps = 2.5"),
        ({"top": 12}, "top = 12: allowed are whole numbers from 1 to 11"),
        ({"top": [3, 2]}, r"top = \[3, 2\]: allowed are whole numbers from 1 to 11, ascending"),
        ({"top": []}, r"top = \[\]: allowed"),
        ({"top": 2.5}, "top = 2.5: allowed"),
        ({"hessian_every": 0}, "hessian_every = 0: allowed are whole numbers of at least 1"),
        ({"learning_rate": "1; 2: 3"}, "learning_rate = '1; 2: 3': allowed are changes at iterations below steps = 2"),
        ({"targets": torch.rand(11)}, r"targets: shape \(11,\); allowed is as many a sample as outputs"),
        ({"targets": torch.full((12,), math.nan)}, "targets: holds values that are not finite"),
        ({"inputs": torch.full((12, 10), math.inf)}, "inputs: holds values that are not finite"),
    ],
)
def test_impossible_arguments(changed, message):
    model, inputs, targets = problem()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        gradient_descent(
            **{"model": model, "inputs": inputs, "targets": targets, "learning_rate": 1, "steps": 2} | changed
        )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.gpu
def test_the_gpu_gives_the_same_run():
    model, inputs, targets = problem()
    reference = gradient_descent(copy.deepcopy(model), inputs, targets, "1.5 eta_crit", steps=10)
    ours = gradient_descent(model.cuda(), inputs.cuda(), targets.cuda(), "1.5 eta_crit", steps=10)
    np.testing.assert_allclose(ours.loss, reference.loss, rtol=1e-2)
