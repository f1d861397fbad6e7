"""When do spikes recur? SGD over batch sizes and rates, its criteria, and the theorem on a constant kernel."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from catapults import data, models, sgd, stability, tangent
from catapults.compute import obtain
from catapults.compute.trainings.recurrence import norm
from catapults.experiments import ParameterError
from catapults.experiments.constant_kernel import share_of_rises
from catapults.experiments.recurrence import Recurred, Recurrence
from catapults.experiments.stability import StabilityMap, StabilityRun, Watched
from catapults.figures import stability as figures
from catapults.paper import NOT_COMPARED, NOT_REPRODUCED, REPRODUCED
from catapults.paper import stability as paper
from catapults.paper.descriptions import describe
from torch import nn

SMALL = {
    "dataset": "rank-2", "architecture": "fcn", "norm": None, "depth": 2, "width": 64, "image_size": None,
    "n_train": 48, "n_test": 32, "labels": "zero-one", "parameterization": "ntk", "gain": 1.0, "bias": False,
    "batch_sizes": [1, 3, 20], "multiples": [0.1, 0.5, 1.2], "replacement": True, "steps": 40, "stop_below": 1e-3,
    "loss_every": 2, "norm_every": 4, "criteria_every": 20, "seed": 0, "seeds": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_sizes": [3, 1]}, r"^batch_sizes = \[3, 1\]: allowed are one or several numbers that ascend"),
        ({"multiples": []}, r"^multiples = \[\]: allowed are one or several numbers that ascend"),
        ({"batch_sizes": [49], "replacement": False}, "batch_size = 49: allowed are 1 to n_train = 48"),
        ({"dataset": "cifar-10", "image_size": 8}, "dataset = 'cifar-10': has several outputs"),
        ({"learning_rate": 3}, "learning_rate: unknown parameter"),
    ],
)
def test_impossible_parameters(changed, message):
    with pytest.raises(ParameterError, match=message):
        StabilityMap.create(**SMALL | changed)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATAPULTS_RESULTS", str(tmp_path_factory.mktemp("results")))
        page = StabilityMap.create(**SMALL)
        results = obtain(page, device="cpu")
        return page.runs(results), results


def test_a_training_is_that_of_the_library_with_the_criteria_of_its_kernel(trained):
    watched = trained[0][1].trainings[3, 0.5]
    r = watched.result
    task = data.load("rank-2", 48, 0, 32, seed=1)
    torch.manual_seed(1)
    model = models.fcn(100, 64, 2, 1, gain=1.0, bias=False, parameterization="ntk")
    X, y = task.train.inputs, task.train.targets
    K = tangent.tangent_kernel(model.double(), X.double())
    values = torch.linalg.eigvalsh(K)
    eta = 0.5 * 48 / values[-1].item()
    assert r.learning_rate == pytest.approx(eta, rel=1e-5)
    assert r.exact_norm[0] == pytest.approx(values[-1].item() / 48, rel=1e-5)
    assert r.norm[0] == pytest.approx(r.exact_norm[0], rel=1e-3)
    assert r.trace[0] == pytest.approx(K.trace().item() / 48, rel=1e-5)
    assert watched.criterion("mean_square") == pytest.approx(stability.mean_square(values, eta, 3), rel=1e-4)
    assert watched.criterion("trace") == pytest.approx(stability.by_trace(K.trace().item(), 48, eta, 3), rel=1e-4)
    assert watched.criterion("critical") == pytest.approx(0.5, rel=1e-5)
    history = sgd.stochastic_gradient_descent(
        model.float(), X, y, r.learning_rate, 3, 40, replacement=True, seed=1, stop_below=1e-3, kernel_every=None
    )
    assert np.allclose(r.loss, history.loss[::2], rtol=1e-3)
    assert r.steps_above == history.exceeds.sum() and r.steps == len(history)
    with torch.no_grad():
        test = (model(task.test.inputs).flatten() - task.test.targets).square().mean().item()
    assert watched.test == pytest.approx(test / task.test.targets.var(correction=0).item(), rel=1e-3)


def test_large_rates_diverge_and_small_ones_do_not(trained):
    for run in trained[0]:
        assert run.trainings[1, 1.2].outcome == "divergent" and math.isnan(run.trainings[1, 1.2].test)
        assert run.trainings[20, 0.1].outcome == "calm" and run.trainings[20, 0.1].criterion("exceeded") == 0
        assert run.trainings[20, 1.2].criterion("mean_square") == math.inf


def test_the_norm_by_products_is_the_exact_one_for_a_relu_network():
    X = torch.randn(60, 20, dtype=torch.float64)
    linearization = tangent.linearize(models.fcn(20, 200, 3, 1, parameterization="ntk").double(), X)
    exact = torch.linalg.eigvalsh(linearization.kernel())[-1].item()
    assert norm(linearization) == pytest.approx(exact, rel=1e-3)


def test_the_page_is_described_drawn_and_tabled(trained):
    runs, results = trained
    assert "batches of 1, 3, 20, drawn with replacement, at 0.1, 0.5, 1.2 times" in describe(runs, results).markdown
    for figure in (figures.diagram(runs), figures.against(runs), figures.courses(runs)):
        assert figure.svg.count("<svg") == 1 and len(figure.alt) > 60 and figure.caption.endswith(".")
    assert "batches of 1: 0.1 changes" in figures.diagram(runs).alt
    assert len(paper.map_table(runs).markdown.splitlines()) == 11
    assert len(paper.criteria_table(runs).markdown.splitlines()) == 7
    assert len(paper.robustness_table(runs).markdown.splitlines()) == 7
    for text in (paper.one_spike(runs), paper.doubts(runs), paper.best(runs)):
        assert text.markdown.endswith(".")


def made_up(of: dict[tuple[int, float], dict], **page) -> StabilityRun:
    """A run with these values, of trainings whose ``||K||`` ends at ``ends`` of its start."""
    sizes, multiples = (sorted({cell[k] for cell in of}) for k in (0, 1))
    experiment = StabilityMap.create(**SMALL | {"batch_sizes": sizes, "multiples": multiples, "seeds": 1} | page)
    trainings = {}
    for cell, values in of.items():
        ends = np.array([1.0, values.get("ends", 1.0)])
        one = Recurred(
            steps=40, learning_rate=cell[1], steps_above=0, loss=np.ones(21, np.float32),
            norm=np.linspace(*ends, 11, dtype=np.float32), measured=np.array([0, 40]), exact_norm=ends,
            trace=np.ones(2), mean_square=np.array([values["S"], values.get("later", 0.5)]),
            sharpness=np.array([values["S"]] * 2), exceeded=np.array([values.get("exceeded", 0.0)] * 2),
            converged=False, diverged=values.get("diverged", False), test_loss=1.0, test_variance=1.0, source="",
            parameters=1,
        )  # fmt: skip
        trainings[cell] = Watched(experiment, *cell, one)
    return StabilityRun(experiment, trainings)


CELLS = {
    (1, 0.1): {"S": 0.6, "ends": 0.99},
    (1, 0.5): {"S": 1.5, "ends": 0.8, "exceeded": 1.0},
    (1, 0.9): {"S": 3.0, "diverged": True, "exceeded": 1.0},
    (5, 0.1): {"S": 0.1, "ends": 1.0},
    (5, 0.5): {"S": 0.7, "ends": 0.97, "exceeded": 1.0},
    (5, 0.9): {"S": 1.2, "ends": 0.9, "exceeded": 1.0},
    (9, 0.1): {"S": 0.1, "ends": 1.01},
    (9, 0.5): {"S": 0.2, "ends": 1.01},
    (9, 0.9): {"S": 0.3, "ends": 1.02},
}


class TestClaims:
    def test_of_a_run_that_the_mean_square_separates(self):
        run = made_up(CELLS)
        found = paper.claims([run])
        assert {n: found[n].verdict for n in ("mean_square", "order", "divergence", "settles")} == dict.fromkeys(
            ("mean_square", "order", "divergence", "settles"), REPRODUCED
        )
        assert paper.accuracy(run, "mean_square") == 1
        assert paper.accuracy(run, "exceeded") == pytest.approx((1 + 5 / 6) / 2)
        assert "8 of 9 trainings are on the right side" in found["exceeded"].sentence
        assert found["exceeded"].sentence.endswith("; not b = 5 at 0.5 η_crit.")
        assert paper.accuracy(run, "exceeded", fall=0.02) == 1
        assert paper.accuracy(run, "mean_square", fall=0.02) == pytest.approx((3 / 4 + 1) / 2)

    def test_each_of_them_can_fail(self):
        found = paper.claims([made_up(CELLS | {(1, 0.1): {"S": 0.6, "diverged": True}})])
        assert found["mean_square"].verdict == found["divergence"].verdict == NOT_REPRODUCED
        found = paper.claims([made_up(CELLS | {(5, 0.9): {"S": 1.2, "ends": 0.9, "later": 1.1}})])
        assert found["settles"].verdict == NOT_REPRODUCED and "(b = 5 at 0.9 η_crit)" in found["settles"].sentence
        found = paper.claims([made_up(CELLS | {(1, 0.5): {"S": 0.01, "ends": 0.5}})])
        assert found["order"].verdict == NOT_REPRODUCED

    def test_where_all_are_alike_nothing_is_compared(self):
        calm = {cell: {"S": 0.1} for cell in CELLS}
        found = paper.claims([made_up(calm)])
        names = ("mean_square", "trace", "sharpness", "exceeded", "critical", "divergence", "settles")
        assert {found[name].verdict for name in names} == {NOT_COMPARED}

    def test_an_infinite_value_ranks_above_all_others(self):
        with_one = made_up(CELLS | {(1, 0.5): {"S": math.inf, "ends": 0.8}})
        assert paper.rank_correlation(with_one, "mean_square") == paper.rank_correlation(made_up(CELLS), "mean_square")

    def test_what_the_doubts_say(self):
        said = paper.doubts([made_up(CELLS)]).markdown
        assert "Calm trainings lose at most 3 % of ‖K‖, falling ones at least 10 %" in said
        assert "part in 1 of 9 fields, in any seed: b = 5 at 0.5 η_crit. There S is 0.7 to 0.7" in said


def test_spikes_and_what_they_do_to_the_norm():
    watched = made_up(CELLS).trainings[1, 0.1]
    loss = np.ones(21, np.float32)
    loss[6], loss[14] = 5.0, 2.5
    falling = np.array([1, 1, 1, 1, 0.9, 0.9, 0.9, 0.9, 0.95, 0.95, 0.95], np.float32)
    watched = replace(watched, result=replace(watched.result, loss=loss, norm=falling))
    assert [(s.start, s.peak, s.end) for s in watched.spikes] == [(10, 12, 14), (26, 28, 30)]
    assert watched.norm_change(watched.spikes[0]) == pytest.approx(math.log(0.9), rel=1e-5)
    assert watched.lowering == 1
    assert watched.fall_until(20) == pytest.approx(0.1, rel=1e-5)


class TestHalfOfAllSteps:
    @pytest.mark.parametrize("multiple", [0.1, 0.4, 0.5, 0.8])
    def test_with_normal_deviations_the_loss_rises_on_half(self, multiple):
        normal = np.random.default_rng(1).normal(size=50_000)
        assert share_of_rises(normal, multiple, 3, 100_000) == pytest.approx(0.5, abs=0.01)

    def test_with_skewed_ones_it_differs_but_at_half_the_critical_rate(self):
        skewed = np.random.default_rng(1).exponential(size=50_000)
        assert share_of_rises(skewed, 0.5, 1, 100_000) == pytest.approx(0.5, abs=0.01)
        assert share_of_rises(skewed, 0.3, 1, 100_000) > 0.52

    def test_so_does_the_librarys_own_sgd(self):
        """Of a model that has one number, whose kernel is 1 1^T."""
        y = torch.randn(400, generator=torch.Generator().manual_seed(0))
        model = nn.Linear(1, 1, bias=False)
        history = sgd.stochastic_gradient_descent(
            model, torch.ones(400, 1), y, "0.3 eta_crit", 4, 4000, replacement=True, kernel_every=None
        )
        assert not history.exceeds.any()
        rises = history.loss[1:] > history.loss[:-1]
        assert rises[100:].mean() == pytest.approx(0.5, abs=0.03)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([1.0, 2.0], 1.0, 1, 10), "multiple = 1.0: allowed are numbers between 0 and 1"),
            (([1.0, 1.0], 0.5, 1, 10), "deviations: all are alike"),
            (([1.0, 2.0], 0.5, 0, 10), "batch_size = 0"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            share_of_rises(np.array(arguments[0]), *arguments[1:])


def test_a_training_has_a_name_and_one_rate():
    fields = {name: value for name, value in SMALL.items() if name in Recurrence.model_fields}
    one = Recurrence.create(**fields, batch_size=3, multiple=0.5)
    assert "batches of 3, rate 0.5 eta_crit" in one.name
