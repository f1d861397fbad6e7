import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from catapults import data
from catapults.agop import agop, alignment
from catapults.compute import ComputationFailed, obtain
from catapults.compute.trainings import fits
from catapults.compute.trainings.networks import at_initialisation
from catapults.experiments import ParameterError
from catapults.experiments.agop_gd import RaisedRates, RaisedRun
from catapults.experiments.fits import REST
from catapults.figures import agop as figures
from catapults.paper import NOT_COMPARED, NOT_REPRODUCED, PARTLY, REPRODUCED, judge
from catapults.paper.agop_gd import claims, cosine, training_table
from catapults.paper.descriptions_agop import describe
from catapults.tangent import tangent_kernel
from catapults.training import Batches
from learning_samples import (
    IMAGES,
    STRONG,
    VECTORS,
    assert_drawn,
    assert_readable,
    at_once,
    made,
    mine,
    results,
    results_of,
    strong_result,
)

__all__ = ["mine", "results"]  # fixtures
OWN = {
    "seed": 0, "seeds": 1, "learning_rate": "2; 4: 8; 8: 0.5 current eta_crit", "literal_schedule": None, "settle": 4,
    "critical_every": 2, "small_scale": 0.1, "small_learning_rate": 20.0,
}  # fmt: skip
SMALL = VECTORS | OWN
OF_IMAGES = IMAGES | OWN | {"learning_rate": "0.2 eta_crit; 4: 1.5 current eta_crit", "small_learning_rate": 1.0}
USPS = {"dataset": "usps-2"}
HOLDS = {REPRODUCED: True, PARTLY: False, NOT_REPRODUCED: False, NOT_COMPARED: None}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"learning_rate": "2; x: 3"}, "learning_rate = '2; x: 3'"),
        ({"learning_rate": "1 .. 2, 5"}, "learning_rate = '1 .. 2, 5'"),
        ({"learning_rate": "2"}, "learning_rate = '2': allowed are schedules with at least one raise"),
        ({"learning_rate": "2; 16: 3"}, "^learning_rate = '2; 16: 3': allowed are changes before 16"),
        ({"literal_schedule": "fast"}, "literal_schedule = 'fast': allowed are a positive number"),
        ({"literal_schedule": "2; 99: 3"}, "literal_schedule = '2; 99: 3': allowed are changes before 16"),
        ({"small_learning_rate": "2; 99: 3"}, "small_learning_rate = '2; 99: 3': allowed are changes before 16"),
        ({"small_learning_rate": "abc"}, "^small_learning_rate = 'abc': allowed are a positive number"),
        ({"settle": 0}, "settle = 0"),
        ({"critical_every": 0}, "critical_every = 0"),
        ({"small_learning_rate": None}, "small_learning_rate = None: a small initialisation needs a rate"),
        ({"small_scale": 0.0}, "small_scale = 0.0"),
        ({"small_learning_rate": -1}, "^small_learning_rate = -1"),
        ({"scheduler": None}, "scheduler: unknown parameter"),  # where it is computed is no part of it
        ({"dataset": "abc"}, "^dataset = 'abc': allowed are NAME"),
        ({"seeds": 0}, "seeds = 0"),
        ({"strong": STRONG}, "strong = .*: the EGOP of 'rank-2' is exact; allowed is None"),
        ({"label_noise": 0.1}, "label_noise = 0.1: 'rank-2' has no classes; allowed is 0"),
        ({"label_noise": 1.0}, "label_noise = 1.0"),
        ({"stop_below": -1.0}, "stop_below = -1.0"),
        ({"n_validation": 0}, "n_validation = 0"),
        ({"evaluate_every": 0}, "evaluate_every = 0"),
        ({"patience": 0}, "patience = 0"),
        (USPS, "strong = None: 'usps-2' needs a strong model"),
        (USPS | {"strong": {}}, "strong: architecture: missing"),
        (USPS | {"strong": STRONG | {"dataset": "svhn"}}, "strong: dataset = 'svhn'; allowed is that of"),
        (USPS | {"strong": STRONG | {"batch_size": 41}}, "strong: batch_size = 41: .* n_train = 40"),
        (USPS | {"strong": STRONG | {"depth": 1}}, "strong: depth = 1: allowed are whole numbers of at"),
        (USPS | {"strong": STRONG | {"learning_rate": 0.0}}, "strong: learning_rate = 0.0"),
        (USPS | {"strong": STRONG | {"width": 0, "steps": 0}}, "^strong: width = 0: .*\\nstrong: steps = 0: "),
        ({"seed": -1}, "seed = -1"),
        ({"colour": 1}, "colour: unknown parameter"),
    ],
)
def test_impossible_parameters(changed, message):
    with pytest.raises(ParameterError, match=message):
        RaisedRates.create(**SMALL | changed)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"batch_size": 33}, "batch_size = 33: allowed are 1 to n_train = 32"),
        ({"learning_rate": "x"}, "learning_rate = 'x'"),
        ({"optimizer": "lion"}, "optimizer = 'lion'"),
        ({"initial_scale": 0.0}, "initial_scale = 0.0"),
    ],
)
def test_impossible_trainings(changed, message):
    with pytest.raises(ParameterError, match=message):
        RaisedRates.create(**SMALL).fit(**{"learning_rate": 1.0, "batch_size": 32} | changed)


class TestWhichTrainings:
    def test_a_raise_more_each_time(self):
        trainings = RaisedRates.create(**SMALL | {"literal_schedule": "2; 3: 9"}).trainings()
        rates = {name: training.learning_rate for name, training in trainings.items()}
        raised = ["2.0", "2.0; 4: 8.0", "2.0; 4: 8.0; 8: 0.5 current eta_crit"]
        assert rates == dict(zip("012", raised, strict=True)) | {"literal": "2; 3: 9", "small": 20.0}
        assert {name: training.settle for name, training in trainings.items()} == {
            "0": None, "1": 4, "2": 4, "literal": None, "small": None,
        }  # fmt: skip
        assert all(t.batch_size == 32 and t.critical_every == 2 and t.seed == 0 for t in trainings.values())
        assert [training.initial_scale for training in trainings.values()] == [1, 1, 1, 1, 0.1]

    def test_no_small_initialisation(self):
        """One parameter says so; the rate from there may stay as it is."""
        assert list(RaisedRates.create(**SMALL | {"small_scale": None}).trainings()) == ["0", "1", "2"]

    def test_every_seed_and_one_strong_model(self):
        page = RaisedRates.create(**SMALL | USPS | {"strong": STRONG, "seed": 5, "seeds": 3, "small_scale": None})
        first, *others = page.experiments()
        assert first == page.strong_model() and all(need == first for fit in others for need in fit.needs)
        assert [fit.seed for fit in others] == [5, 5, 5, 6, 6, 6, 7, 7, 7]


@pytest.mark.usefixtures("results")
class TestTrained:
    def test_each_training_is_what_its_parameters_say(self):
        page = RaisedRates.create(**SMALL | {"literal_schedule": "2; 3: 9", "seeds": 2})
        found = obtain(page, device="cpu")
        runs = page.runs(found)
        assert [run.experiment.seed for run in runs] == [0, 1]
        for run in runs:
            named = dict(zip("012", run.raised, strict=True)) | {"literal": run.literal, "small": run.small}
            for name, fit in run.experiment.trainings().items():
                assert named[name] is found[fit] and fit.seed == run.experiment.seed
        raised = runs[0].raised
        assert raised[0].learning_rate.tolist() == [2.0] * 16 and raised[0].measure == "loss"
        assert raised[1].learning_rate[:8].tolist() == [2.0] * 4 + [8.0] * 4
        assert runs[0].small.loss[0] < raised[0].loss[0]
        said = describe(runs, found)
        assert "Seeds: 0, 1." in said.markdown and "The 10 trainings took " in said.markdown
        assert judge(page, found).keys() == claims(runs).keys()
        assert_readable(said, training_table(runs[0]), *claims(runs).values())

    def test_alignment_and_test_are_those_of_the_best_weights(self):
        """By hand: train again up to the best evaluation, which then is the last, and measure."""
        page = RaisedRates.create(**SMALL | {"learning_rate": "0.5 eta_crit; 4: 1.1 current eta_crit"})
        fit = page.trainings()["0"]
        result = obtain([fit], device="cpu")[fit]
        task = data.load("rank-2", 32, 16, 16, seed=0)
        model = at_initialisation(fit, task.train.inputs, 1)
        parameters = list(model.parameters())
        for rate in result.learning_rate[: result.evaluated[result.best]]:
            loss = (model(task.train.inputs)[:, 0] - task.train.targets).square().mean()
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.data -= rate * gradient
        assert result.best > 0
        initial, best = (
            torch.linalg.matrix_norm(tangent_kernel(m, task.train.inputs).double(), 2).item()
            for m in (at_initialisation(fit, task.train.inputs, 1), model)
        )
        assert result.norms == pytest.approx((initial, best), rel=1e-3)
        with torch.no_grad():
            error = (model(task.test.inputs)[:, 0] - task.test.targets).square().mean().item()
        G = agop(model, task.train.inputs)
        assert result.test == result.test_loss == pytest.approx(error, rel=1e-3) and math.isnan(result.test_error)
        assert result.alignment == pytest.approx(alignment(G, task.egop), rel=1e-3)
        assert result.spikes == result.spikes_above == 0
        np.testing.assert_allclose(result.corner, G[:10, :10], rtol=1e-2, atol=1e-4)
        np.testing.assert_array_equal(result.true_corner, np.diag([1.0, 1.0] + [0.0] * 8))


@pytest.mark.usefixtures("results", "mine")
class TestImages:
    def test_a_page_obtains_its_strong_model(self, monkeypatch):
        page = RaisedRates.create(**OF_IMAGES)
        found = obtain(page, device="cpu")
        strong = found[page.strong_model()]
        (run,) = runs = page.runs(found)
        monkeypatch.setattr(fits, "compute", lambda *_, **__: pytest.fail("trained while describing"))
        said = describe(runs, found).markdown
        assert "2 weight layers with 4 channels, " in said and "trained with Adam on 40 samples" in said
        assert f"It gets {100 * (1 - strong.test_error):.1f} % of 16 test samples right." in said
        assert "25 % of the training labels (8 of 32) are wrong" in said
        for result in run.raised:
            np.testing.assert_array_equal(result.true_corner, strong.egop[:10, :10])
            assert 0 < result.alignment <= 1 and 0 <= result.test <= 1 and result.measure == "error"
        assert strong.egop.shape == (36, 36) and figures.pictures(run) is None
        assert_readable(training_table(run), *claims(runs).values())
        assert "test error" in assert_drawn(figures.catapults, run).alt
        assert "Validation error" in assert_drawn(figures.validation, run).caption

    def test_its_egop_is_the_agop_of_a_network_that_adam_trained(self):
        """By a loop of our own; at its best of five steps and the start."""
        strong = RaisedRates.create(**OF_IMAGES).strong_model()
        result = obtain([strong], device="cpu")[strong]
        task = data.load("mine", 40, 8, 16, seed=0)
        model = at_initialisation(strong.network(), task.train.inputs, 3)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        errors, egops, tests = [], [], []
        drawn = Batches(40, 8, False, 0)
        for _ in range(6):
            wrong = [
                (model(s.inputs).argmax(1) != s.targets.argmax(1)).float().mean() for s in (task.validation, task.test)
            ]
            loss = (model(task.validation.inputs) - task.validation.targets).square().mean().item()
            errors.append((wrong[0].item(), loss)), tests.append(wrong[1].item())
            egops.append(agop(model, task.train.inputs))
            batch = next(drawn)
            optimizer.zero_grad()
            (model(task.train.inputs[batch]) - task.train.targets[batch]).square().mean().backward()
            optimizer.step()
        best = min(range(6), key=lambda e: errors[e])
        assert result.test_error == pytest.approx(tests[best])
        left_out = np.linalg.norm(result.egop - egops[best].numpy()) / egops[best].norm().item()
        assert left_out <= 1.1 * REST and result.factor.shape[1] < 36 == len(result.egop)
        assert result.parameters == sum(p.numel() for p in model.parameters())

    def test_trainings_that_fail_are_named(self):
        page = RaisedRates.create(**OF_IMAGES | {"strong": STRONG | {"n_train": 99}})
        with pytest.raises(ComputationFailed, match="4 failed: strong model of mine, .*n_train [+] n_validation = 107"):
            obtain(page, device="cpu")


def named(raised, small=None, literal=None):
    return {str(k): result for k, result in enumerate(raised)} | {"small": small, "literal": literal}


class TestDescriptions:
    def test_of_vectors(self):
        page = RaisedRates.create(**SMALL | {"literal_schedule": "2; 3: 9", "patience": 3})
        raised = [made(1.0, 0.1), replace(made(1.0, 0.1), lowered=True), made(1.0, 0.1)]
        found = results_of(page, named(raised, made(1.0, 0.1), made(1.0, 0.1, diverged=True)))
        said = describe(page.runs(found), found)
        for part in (
            "Data: Synthetic task, seed 0. 32 samples. Network: fully connected, 2 weight layers with 16 neurons, 100 ",
            "have 16 and 16 samples. The EGOP is exact.", "below 0.001, or after 16 steps, or 3 checks after the",
            "the loss is checked every 4 steps.", "Learning rates: 2; 4: 8; 8: 0.5 current η_crit.",
            "Every 2 iterations the critical rate is measured. From 4 iterations after the last raise on, a rate above",
            "this happened in one of the two trainings with raises.", "own schedule, 2; 3: 9, is tried as well.",
            "σ = 0.1 and the learning rate 20.", "4 of 5 trainings end below a loss of 0.001, 1 diverges. Trainings",
            "The 5 trainings took 7.5 s of one core.",
        ):  # fmt: skip
            assert part in said.markdown
        assert_readable(said)

    @pytest.mark.parametrize(
        "lowered, said",
        [
            ([False, False], "happened in none of the two trainings"),
            ([True, True], "happened in each of the two trainings"),
            ([False], "this did not happen."),
            ([True], "this happened."),
        ],
    )
    def test_rates_that_are_lowered(self, lowered, said):
        rate = "; ".join(["2", "4: 8", "8: 9"][: len(lowered) + 1])
        page = RaisedRates.create(**SMALL | {"small_scale": None, "learning_rate": rate})
        raised = [made(1.0, 0.1), *(replace(made(1.0, 0.1), lowered=was) for was in lowered)]
        found = results_of(page, named(raised))
        assert said in describe(page.runs(found), found).markdown

    def test_of_images(self):
        page = RaisedRates.create(**SMALL | USPS | {"strong": STRONG, "small_scale": None})
        found = results_of(page, named([made(1.0, 0.1, error=0.5)] * 3))
        said = describe(page.runs(found), found).markdown
        assert "2 weight layers with 4 channels, 123 parameters, PyTorch's parameterisation, with biases, tra" in said
        assert "trained with Adam on 40 samples. It gets 87.5 % of 16 test samples right." in said
        without = replace(found, outcomes={k: o for k, o in found.outcomes.items() if k != page.strong_model().key})
        with pytest.raises(KeyError, match="no result of strong model of usps-2"):
            describe(page.runs(found), without)


@pytest.fixture(scope="module")
def run():
    """Of which the tests replace the results."""
    return RaisedRun(RaisedRates.create(**SMALL), [made(1.0, 0.1)] * 3, None, made(1.0, 0.1))


def course(run, spikes, losses, alignments, small=None, literal=None, **changes):
    raised = [made(loss, a, spikes=k) for k, loss, a in zip(spikes, losses, alignments, strict=True)]
    experiment = run.experiment.model_copy(update=changes)
    return replace(run, experiment=experiment, raised=raised, small=small, literal=literal)


def verdicts(run):
    return {name: HOLDS[claim.verdict] for name, claim in claims([run]).items()}


class TestClaims:
    def test_of_the_paper_s_picture(self, run):
        found = course(run, [0, 1, 2, 4], [1.0, 0.5, 0.3, 0.1], [0.2, 0.4, 0.6, 0.9], small=made(0.1, 0.9))
        assert [r.spikes for r in found.raised] == [0, 1, 2, 4]
        expected = dict.fromkeys(
            ("catapults", "performance", "validation", "alignment", "correlation", "closer", "small"), True
        )
        assert verdicts(found) == expected | {"schedule": None}  # its rates are multiples
        said = claims([found])
        assert said["catapults"].ours == "0, 1, 2, 4 with 0 to 3 raises"
        assert said["performance"].ours == "1.000 (0), 0.500 (1), 0.300 (2), 0.100 (4)"
        assert said["alignment"].sentence.endswith("0.200 (0), 0.400 (1), 0.600 (2), 0.900 (4).")

    @pytest.mark.parametrize("spikes, holds", [([0, 1, 2], True), ([0, 1, 1], False), ([2, 3, 3], False)])
    def test_several_catapults(self, run, spikes, holds):
        assert verdicts(course(run, spikes, [1, 0.9, 0.8], [0.1, 0.2, 0.3]))["catapults"] is holds

    @pytest.mark.parametrize(
        "losses, holds",
        [([1, 0.8, 0.6, 0.4], True), ([1, 0.4, 0.8, 0.6], False), ([0.4, 0.6, 0.8, 1], False), ([0.5] * 4, None)],
    )
    def test_what_follows_the_catapults(self, run, losses, holds):
        found = verdicts(course(run, [0, 1, 2, 3], losses, [1 - loss / 2 for loss in losses]))
        assert found["performance"] is found["validation"] is found["alignment"] is holds

    def test_fewest_catapults_need_not_be_the_first(self, run):
        found = claims([course(run, [1, 0, 3], [0.5, 1, 0.1], [0.5, 0.2, 0.9])])["performance"]
        assert found.ours.startswith("1.000 (0), 0.500 (1), 0.100 (3)") and found.verdict == REPRODUCED

    def test_the_same_number_of_catapults_says_nothing(self, run):
        found = verdicts(course(run, [1, 1, 1], [1, 0.8, 0.6], [0.1, 0.2, 0.3]))
        assert found["performance"] is found["alignment"] is None and found["correlation"] is None  # of three
        four = verdicts(course(run, [1, 1, 1, 1], [1, 0.8, 0.6, 0.4], [0.1, 0.2, 0.3, 0.4]))
        assert four["performance"] is None and four["correlation"] is True

    @pytest.mark.parametrize(
        "alignments, holds",
        [
            ([0.1, 0.2, 0.3, 0.4], True),
            ([0.4, 0.3, 0.2, 0.1], False),
            ([0.1, 0.3, 0.2, 0.15], False),
            ([0.1] * 4, None),
        ],
    )
    def test_correlation(self, run, alignments, holds):
        assert verdicts(course(run, [0, 1, 2, 3], [1, 0.8, 0.6, 0.4], alignments))["correlation"] is holds

    def test_the_small_initialisation_counts_for_the_correlation(self, run):
        raised = [0, 1, 2], [1, 0.8, 0.6], [0.1, 0.2, 0.3]
        assert verdicts(course(run, *raised, small=made(5.0, 0.9)))["correlation"] is False

    @pytest.mark.parametrize(
        "loss, aligned, holds",
        [(0.6, 0.3, True), (0.62, 0.26, True), (0.64, 0.3, False), (0.6, 0.24, False), (0.6, math.nan, None)],
    )
    def test_a_small_initialisation(self, run, loss, aligned, holds):
        found = course(run, [0, 1, 2], [1, 0.8, 0.6], [0.1, 0.2, 0.3], small=made(loss, aligned))
        assert verdicts(found)["small"] is holds
        assert_readable(*claims([found]).values(), training_table(found))

    @pytest.mark.parametrize("loss, aligned, better", [(0.48, 0.14, (True, True)), (0.47, 0.16, (False, False))])
    def test_of_a_function_of_full_rank(self, run, loss, aligned, better):
        found = course(run, [0, 1, 2], [0.5, 2.0, loss], [0.1, aligned, 0.05], dataset="full-rank")
        assert (verdicts(found)["no_better"], verdicts(found)["no_alignment"]) == better
        assert claims([found]).keys() == {"catapults", "no_better", "no_alignment", "schedule"}
        constant = course(run, [0, 1, 2], [1.5, 2.0, 0.95], [0.1, aligned, 0.05], dataset="full-rank")
        assert verdicts(constant)["no_better"] is None
        assert "0.950 at best" in claims([constant])["no_better"].why
        unknown = course(run, [0, 1, 2], [1, 2.0, loss], [math.nan, 0.1, 0.05], dataset="full-rank")
        assert verdicts(unknown)["no_alignment"] is None and "– without" in claims([unknown])["no_alignment"].ours

    def test_errors_of_classes(self, run):
        found = replace(
            run,
            experiment=run.experiment.model_copy(update=USPS | {"strong": STRONG}),
            raised=[made(9.0, a, spikes=k, error=e) for k, a, e in ((0, 0.1, 0.2), (1, 0.2, 0.1), (2, 0.3, 0.05))],
            small=None,
        )
        assert verdicts(found)["performance"] is None
        assert "the test images tell apart only" in claims([found])["performance"].why  # of 16
        many = found.experiment.model_copy(update={"n_test": 400})
        found = replace(found, experiment=many)
        assert verdicts(found)["performance"] is True
        bad = replace(found, strong=strong_result(0.4))
        assert verdicts(bad)["performance"] is None and "hardly better than chance" in claims([bad])["performance"].why
        assert claims([found])["performance"].ours == "20.0 % (0), 10.0 % (1), 5.0 % (2)"
        assert "| 5.0 % | 0.300 | – |" in training_table(found).markdown

    @pytest.mark.parametrize("schedule, diverged, holds", [("2; 3: 9", False, True), ("2; 3: 9", True, False)])
    def test_the_paper_s_schedule(self, run, schedule, diverged, holds):
        literal = made(1.0, 0.1, diverged=diverged)
        found = course(run, [0, 1], [1, 0.5], [0.1, 0.2], literal=literal, literal_schedule=schedule)
        assert verdicts(found)["schedule"] is holds
        assert ("diverges at iteration 41, at rate 2" in claims([found])["schedule"].ours) is diverged
        assert ("| diverges |" in training_table(found).markdown) is diverged
        assert_readable(*claims([found]).values(), training_table(found), figures.validation(found))

    def test_our_schedule_may_be_the_paper_s(self, run):
        assert verdicts(course(run, [0, 1], [1, 0.5], [0.1, 0.2], learning_rate="2; 4: 8"))["schedule"] is True

    def test_an_agop_of_zeros(self, run):
        """Has no alignment: it says nothing, and the others still do."""
        found = course(run, [0, 1, 2, 3, 4], [1, 0.8, 0.6, 0.5, 0.4], [0.1, math.nan, 0.3, 0.4, 0.5])
        assert verdicts(found)["alignment"] is verdicts(found)["correlation"] is True
        last = course(run, [0, 1, 2, 3, 4], [1, 0.8, 0.6, 0.5, 0.4], [0.1, 0.2, 0.3, 0.4, math.nan])
        assert verdicts(last)["alignment"] is verdicts(last)["performance"] is True
        for some in (found, last):
            assert_readable(*claims([some]).values(), training_table(some))
            for draw in (figures.catapults, figures.pictures):
                assert_drawn(draw, some)

    def test_what_diverges_is_left_out_and_counted(self, run):
        """It would be the best in all, and have the most catapults."""
        fine = course(run, [0, 1, 2], [1, 0.8, 0.6], [0.1, 0.2, 0.3])
        worst = made(0.1, 0.9, spikes=5, diverged=True)
        found = replace(fine, raised=[*fine.raised, worst])
        for name, claim in claims([found]).items():
            if name not in ("schedule", "catapults", "closer", "small"):
                assert claim.verdict == claims([fine])[name].verdict
                assert claim.ours.endswith("; left out: 1 of 4 trainings, which diverges")
        assert claims([found])["closer"].ours == claims([fine])["closer"].ours
        assert claims([found])["catapults"].ours == "0, 1, 2, 5 (diverges) with 0 to 3 raises"
        few = replace(fine, raised=[*fine.raised[:2], worst])
        assert verdicts(few)["catapults"] is False and verdicts(few)["performance"] is True
        assert "Left out: 1 of 4 trainings, which diverges." in assert_drawn(figures.catapults, found).caption
        assert "3 raises (diverges)" in assert_drawn(figures.validation, found).alt

    def test_where_all_diverge_nothing_is_compared(self, run):
        bad = made(1.0, 0.1, spikes=1, diverged=True)
        for dataset in ("rank-2", "full-rank"):
            found = course(run, [], [], [], small=bad, dataset=dataset)
            found = replace(found, raised=[bad] * 3)
            assert {v for name, v in verdicts(found).items() if name != "schedule"} == {None}
            assert_readable(*claims([found]).values(), training_table(found))
        for draw in (figures.catapults, figures.pictures, figures.validation, figures.rates):
            assert_drawn(draw, found)

    def test_several_seeds(self, run):
        holds = course(run, [0, 1, 2], [1, 0.8, 0.6], [0.1, 0.2, 0.3])
        fails = course(run, [0, 1, 2], [0.6, 0.8, 1], [0.1, 0.2, 0.3])
        same = course(run, [1, 1, 1], [0.6, 0.8, 1], [0.1, 0.2, 0.3])
        found = claims([holds, fails, same])
        assert found["performance"].held == (1, 2) and found["performance"].verdict == PARTLY
        assert found["alignment"].held == (2, 2)


def test_the_cosine_of_pictures_is_the_alignment():
    a, b = (torch.randn(10, 10, dtype=torch.float64) for _ in range(2))
    assert cosine(a.numpy(), b.numpy()) == pytest.approx(alignment(a, b), abs=1e-12)
    assert math.isnan(cosine(np.zeros((3, 3)), np.eye(3))) and math.isnan(cosine(np.full((3, 3), np.inf), np.eye(3)))


class TestFigures:
    def test_are_drawn_the_same(self, run):
        found = course(run, [0, 1, 2], [1, 0.8, 0.6], [0.1, 0.2, 0.3])
        assert figures.catapults(found).svg == figures.catapults(found).svg

    def test_their_words_carry_the_numbers(self, run):
        found = course(run, [0, 1, 2], [1, 0.8, 0.6], [0.1, 0.2, 0.3], small=made(0.5, 0.9))
        alt = assert_drawn(figures.catapults, found).alt
        assert "test FVU: 1 (0), 0.8 (1), 0.6 (2); AGOP alignment: 0.1 (0), 0.2 (1), 0.3 (2)" in alt
        along = assert_drawn(figures.validation, found).alt
        assert "2 raises: from 2 to 0.6 at best" in along and "small initialisation: from 2 to 0.5" in along
        assert "starts at 1, is at most 10 and ends at 0.5; the learning rate goes from 2 to 2, at most 2" in (
            assert_drawn(figures.rates, found).alt
        )
        pictures = assert_drawn(figures.pictures, found).alt
        assert (
            "4 square pictures of 10 by 10 fields: catapults: 0, catapults: 2, small initialisation, true." in pictures
        )
        assert "0.1 (catapults: 0), 0.3 (catapults: 2), 0.9 (small initialisation)" in pictures

    def test_without_catapults_one_picture_is_enough(self, run):
        found = course(run, [0, 0], [1, 0.8], [0.1, 0.2])
        assert "2 square pictures of 10 by 10 fields: catapults: 0, true." in assert_drawn(figures.pictures, found).alt

    def test_trainings_that_take_no_step(self, run):
        found = course(run, [0, 1], [1, 0.8], [0.1, 0.2])
        found = replace(found, raised=[at_once(result) for result in found.raised])
        assert figures.rates(found) is None and "| 0 | – | 1.000 |" in training_table(found).markdown
        assert_drawn(figures.validation, found), assert_drawn(figures.catapults, found)
        assert_readable(*claims([found]).values())


@pytest.mark.parametrize("chapter", ["agop_gd", "agop_sgd", "agop_optimizers"])
def test_what_a_notebook_imports_brings_no_torch(chapter):
    notebook = nbformat.read(Path(__file__).parents[1] / "chapters" / f"{chapter}.ipynb", 4)
    imports = next(cell.source for cell in notebook.cells if cell.source.startswith("from typing"))
    heavy = "sorted({'torch', 'dask', 'distributed', 'seaborn'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", f"{imports}\nimport sys; print({heavy})"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
