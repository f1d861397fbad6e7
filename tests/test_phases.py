"""Chapter 5: phases over widths and multiples of the critical rate."""

import json
import math
import re

import numpy as np
import pytest
from catapults.book.explorer import html
from catapults.compute import obtain
from catapults.experiments import ParameterError
from catapults.experiments.phases import Course, Phases, PhasesRun, middle
from catapults.figures import phases as figures
from catapults.paper import NOT_COMPARED, NOT_REPRODUCED, PARTLY, REPRODUCED
from catapults.paper.descriptions import describe
from catapults.paper.phases import claims, model_table, phase_table, sentence, steps_sentence
from histories import history

SMALL = {
    "dataset": "rank-2", "architecture": "fcn", "depth": 3, "widths": [32, 128], "image_size": None, "n_train": 16,
    "labels": "zero-one", "gain": math.sqrt(2), "bias": False, "multiples": [0.5, 1.5, 2.5, 40], "steps": 30, "top": 3,
    "seed": 0, "seeds": 2, "models": ["linear", "quadratic", "frozen gates"], "finer": [0.9, 1.1],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"widths": []}, r"^widths = \[\]: allowed are one or several numbers that ascend"),
        ({"widths": [64, 32]}, r"^widths = \[64, 32\]: allowed are one or several numbers that ascend"),
        ({"multiples": [1, 1]}, r"^multiples = \[1, 1\]: allowed are one or several numbers that ascend"),
        ({"multiples": [-1.0]}, "multiples = .*greater than 0"),
        ({"top": 16}, "top = 16: allowed are whole numbers from 1 to 15"),
        ({"models": ["cubic"]}, "models = .*'linear', 'quadratic' or 'frozen gates'"),
        ({"models": ["linear", "linear"]}, r"models = \['linear', 'linear'\]: allowed are models that differ"),
        ({"finer": [0.0]}, "finer = .*greater than 0"),
        (
            {"models": ["frozen gates"], "architecture": "cnn", "dataset": "cifar-2", "image_size": 8},
            r"models = \['frozen gates'\]: gates are frozen in networks of architecture 'fcn', and not 'cnn'",
        ),
        ({"depth": 1}, "depth = 1: allowed are whole numbers of at least 2"),
        ({"learning_rate": 3}, "learning_rate: unknown parameter"),
    ],
)
def test_impossible_parameters(changed, message):
    with pytest.raises(ParameterError, match=message):
        Phases.create(**SMALL | changed)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATAPULTS_RESULTS", str(tmp_path_factory.mktemp("results")))
        page = Phases.create(**SMALL)
        results = obtain(page, device="cpu")
        return page.runs(results), results


class TestTrainings:
    def test_there_is_one_for_each_width_multiple_and_seed_from_the_same_weights(self, trained):
        runs, _ = trained
        assert [run.experiment.seed for run in runs] == [0, 1]
        for run in runs:
            assert list(run.courses) == [(w, m) for w in (32, 128) for m in (0.5, 1.5, 2.5, 40)]
            for width in (32, 128):
                first = {course.history.loss[0] for course in run.of_width(width)}
                assert len(first) == 1
                for course in run.of_width(width):
                    rate = course.history.learning_rate[0] / course.history.critical_learning_rate[0]
                    assert rate == pytest.approx(course.multiple)

    def test_below_the_critical_rate_is_lazy_and_far_above_diverges(self, trained):
        for run in trained[0]:
            assert {run.courses[w, 0.5].phase for w in (32, 128)} == {"lazy"}
            assert {run.courses[w, 40].phase for w in (32, 128)} == {"divergence"}

    def test_the_models_beside_the_network_start_where_it_does(self, trained):
        for run in trained[0]:
            assert run.kinds == ["linear", "quadratic", "frozen gates", "network"]
            for width in (32, 128):
                network = run.courses[width, 0.5].history
                for kind in run.kinds[:-1]:
                    courses = run.of_width(width, kind)
                    assert [c.multiple for c in courses] == [0.5, 0.9, 1.1, 1.5, 2.5, 40]
                    for course in courses:
                        assert course.history.loss[0] == pytest.approx(network.loss[0], rel=1e-5)
                        assert course.history.kernel_norm[0] == pytest.approx(network.kernel_norm[0], rel=1e-5)
                    assert courses[0].phase == "lazy" and courses[-1].phase == "divergence"

    def test_the_linear_model_ends_at_the_critical_rate_with_a_kernel_that_does_not_change(self, trained):
        for run in trained[0]:
            for width in (32, 128):
                assert run.border(width, "linear") == (0.9, 1.1)
                for course in run.of_width(width, "linear")[:2]:
                    norm = course.history.kernel_norm
                    assert norm == pytest.approx(np.full_like(norm, norm[0]), rel=1e-5)

    def test_a_curve_ends_where_its_training_does(self, trained):
        course = trained[0][0].of_width(32, "linear")[-1]
        assert course.history.diverged and 2 <= len(course.history.loss) < 31
        assert len(trained[0][0].of_width(32, "linear")[0].history.loss) == 31

    def test_they_are_described_drawn_and_tabled(self, trained):
        runs, results = trained
        said = describe(runs, results).markdown
        assert "of the widths 32, 128" in said and "0.5, 1.5, 2.5, 40 times the critical rate" in said
        assert model_table(runs).markdown.count("| linear | ") == 2
        for figure in (
            figures.diagram(runs),
            figures.models(runs),
            figures.courses(runs),
            figures.course(runs[0].courses[128, 0.5]),
        ):
            assert figure.svg.count("<svg") == 1 and len(figure.alt) > 60 and figure.caption.endswith(".")
        assert "divergence from 40 to 40" in figures.diagram(runs).alt
        lines = phase_table(runs).markdown.splitlines()
        assert len(lines) == 4 and lines[2].startswith("| 32 | ") and "40, 40" in lines[3]


def course(multiple: float, loss: list[float], norm: list[float] | None = None, **other) -> Course:
    values = np.array(loss)
    norms = np.ones(len(loss)) if norm is None else np.array(norm)
    return Course(float(multiple), history(loss=values, kernel_norm=norms, **other))


@pytest.mark.parametrize(
    ("loss", "diverged", "phase", "height", "back"),
    [
        ([1.0, 0.9, 0.5], False, "lazy", 1.0, 1),
        ([1.0, 1.9, 0.5], False, "lazy", 1.9, 2),
        ([1.0, 3.0, 1.5, 0.9], False, "catapult", 3.0, 3),
        ([1.0, 3.0, 1.5, 1.1], False, "unsettled", 3.0, None),
        ([1.0, 30.0, 1e9], True, "divergence", math.inf, None),
    ],
)
def test_the_phase_of_a_course(loss, diverged, phase, height, back):
    one = course(2, loss, diverged=diverged)
    assert (one.phase, one.height, one.back) == (phase, height, back)


LAZY, SPIKE, GONE = [1.0, 0.9, 0.5], [1.0, 4.0, 0.5], [1.0, 30.0, 1e9]


def made_up(of: dict[float, tuple[list[float], list[float]]], widths=(64,)) -> PhasesRun:
    """A run whose courses have these losses and norms, at every width."""
    page = Phases.create(
        **SMALL | {"widths": list(widths), "multiples": [float(m) for m in of], "seeds": 1, "models": []}
    )
    courses = {
        (w, float(m)): course(m, loss, norm, diverged=loss is GONE) for w in widths for m, (loss, norm) in of.items()
    }
    return PhasesRun(page, "Pebbles.", courses, dict.fromkeys(widths, 7), 1)


FALLS = {
    0.5: (LAZY, [1, 1, 1]),
    1.5: (SPIKE, [1, 1, 0.5]),
    2: (SPIKE, [1, 1, 0.4]),
    3: ([1.0, 5.0, 0.5], [1, 1, 0.3]),
    5: ([1.0, 6.0, 0.5], [1, 1, 0.1]),
    7: (GONE, [1, 1, 1]),
}


class TestClaims:
    def test_of_a_run_that_does_what_the_paper_says(self):
        found = claims([made_up(FALLS)])
        assert {name: claim.verdict for name, claim in found.items()} == {
            "lazy": REPRODUCED, "catapult": REPRODUCED, "border": REPRODUCED, "norm": REPRODUCED,
            "height": REPRODUCED, "further": REPRODUCED, "widths": NOT_COMPARED,
        }  # fmt: skip
        assert found["border"].ours == "between 5 and 7 η_crit"
        assert found["border"].value == pytest.approx(math.sqrt(35))

    def test_each_of_them_can_fail(self):
        found = claims([made_up(FALLS | {0.5: (SPIKE, [1, 1, 1])})])
        assert found["lazy"].verdict == NOT_REPRODUCED
        found = claims([made_up(FALLS | {2: (GONE, [1, 1, 1])})])
        assert found["catapult"].verdict == NOT_REPRODUCED and found["border"].verdict == NOT_REPRODUCED
        found = claims([made_up(FALLS | {5: ([1.0, 2.0, 0.5], [1, 1, 0.9])})])
        assert {found[name].verdict for name in ("norm", "height", "further")} == {NOT_REPRODUCED}

    def test_widths_are_compared_where_each_has_a_border(self):
        both = made_up(FALLS, widths=(32, 64))
        assert claims([both])["widths"].verdict == REPRODUCED
        narrow = {key: one for key, one in both.courses.items() if key[0] == 64}
        early = made_up(FALLS | {1.5: (GONE, [1, 1, 1])}, widths=(32, 64))
        mixed = {key: one for key, one in early.courses.items() if key[0] == 32} | narrow
        two = PhasesRun(both.experiment, "", mixed, both.parameters, 1)
        assert claims([two])["widths"].verdict == NOT_REPRODUCED
        assert claims([both, two])["widths"].verdict == PARTLY

    def test_a_border_outside_of_the_rates_is_not_compared(self):
        calm = {m: of for m, of in FALLS.items() if m < 7}
        assert claims([made_up(calm)])["border"].verdict == NOT_COMPARED
        assert claims([made_up({3: FALLS[3], 7: FALLS[7]})])["lazy"].verdict == NOT_COMPARED


def beside(borders: dict[str, tuple[float, float]]) -> PhasesRun:
    """A run at one width in which each model comes back up to a rate, and the network up to five critical ones."""
    run = made_up(FALLS)
    finer = sorted({float(m) for border in borders.values() for m in border if m < math.inf})
    page = run.experiment.model_copy(update={"models": list(borders), "finer": finer})
    courses = {
        (kind, 64, m): course(m, GONE if m >= first else LAZY, diverged=m >= first)
        for kind, (_, first) in borders.items()
        for m in page.multiples_of_models
    }
    return PhasesRun(page, "", run.courses, run.parameters, 1, courses)


class TestClaimsOnModels:
    def test_hold_where_the_borders_are_those_of_the_paper_and_ascend(self):
        found = claims([beside({"linear": (0.95, 1.05), "quadratic": (1.9, 2.1), "frozen gates": (2.5, 2.75)})])
        assert {found[name].verdict for name in ("linear", "quadratic", "gates")} == {REPRODUCED}
        assert found["quadratic"].value == pytest.approx(math.sqrt(2 * 2.1))

    def test_each_of_them_can_fail(self):
        found = claims([beside({"linear": (1.1, 1.2), "quadratic": (3, 3.5), "frozen gates": (2.5, 2.75)})])
        assert {found[name].verdict for name in ("linear", "quadratic", "gates")} == {NOT_REPRODUCED}

    def test_are_made_of_the_models_that_are_there(self):
        found = claims([beside({"quadratic": (1.9, 2.1)})])
        assert "linear" not in found and "gates" not in found
        assert claims([beside({"frozen gates": (2.5, 2.75)})])["gates"].verdict == NOT_COMPARED

    def test_a_border_outside_of_the_rates_is_not_compared(self):
        found = claims([beside({"linear": (9, math.inf), "quadratic": (9, math.inf)})])
        assert {found[name].verdict for name in ("linear", "quadratic")} == {NOT_COMPARED}
        assert math.isnan(middle((8.0, math.inf))) and math.isnan(middle((0.0, 0.5)))


def test_whether_more_steps_would_change_a_border_is_said():
    run = made_up(FALLS)
    assert "Of the 6 trainings none is unsettled after 30 steps" in steps_sentence([run]).markdown
    assert "by iteration 2 at the latest" in steps_sentence([run]).markdown
    slow = made_up(FALLS | {5: ([1.0, 6.0, 1.5], [1, 1, 1])})
    assert "Of the 12 trainings 1 is unsettled" in steps_sentence([run, slow]).markdown


def test_a_training_in_one_sentence():
    run = made_up(FALLS)
    assert sentence(run, 64, 0.5) == (
        "At 0.5 times the critical rate the loss never rises; ‖K‖ never falls below where it began."
    )
    assert "rises 4-fold and is back below its start at iteration 2; ‖K‖ falls to 40 %" in sentence(run, 64, 2.0)
    assert sentence(run, 64, 7.0) == "At 7 times the critical rate training diverges within 2 iterations."


def test_the_picture_that_moves_holds_every_course_and_stands_without_scripts(trained):
    run = trained[0][0]
    made = html(run)
    assert made.count("<svg") == 1 and 'aria-live="polite"' in made and "<input" in made
    data = re.search(r'<script type="application/json">(.*)</script>', made)[1]
    positions = json.loads(data)["positions"]
    assert [p["sentence"] for p in positions] == [sentence(run, 128, m) for m in run.experiment.multiples]
    assert all(len(p["loss"]) == len(p["norm"]) <= 41 for p in positions)
    assert positions[0]["loss"][0] == pytest.approx(run.courses[128, 0.5].history.loss[0], rel=1e-3)
    assert len(data) < 40_000
