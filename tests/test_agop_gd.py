import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from catapults import data, sgd, store
from catapults.agop import agop, alignment
from catapults.claims import NOT_COMPARED, NOT_REPRODUCED, REPRODUCED
from catapults.claims.agop_gd import claims, training_table
from catapults.experiments import ParameterError
from catapults.experiments.agop_gd import RaisedRates, RaisedRun
from catapults.experiments.learning import StrongModel, Training, TrainingFailed, mean_and_deviation
from catapults.figures import agop as figures
from catapults.sweep import Sweep
from learning_samples import IMAGES, STRONG, VECTORS, assert_drawn, assert_readable, at_once, made, mine, results

__all__ = ["mine", "results"]  # fixtures
OWN = {
    "seed": 0, "learning_rate": "2; 4: 8; 8: 0.5 current eta_crit", "literal_schedule": None, "settle": 4,
    "critical_every": 2, "small_scale": 0.1, "small_learning_rate": 20.0,
}  # fmt: skip
SMALL = VECTORS | OWN
OF_IMAGES = IMAGES | OWN | {"learning_rate": "0.2 eta_crit; 4: 1.5 current eta_crit", "small_learning_rate": 1.0}
HOLDS = {REPRODUCED: True, NOT_REPRODUCED: False, NOT_COMPARED: None}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"learning_rate": "2; x: 3"}, "learning_rate = '2; x: 3'"),
        ({"learning_rate": "1 .. 2, 5"}, "learning_rate = '1 .. 2, 5'"),
        ({"learning_rate": "2"}, "learning_rate = '2': allowed are schedules with at least one raise"),
        ({"learning_rate": "2; 16: 3"}, "allowed are changes before 16"),
        ({"literal_schedule": "fast"}, "literal_schedule = 'fast': allowed are a positive number"),
        ({"literal_schedule": "2; 99: 3"}, "allowed are changes before 16"),
        ({"settle": 0}, "settle = 0"),
        ({"critical_every": 0}, "critical_every = 0"),
        ({"small_scale": None}, "small_scale = None, small_learning_rate = 20.0: allowed are both or neither"),
        ({"small_learning_rate": None}, "small_scale = 0.1, small_learning_rate = None: allowed are both or neither"),
        ({"small_scale": 0.0}, "small_scale = 0.0"),
        ({"small_learning_rate": -1}, "learning_rate = -1"),
        ({"scheduler": "here"}, "scheduler = 'here': allowed is an address"),
        ({"strong": STRONG}, "strong = .*: the EGOP of 'rank-2' is exact; allowed is None"),
        ({"label_noise": 0.1}, "label_noise = 0.1: 'rank-2' has no classes; allowed is 0"),
        ({"label_noise": 1.0}, "label_noise = 1.0"),
        ({"stop_below": -1.0}, "stop_below = -1.0"),
        ({"n_validation": 0}, "n_validation = 0"),
        ({"evaluate_every": 0}, "evaluate_every = 0"),
        ({"patience": 0}, "patience = 0"),
        ({"dataset": "usps-2"}, "strong = None: 'usps-2' needs a strong model"),
        ({"dataset": "usps-2", "strong": {}}, "strong: architecture: missing"),
        ({"dataset": "usps-2", "strong": STRONG | {"dataset": "svhn"}}, "strong: dataset = 'svhn'; allowed is that of"),
        ({"dataset": "usps-2", "strong": STRONG | {"batch_size": 41}}, "strong: batch_size = 41: .* n_train = 40"),
        ({"dataset": "usps-2", "strong": STRONG | {"depth": 1}}, "strong: depth = 1: allowed are whole numbers of at"),
        ({"dataset": "usps-2", "strong": STRONG | {"learning_rate": 0.0}}, "strong: learning_rate = 0.0"),
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
        RaisedRates.create(**SMALL).training(**{"learning_rate": 1.0, "batch_size": 32} | changed)


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
        nothing = {"small_scale": None, "small_learning_rate": None}
        assert list(RaisedRates.create(**SMALL | nothing).trainings()) == ["0", "1", "2"]


@pytest.mark.usefixtures("results")
class TestARun:
    def test_each_training_is_what_its_parameters_say(self):
        experiment = RaisedRates.create(**SMALL | {"literal_schedule": "2; 3: 9"})
        run = experiment.run()
        trainings = experiment.trainings()
        assert len(run.raised) == 3 and run.sweep.describe().startswith("5 trainings")
        for name, result in zip(trainings, [*run.raised, run.literal, run.small], strict=True):
            alone = trainings[name].run()
            for field in ("batch_loss", "learning_rate", "validation_loss", "corner"):
                assert np.array_equal(getattr(alone, field), getattr(result, field))
        assert run.raised[0].learning_rate.tolist() == [2.0] * 16
        assert run.raised[1].learning_rate[:8].tolist() == [2.0] * 4 + [8.0] * 4
        assert run.small.batch_loss[0] < run.raised[0].batch_loss[0]

    def test_nothing_is_trained_twice(self, monkeypatch):
        first = RaisedRates.create(**SMALL).run()
        monkeypatch.setattr(Training, "run", lambda *_: pytest.fail("trained again"))
        again = RaisedRates.create(**SMALL).run()
        assert again.sweep.describe() == "4 trainings, 4 taken from earlier ones."
        for a, b in zip(first.raised, again.raised, strict=True):
            assert a.alignment == b.alignment and np.array_equal(a.batch_loss, b.batch_loss)
        changed = RaisedRates.create(**SMALL | {"learning_rate": "2; 4: 8"}).run()  # two of which are new to nobody
        assert changed.sweep.describe() == "3 trainings, 3 taken from earlier ones."

    def test_alignment_and_test_are_those_of_the_best_weights(self):
        """By hand: train again up to the best evaluation, which then is the last, and measure."""
        experiment = RaisedRates.create(**SMALL | {"learning_rate": "0.5 eta_crit; 4: 1.1 current eta_crit"})
        training = experiment.trainings()["0"]
        result = training.run()
        task = data.load("rank-2", 32, 16, 16, seed=0)
        model = training.model(task.train.inputs, 1)
        parameters = list(model.parameters())
        for rate in result.learning_rate[: result.iterations[result.best]]:
            loss = (model(task.train.inputs)[:, 0] - task.train.targets).square().mean()
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.data -= rate * gradient
        assert result.best > 0
        with torch.no_grad():
            error = (model(task.test.inputs)[:, 0] - task.test.targets).square().mean().item()
        G = agop(model, task.train.inputs)
        assert result.test_loss == pytest.approx(error, rel=1e-3) and math.isnan(result.test_error)
        assert result.alignment == pytest.approx(alignment(G, task.egop), rel=1e-3)
        np.testing.assert_allclose(result.corner, G[:10, :10], rtol=1e-2, atol=1e-4)
        np.testing.assert_array_equal(result.true_corner, np.diag([1.0, 1.0] + [0.0] * 8))

    def test_its_texts_and_figures(self):
        run = RaisedRates.create(**SMALL | {"literal_schedule": "2; 3: 1e9"}).run()
        said = run.describe()
        for part in (
            "x1 x2", "32 samples", "2 weight layers with 16 neurons", "have 16 and 16 samples", "The EGOP is exact.",
            "below 0.001, or after 16 steps", "every 4 steps", "Learning rates: 2; 4: 8; 8: 0.5 current η_crit.",
            "From 4 iterations after the last raise", "every 2 iterations", "own schedule, 2; 3: 1e9, is tried",
            "σ = 0.1 and the learning rate 20.0", "5 trainings; 1 diverged", "s of one core",
        ):  # fmt: skip
            assert part in said.markdown
        assert said.content == {"kind": "data", "source": run.raised[0].source}
        assert run.literal.diverged and claims(run)["schedule"].ours.startswith("diverges at iteration ")
        assert "schedule training diverges at iteration " in claims(run)["schedule"].sentence
        assert_readable(said, training_table(run), *claims(run).values())
        for draw in (figures.catapults, figures.validation, figures.rates, figures.pictures):
            assert_drawn(draw, run)
        patient = RaisedRates.create(**SMALL | {"patience": 3})
        assert "or 3 evaluations after the best one" in replace(run, experiment=patient).describe().markdown


@pytest.mark.usefixtures("results", "mine")
class TestImages:
    def test_the_strong_model_is_trained_once_for_all(self, monkeypatch):
        trained, run_it = [], StrongModel.run
        monkeypatch.setattr(StrongModel, "run", lambda self, *a: (trained.append(self.name), run_it(self, *a))[1])
        run = RaisedRates.create(**OF_IMAGES).run()
        assert trained == ["strong model of mine"]
        strong = store.load(run.experiment.strong_model())
        said = run.describe().markdown
        assert "2 weight layers with 4 channels, " in said and "trained with Adam on 40 samples" in said
        assert f"It gets {100 * (1 - strong.test_error):.1f} % of 16 test samples right." in said
        assert "25 % of the training labels (8 of 32) are wrong" in said
        for result in run.raised:
            np.testing.assert_array_equal(result.true_corner, strong.egop[:10, :10])
            assert 0 < result.alignment <= 1 and 0 <= result.test_error <= 1
        assert strong.egop.shape == (36, 36)
        assert figures.pictures(run) is None
        assert_readable(training_table(run), *claims(run).values())
        assert "test error" in assert_drawn(figures.catapults, run).alt
        assert "Validation error" in assert_drawn(figures.validation, run).caption

    def test_its_egop_is_the_agop_of_a_network_that_adam_trained(self):
        """By a loop of our own; at its best of five steps and the start."""
        strong = RaisedRates.create(**OF_IMAGES).strong_model()
        result = strong.run()
        task = data.load("mine", 40, 8, 16, seed=0)
        model = strong._network().model(task.train.inputs, 3)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        errors, egops, tests = [], [], []
        batches = sgd.batches(40, 8, False, 0)
        for _ in range(6):
            wrong = [
                (model(s.inputs).argmax(1) != s.targets.argmax(1)).float().mean() for s in (task.validation, task.test)
            ]
            loss = (model(task.validation.inputs) - task.validation.targets).square().mean().item()
            errors.append((wrong[0].item(), loss)), tests.append(wrong[1].item())
            egops.append(agop(model, task.train.inputs))
            batch = next(batches)
            optimizer.zero_grad()
            (model(task.train.inputs[batch]) - task.train.targets[batch]).square().mean().backward()
            optimizer.step()
        best = min(range(6), key=lambda e: errors[e])
        assert result.test_error == pytest.approx(tests[best])
        np.testing.assert_allclose(result.egop, egops[best], rtol=1e-2, atol=1e-5)
        assert result.parameters == sum(p.numel() for p in model.parameters())

    def test_label_noise_reaches_the_training_set_only(self):
        experiment = RaisedRates.create(**OF_IMAGES)
        noisy, clean = experiment.task(), data.load("mine", 32, 16, 16, seed=0)
        differs = (noisy.train.targets != clean.train.targets).any(1)
        assert differs.sum() == 8 and torch.equal(noisy.train.inputs, clean.train.inputs)
        assert torch.equal(noisy.validation.targets, clean.validation.targets)
        assert torch.equal(noisy.test.targets, clean.test.targets)

    def test_trainings_that_fail_are_named(self):
        experiment = RaisedRates.create(**OF_IMAGES | {"strong": STRONG | {"n_train": 99}})
        with pytest.raises(
            TrainingFailed, match="3 failed: mine, GD, rate .*n_train [+] n_validation = 107: mine allows"
        ):
            experiment.run()


@pytest.fixture(scope="module")
def run():
    """Of which the tests replace the results."""
    experiment = RaisedRates.create(**SMALL)
    return RaisedRun(experiment, [made(1.0, 0.1)] * 3, None, made(1.0, 0.1), Sweep(()))


def course(run, spikes, losses, alignments, small=None, literal=None, **changes):
    raised = [made(loss, a, spikes=k) for k, loss, a in zip(spikes, losses, alignments, strict=True)]
    experiment = run.experiment.model_copy(update=changes)
    return replace(run, experiment=experiment, raised=raised, small=small, literal=literal)


def verdicts(run):
    return {name: HOLDS[claim.verdict] for name, claim in claims(run).items()}


class TestClaims:
    def test_of_the_paper_s_picture(self, run):
        found = course(run, [0, 1, 2, 4], [1.0, 0.5, 0.3, 0.1], [0.2, 0.4, 0.6, 0.9], small=made(0.1, 0.9))
        assert [r.spikes for r in found.raised] == [0, 1, 2, 4]
        expected = dict.fromkeys(
            ("catapults", "performance", "validation", "alignment", "correlation", "closer", "small"), True
        )
        assert verdicts(found) == expected | {"schedule": None}  # its rates are multiples
        said = claims(found)
        assert said["catapults"].ours == "0, 1, 2, 4 with 0 to 3 raises"
        assert said["performance"].ours == "1.000 with 0, 0.100 with 4; rank correlation −1.00"
        assert "0.20 with no catapult and 0.90 with 4 catapults" in said["alignment"].sentence

    @pytest.mark.parametrize("spikes, holds", [([0, 1, 2], True), ([0, 1, 1], False), ([2, 3, 3], False)])
    def test_several_catapults(self, run, spikes, holds):
        assert verdicts(course(run, spikes, [1, 0.9, 0.8], [0.1, 0.2, 0.3]))["catapults"] is holds

    @pytest.mark.parametrize(
        "losses, holds",
        [([1, 0.8, 0.6, 0.4], True), ([1, 0.4, 0.8, 0.6], False), ([0.4, 0.6, 0.8, 1], False), ([1] * 4, None)],
    )
    def test_what_follows_the_catapults(self, run, losses, holds):
        found = verdicts(course(run, [0, 1, 2, 3], losses, [1 - loss / 2 for loss in losses]))
        assert found["performance"] is found["validation"] is found["alignment"] is holds

    def test_fewest_catapults_need_not_be_the_first(self, run):
        found = claims(course(run, [1, 0, 3], [0.5, 1, 0.1], [0.5, 0.2, 0.9]))["performance"]
        assert found.ours.startswith("1.000 with 0, 0.100 with 3") and found.verdict == REPRODUCED

    def test_the_same_number_of_catapults_says_nothing(self, run):
        found = verdicts(course(run, [1, 1, 1], [1, 0.8, 0.6], [0.1, 0.2, 0.3]))
        assert found["performance"] is found["alignment"] is None and found["correlation"] is True

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
        assert_readable(*claims(found).values(), training_table(found))

    @pytest.mark.parametrize("loss, aligned, better", [(0.96, 0.14, (True, True)), (0.94, 0.16, (False, False))])
    def test_of_a_function_of_full_rank(self, run, loss, aligned, better):
        found = course(run, [0, 1, 2], [1, 2.0, loss], [0.1, aligned, 0.05], dataset="full-rank")
        assert (verdicts(found)["no_better"], verdicts(found)["no_alignment"]) == better
        assert claims(found).keys() == {"catapults", "no_better", "no_alignment", "schedule"}
        unknown = course(run, [0, 1, 2], [1, 2.0, loss], [math.nan, 0.1, 0.05], dataset="full-rank")
        assert verdicts(unknown)["no_alignment"] is None and "– without" in claims(unknown)["no_alignment"].ours

    def test_errors_of_classes(self, run):
        found = replace(
            run,
            experiment=run.experiment.model_copy(update={"dataset": "usps-2"}),
            raised=[made(9.0, a, spikes=k, error=e) for k, a, e in ((0, 0.1, 0.2), (1, 0.2, 0.1), (2, 0.3, 0.05))],
            small=None,
        )
        assert verdicts(found)["performance"] is True
        assert claims(found)["performance"].ours.startswith("20.0 % with 0, 5.0 % with 2")
        assert "| 5.0 % | 0.300 |" in training_table(found).markdown

    @pytest.mark.parametrize("schedule, diverged, holds", [("2; 3: 9", False, True), ("2; 3: 9", True, False)])
    def test_the_paper_s_schedule(self, run, schedule, diverged, holds):
        literal = made(1.0, 0.1, diverged=diverged)
        found = course(run, [0, 1], [1, 0.5], [0.1, 0.2], literal=literal, literal_schedule=schedule)
        assert verdicts(found)["schedule"] is holds
        assert ("diverges at iteration 41, at rate 2" in claims(found)["schedule"].ours) is diverged
        assert ("| diverges |" in training_table(found).markdown) is diverged
        assert_readable(*claims(found).values(), training_table(found), figures.validation(found))

    def test_our_schedule_may_be_the_paper_s(self, run):
        assert verdicts(course(run, [0, 1], [1, 0.5], [0.1, 0.2], learning_rate="2; 4: 8"))["schedule"] is True

    def test_an_agop_of_zeros(self, run):
        """Has no alignment: it says nothing, and the others still do."""
        found = course(run, [0, 1, 2, 3, 4], [1, 0.8, 0.6, 0.5, 0.4], [0.1, math.nan, 0.3, 0.4, 0.5])
        assert verdicts(found)["alignment"] is verdicts(found)["correlation"] is True
        last = course(run, [0, 1, 2, 3, 4], [1, 0.8, 0.6, 0.5, 0.4], [0.1, 0.2, 0.3, 0.4, math.nan])
        assert verdicts(last)["alignment"] is None and verdicts(last)["performance"] is True
        for some in (found, last):
            assert_readable(*claims(some).values(), training_table(some))
            for draw in (figures.catapults, figures.pictures):
                assert_drawn(draw, some)


class TestFigures:
    def test_are_drawn_the_same(self, run):
        found = course(run, [0, 1, 2], [1, 0.8, 0.6], [0.1, 0.2, 0.3])
        assert figures.catapults(found).svg == figures.catapults(found).svg

    def test_their_words_carry_the_numbers(self, run):
        found = course(run, [0, 1, 2], [1, 0.8, 0.6], [0.1, 0.2, 0.3], small=made(0.5, 0.9))
        alt = assert_drawn(figures.catapults, found).alt
        assert "test loss: 1 (0), 0.8 (1), 0.6 (2); AGOP alignment: 0.1 (0), 0.2 (1), 0.3 (2)" in alt
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
        assert_readable(*claims(found).values(), found.describe())


def test_mean_and_deviation():
    assert mean_and_deviation(np.array([1.0, 3.0, math.nan])) == (2.0, pytest.approx(math.sqrt(2)))
    for values, mean in (([], math.nan), ([math.nan], math.nan), ([4.0, math.nan], 4.0)):
        found = mean_and_deviation(np.array(values))
        assert found == pytest.approx((mean, math.nan), nan_ok=True)
