import copy
import math
import sys

import numpy as np
import pytest
import torch
from catapults import training
from catapults.compute import obtain
from catapults.compute.trainings import compute
from catapults.experiments import ParameterError
from catapults.experiments.scaling import CNN, FCN, WARM_STEPS, Performance, Scaled, Scaling
from catapults.figures import scaling as figures
from catapults.paper import judge
from catapults.paper.descriptions import describe
from catapults.paper.scaling import bounds, eigenspace, growth, limit
from histories import made

SMALL = {
    "samples": [8, 12], "input_dim": 6, "width": 16, "channels": 2, "image_size": 4, "depth": 3,
    "learning_rate": "0.5 eta_crit", "top": 2, "seconds": 1e-3, "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def measurement(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATAPULTS_RESULTS", str(tmp_path_factory.mktemp("results")))
        page = Performance.create(**SMALL)
        yield page, obtain(page, device="cpu", progress=False)


@pytest.fixture(scope="module")
def run(measurement):
    page, results = measurement
    return page.runs(results)[0]


@pytest.fixture(scope="module")
def timed(measurement):
    """The module of benchmarks/ that measured."""
    return sys.modules["benchmarks.scaling"]


@pytest.fixture(scope="module")
def networks(timed):
    return timed.networks(Scaling.create(**SMALL), "cpu")


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"samples": []}, r"samples = \[\]: allowed are one or several whole numbers that ascend"),
        ({"samples": [12, 8]}, r"samples = \[12, 8\]: allowed are one or several whole numbers that ascend"),
        ({"samples": [8, 8]}, r"samples = \[8, 8\]: allowed are"),
        ({"samples": [1, 8]}, r"samples = \[1, 8\]: input should be greater than or equal to 2"),
        ({"samples": 8}, "samples = 8: input should be a valid list"),
        ({"top": 8}, "top = 8: allowed are whole numbers from 1 to 7"),
        ({"width": 0}, "width = 0: input should be greater than or equal to 1"),
        ({"input_dim": 1}, "input_dim = 1: input should be greater than or equal to 2"),
        ({"depth": 2}, "depth = 2: input should be greater than or equal to 3"),
        ({"seconds": 0.0}, "seconds = 0.0: input should be greater than 0"),
        ({"seconds": math.inf}, "seconds = inf: input should be a finite number"),
        ({"learning_rate": "fast"}, "learning_rate = 'fast': allowed are a positive number"),
        ({"widht": 16}, "widht: unknown parameter"),
    ],
)
def test_impossible_values_are_refused(changed, message):
    with pytest.raises(ParameterError, match=message):
        Performance.create(**SMALL | changed)


def test_a_run_measures_both_networks_at_every_number_of_samples(run):
    assert list(run.points) == [FCN, CNN]
    for points in run.points.values():
        assert [point.n for point in points] == SMALL["samples"]
        for point in points:
            assert point.rounds >= 2 and point.ratio == point.ours / point.plain
            assert min(point.plain, point.ours, point.first, point.product) > 0
            assert point.kernel_mib == point.n**2 * 4 / 2**20
    assert run.compared == 12 and all(errors.largest < 1e-3 for errors in run.errors.values())


def test_it_is_described_and_has_no_claims_of_the_paper(measurement, run):
    page, results = measurement
    said = describe([run], results).markdown
    assert "16 neurons and 6 inputs" in said and "on cpu at learning rate 0.5 eta_crit" in said
    assert said.endswith("s of one core.") and len(judge(page, results)) == 0
    for text in (growth(run), eigenspace(run), limit(run), bounds(run)):
        assert "nan" not in text.markdown


def test_the_largest_number_of_samples_that_float64_can_afford_is_compared():
    experiment = Scaling.create(**SMALL | {"samples": [1001]})
    result = compute(experiment, None, (), "cpu")
    (one,) = Performance.create(**SMALL | {"samples": [1001]}).runs(made([(experiment, result)]))
    assert one.compared == 0 and not one.errors
    assert "float64" not in bounds(one).markdown


def test_the_step_that_is_timed_is_the_librarys_own(monkeypatch, timed, networks):
    calls, descend = [], training.gradient_descent

    def recorded(*arguments, **named):
        calls.append(descend(*arguments, **named))
        return calls[-1]

    monkeypatch.setattr(training, "gradient_descent", recorded)
    network = networks[FCN]
    first, others, eta = timed.our_steps(network.model, network.inputs, network.targets, "0.5 eta_crit", 2)
    (history,) = calls
    assert [first, *others] == history.seconds[:-1].tolist() and len(others) == WARM_STEPS
    assert eta == history.learning_rate[0]


@pytest.mark.parametrize("name", [FCN, CNN])
def test_the_plain_step_makes_the_same_update(name, timed, networks):
    network = networks[name]
    ours, plain = copy.deepcopy(network.model), copy.deepcopy(network.model)
    _, warm, eta = timed.our_steps(ours, network.inputs, network.targets, 0.1, 2)
    timed.plain_steps(plain, network.inputs, network.targets, eta, steps=1 + len(warm))
    for before, one, other in zip(*(m.parameters() for m in (network.model, ours, plain)), strict=True):
        assert (one - before).norm() > 0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_rate_at_which_the_training_diverges_is_refused(timed, networks):
    network = networks[FCN]
    with (
        pytest.warns(training.Diverged),
        pytest.raises(ValueError, match="learning_rate = '1e9 eta_crit': diverges at once; allowed is a smaller one"),
    ):
        timed.our_steps(network.model, network.inputs, network.targets, "1e9 eta_crit", 2)


def test_the_count_of_multiplications(networks):
    network = networks[FCN]
    n, d, w = 10, SMALL["input_dim"], SMALL["width"]
    plain = n * (2 * d * w + 3 * w)
    kernel = n * (n + 1) / 2 * (d + w + w + 1)
    assert network.expected_ratio(n) == pytest.approx(1 + kernel / plain)
    cnn = networks[CNN]
    weights = [layer.inputs * layer.outputs for layer in cnn.layers]
    assert weights == [parameter.numel() for parameter in cnn.model.parameters()]


def test_the_figure_says_its_numbers(run):
    figure = figures.cost(run)
    assert "n = 8" in figure.alt and "n = 12" in figure.alt and FCN in figure.alt and CNN in figure.alt
    assert figures.number(run.points[FCN][0].ratio) in figure.alt
    assert figure.caption.endswith(".") and "cpu" in figure.caption and "bound" not in figure.caption
    assert figure.svg.lstrip().startswith("<?xml")


def made_up(ratio: float, expected: float = 2.0, error: float = 1e-5):
    """A run at the sizes that the bound on the step's time is for."""
    page = Performance.create(**SMALL | {"samples": [128, 5000], "width": 1024, "input_dim": 3072})
    one = np.ones((2, 2))
    errors = np.array([[error, 0.0, 0.0], [0.0, 0.0, 0.0]])
    times = {
        "plain": one,
        "ours": ratio * one,
        "first": 2 * ratio * one,
        "product": one,
        "expected_ratio": expected * one,
    }
    result = Scaled(rounds=np.full((2, 2), 3), compared=128, errors=errors, device="cpu", seconds=1.0, **times)
    return page.runs(made([(page.experiments()[0], result)]))[0]


def test_bounds_hold_or_do_not():
    good, slow, bad = made_up(6.5), made_up(20.0, expected=27.0), made_up(3.0, error=2e-3)
    assert bounds(good).markdown.count("✓ holds") == 3 and "bound holds" in limit(good).markdown
    assert bounds(slow).markdown.count("✗ does not hold") == 1
    assert "No detail of the code" in limit(slow).markdown and "26 times" in limit(slow).markdown
    assert "No detail of the code" not in limit(made_up(20.0)).markdown
    assert bounds(bad).markdown.count("✗ does not hold") == 1
    assert "The triangle is our bound" in figures.cost(good).caption


def test_bounds_are_not_compared_at_other_sizes(run):
    assert "– not compared" in bounds(run).markdown and "other sizes" in limit(run).markdown
