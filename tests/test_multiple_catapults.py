import math
from dataclasses import replace

import numpy as np
import pytest
from catapults.compute import obtain
from catapults.experiments import ParameterError
from catapults.experiments.multiple_catapults import MultipleCatapults, MultipleRun, Phase
from catapults.figures import multiple_catapults as figures
from catapults.paper import NOT_COMPARED, NOT_REPRODUCED, PARTLY, REPRODUCED, judge, quotes
from catapults.paper.descriptions import describe
from catapults.paper.multiple_catapults import catapults, claims
from catapults.paper.quotes import FinalRate
from histories import history

SMALL = {
    "dataset": "rank-2", "architecture": "fcn", "norm": None, "depth": 3, "width": 256, "image_size": None,
    "n_train": 24, "labels": "zero-one", "parameterization": "ntk", "gain": math.sqrt(2), "bias": False,
    "paper_schedule": "2 eta_crit; 20: 3.5 eta_crit", "our_schedule": "2 eta_crit; 15: 1.5 current eta_crit",
    "steps": 60, "restart_steps": 12, "top": 5, "seed": 0, "seeds": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"our_schedule": "fast"}, "^our_schedule = 'fast': allowed are a positive number, a multiple"),
        ({"our_schedule": "6; 3"}, "^our_schedule = '6; 3': allowed are"),
        ({"our_schedule": -2}, "^our_schedule = -2: allowed are"),
        ({"paper_schedule": "6; 5: 10; 3: 4"}, "^paper_schedule = '6; 5: 10; 3: 4': its iterations do not ascend"),
        ({"paper_schedule": "6; 5: learning_rate"}, "^paper_schedule = '6; 5: learning_rate': allowed are"),
        ({"paper_schedule": None}, "^paper_schedule = None: input should be a valid integer, or a valid number, or"),
        ({"our_schedule": "6; 60: 10"}, "^our_schedule = '6; 60: 10': allowed are changes before iteration 60"),
        ({"paper_schedule": "6; 5: 10; 90: 15"}, "^paper_schedule = .*: allowed are changes before iteration 60"),
        ({"steps": 20}, "^paper_schedule = '2 eta_crit; 20: 3.5 eta_crit': allowed are changes before iteration 20"),
        ({"steps": 0}, "steps = 0: input should be greater than or equal to 1"),
        ({"restart_steps": 0}, "restart_steps = 0: input should be greater than or equal to 1"),
        ({"top": 24}, "top = 24: allowed are whole numbers from 1 to 23"),
        ({"top": [1, 2]}, r"top = \[1, 2\]: input should be a valid integer"),
        ({"norm": "layer"}, "norm = 'layer': architecture 'fcn' has none"),
        ({"learning_rate": 6}, "learning_rate: unknown parameter"),
    ],
)
def test_impossible_parameters(changed, message):
    with pytest.raises(ParameterError, match=message):
        MultipleCatapults.create(**SMALL | changed)


def test_both_schedules_are_named_at_once():
    with pytest.raises(ParameterError) as error:
        MultipleCatapults.create(**SMALL | {"paper_schedule": "a", "our_schedule": "b"})
    assert [line.split(" = ")[0] for line in str(error.value).splitlines()] == ["paper_schedule", "our_schedule"]


@pytest.mark.parametrize("changed", [{"our_schedule": 6, "paper_schedule": 1.5}, {"our_schedule": "6; 59: 10"}])
def test_possible_parameters(changed):
    assert MultipleCatapults.create(**SMALL | changed).model_dump() == SMALL | changed


def test_experiments_are_described_by_name_type_and_range():
    assert set(SMALL) == set(MultipleCatapults.model_fields)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATAPULTS_RESULTS", str(tmp_path_factory.mktemp("results")))
        page = MultipleCatapults.create(**SMALL)
        yield page, obtain(page, device="cpu", progress=False)


@pytest.fixture(scope="module")
def run(trained):
    page, results = trained
    return page.runs(results)[0]


def quoted(monkeypatch, critical, final):
    """What the paper quotes is this."""
    quote = FinalRate("figure 99", {"dataset": "rank-2", "architecture": "fcn"}, critical, final)
    monkeypatch.setattr(quotes, "_FINAL_RATES", (quote,))


def phases(run) -> list[Phase]:
    return [run.paper, run.ours, run.paper_restart, run.our_restart]


class TestARun:
    def test_raises_above_the_current_critical_rate_give_catapults(self, run):
        assert len(run.ours.catapults) >= 2 and not run.ours.history.diverged
        assert run.ours.multiple > 6 and run.our_restart.history.diverged
        assert run.paper.multiple == pytest.approx(3.5, rel=1e-4) and not run.paper_restart.history.diverged

    def test_all_four_start_from_the_same_weights(self, run):
        assert len({phase.history.loss[0] for phase in phases(run)}) == 1
        assert len({phase.initial_critical_rate for phase in phases(run)}) == 1

    def test_claims_on_figures_17_and_18_name_them(self, run):
        named = {name: c.shown_in for name, c in claims([run]).items() if c.shown_in}
        seventeen = dict.fromkeys(("top", "rest"), ("figure 17",))
        assert named == seventeen | {"paper_restart": ("figure 18",), "our_restart": ("figure 18",)}

    def test_restarts_begin_at_the_final_rates(self, run):
        for phase, restart in ((run.paper, run.paper_restart), (run.ours, run.our_restart)):
            assert (restart.history.learning_rate == phase.final_rate).all()
        assert len(run.paper_restart.history) == 12 and len(run.paper.history) == 60

    def test_stretches_partition_the_iterations(self, run):
        for phase, firsts in ((run.paper, [0, 20]), (run.ours, [0, 15]), (run.our_restart, [0])):
            stretches, h = phase.stretches, phase.history
            assert [s.first for s in stretches] == firsts
            covered = [t for s in stretches for t in range(s.first, s.last + 1)]
            assert covered == h.iteration.tolist()
            for s in stretches:
                assert (h.rate_at_states[s.first : s.last + 1] == s.learning_rate).all()
            assert [c for s in stretches for c in s.catapults] == phase.catapults

    def test_its_claims_and_its_description(self, trained, run):
        found = {name: claim.verdict for name, claim in judge(*trained).items()}
        assert found["ours"] == found["multiple"] == found["our_restart"] == REPRODUCED
        assert found["paper_restart"] == NOT_REPRODUCED
        said = describe([run], trained[1]).markdown
        assert "rank-2" in said and "60 steps under each schedule" in said and "The 4 trainings took" in said


def phase(loss, norm, rate, diverged=False, share=0.98):
    """A training with this course, on 16 samples; the top part of the loss is a share of it; ``rate`` at the states."""
    loss = np.array(loss, float)
    norm, rates = (np.array(np.broadcast_to(np.array(x, float), len(loss))) for x in (norm, rate))
    splits = np.stack([share * loss, (1 - share) * loss], 1)[:, None]
    if diverged:
        norm[-1] = splits[-1] = math.nan
    columns = {"kernel_norm": norm, "critical_learning_rate": 16 / norm, "splits": splits}
    return Phase(history(loss, rates[:-1], tops=(5,), diverged=diverged, **columns), 1)


RATES = [6.0] * 4 + [15.0] * 4
TWO = phase([1.0, 4.0, 0.9, 0.5, 0.4, 2.0, 0.2, 0.05], [8, 4, 2, 2, 2, 1.5, 0.5, 0.5], RATES)  # 4 and then 2 of 16
ONE = phase([1.0, 4.0, 0.9, 0.5, 0.4, 0.3, 0.2, 0.15], [8, 4, 2, 2, 2, 2, 2, 2], [6.0] * 4 + [7.0] * 4)
CALM = phase([1.0, 0.9, 0.8, 0.7], [8.0, 8.0, 8.1, 8.2], 1.0)
DIVERGED = phase([1.0, 30.0, 900.0, math.inf], [8, 9, 20, 1], 15.0, diverged=True)
LATER = phase([1.0, 4.0, 0.9, 0.5, 0.4, 2.0, math.inf], [8, 4, 2, 2, 2, 1.5, 1], RATES[:7], diverged=True)
TWICE = phase([*TWO.history.loss[:7], 7e6], [8, 4, 2, 2, 2, 1.5, 0.5, 1], RATES, diverged=True)


def made(run, paper=ONE, ours=TWO, paper_restart=CALM, our_restart=DIVERGED) -> MultipleRun:
    """The run with other histories."""
    return replace(run, paper=paper, ours=ours, paper_restart=paper_restart, our_restart=our_restart)


def texts(run):
    """Every text that a page has on a run."""
    shown = [*claims([run]).values(), figures.restarts(run)]
    for training in (run.paper, run.ours):
        shown += [draw(training, "name", "our") for draw in (figures.loss_and_norm, figures.loss_split)]
    tables = [catapults(training, 5).markdown for training in (run.paper, run.ours)]
    every = [text for part in shown for name, text in vars(part).items() if name != "svg"]
    return tables + [text for text in every if isinstance(text, str)]


def verdict(run, name):
    holds = {REPRODUCED: True, NOT_REPRODUCED: False, NOT_COMPARED: None}
    return holds[claims([run])[name].verdict]


def test_the_courses_are_what_they_are_made_for():
    counts = [len(training.catapults) for training in (TWO, ONE, CALM, DIVERGED, LATER, TWICE)]
    assert counts == [2, 1, 0, 0, 1, 2]


class TestClaims:
    @pytest.mark.parametrize(
        "ours, holds, said",
        [
            (TWO, True, "there are 2 catapults: 1 at η = 6 (iterations 0 to 3), 1 at η = 15 (iterations 4 to 7)."),
            (ONE, False, "there is 1 catapult: 1 at η = 6 (iterations 0 to 3), none at η = 7 (iterations 4 to 7)."),
            (CALM, False, "there are 0 catapults: none at η = 1 (iterations 0 to 3). The loss ends at 0.7."),
            (DIVERGED, False, "none at η = 15 (iterations 0 to 3). The run diverges."),
        ],
    )
    def test_raising_the_rate_gives_several_catapults(self, run, ours, holds, said):
        assert verdict(made(run, ours=ours), "ours") is verdict(made(run, paper=ours), "paper") is holds
        assert said in claims([made(run, ours=ours)])["ours"].sentence

    def test_counts_are_written_as_words_go(self, run):
        assert claims([made(run)])["paper"].ours == "1 catapult, at 1 of 2 rates"
        assert claims([made(run)])["ours"].ours == "2 catapults, at 2 of 2 rates"

    def test_the_norm_is_lower_after_each(self, run):
        rising = phase([1.0, 4.0, 0.9, 0.5], [8.0, 8.0, 8.5, 2.0], 6.0)
        assert verdict(made(run), "norm") is True and claims([made(run)])["norm"].ours == "after 3 of 3"
        assert claims([made(run, paper=rising)])["norm"].value == pytest.approx(200 / 3)
        assert verdict(made(run, paper=rising), "norm") is False
        assert verdict(made(run, CALM, DIVERGED), "norm") is None
        assert "There is no catapult" in claims([made(run, CALM, CALM)])["norm"].sentence

    @pytest.mark.parametrize(
        "ours, holds, said",
        [
            (TWO, True, "before the second catapult and 0.5 at the end, after 2."),
            (phase(TWO.history.loss.tolist(), [8, 4, 2, 2, 2, 1.5, 1.2, 1.2], RATES), False, "1.2 at the end"),
            (ONE, None, "not several catapults"),
            (DIVERGED, None, "Our schedule diverges"),
            (TWICE, None, "Our schedule diverges"),
        ],
    )
    def test_several_make_the_norm_much_smaller_than_one(self, run, ours, holds, said):
        claim = claims([made(run, ours=ours)])["smaller"]
        assert verdict(made(run, ours=ours), "smaller") is holds and said in claim.sentence
        assert ("fewer than two" in claim.ours) is (ours is ONE)

    @pytest.mark.parametrize(
        "ours, holds",
        [
            (TWO, True),
            (ONE, False),  # only 3.5 times the first critical rate
            (
                phase([1.0, 4.0, 0.9, 0.5, 0.4, 2.0, 0.2, 0.15], [8, 4, 2, 2, 2, 1.5, 0.5, 0.5], RATES),
                False,
            ),  # too high
            (TWICE, False),
        ],
    )
    def test_training_converges_far_above_the_initial_critical_rate(self, run, ours, holds):
        assert verdict(made(run, ours=ours), "multiple") is holds

    def test_the_rate_at_the_end_is_named_beside_what_is_quoted(self, run, monkeypatch):
        assert claims([made(run)])["multiple"].paper == "a much larger rate (section 3.2)"
        quoted(monkeypatch, 3.6, 60.0)
        claim = claims([made(run)])["multiple"]
        assert "60, 16.7 times 3.6 (Fig. 99)" in claim.paper and claim.ours.startswith("15, 7.5 times 2;")
        assert "The paper's schedule ends at 7, 3.5 times." in claim.sentence

    def test_the_restart_diverges(self, run):
        found = claims([made(run)])
        assert found["our_restart"].verdict == REPRODUCED and found["paper_restart"].verdict == NOT_REPRODUCED
        assert "at iteration 3 the loss is no longer finite" in found["our_restart"].sentence
        assert "does not diverge. The loss goes from 1 to at most 1 and is 0.7" in found["paper_restart"].sentence
        finite = claims([made(run, paper_restart=TWICE)])["paper_restart"]
        assert finite.verdict == REPRODUCED and "at iteration 7 the loss is 7e+06" in finite.sentence

    def test_the_papers_restart_is_compared_at_the_papers_final_rate_only(self, run, monkeypatch):
        quoted(monkeypatch, 2.0, 7.2)
        assert claims([made(run)])["paper_restart"].verdict == NOT_REPRODUCED  # 3.5 times, quoted 3.6 times
        quoted(monkeypatch, 2.0, 60.0)
        claim = claims([made(run)])["paper_restart"]
        assert claim.verdict == NOT_COMPARED and "diverges at 60, 30 times" in claim.paper

    def test_over_seeds(self, run):
        found = claims([made(run), made(run, ours=ONE), made(run, ours=DIVERGED)])
        assert found["ours"].verdict == PARTLY and found["ours"].held == (1, 3)
        assert found["smaller"].held == (1, 1)  # with one catapult, or none that comes back, there is no other

    def test_a_schedule_that_diverges_itself_says_nothing_of_its_final_rate(self, run):
        claim = claims([made(run, ours=DIVERGED)])["our_restart"]
        assert claim.verdict == NOT_COMPARED and "so does the schedule itself" in claim.sentence

    def test_a_schedule_that_diverges_is_not_reproduced(self, run):
        assert verdict(made(run, ours=TWICE), "ours") is False

    def test_all_lie_in_the_top_eigenspace(self, run):
        spread = phase(ONE.history.loss.tolist(), [8, 4, 2, 2, 2, 2, 2, 2], 6.0, share=0.9)
        assert verdict(made(run), "top") is True and verdict(made(run, spread, spread), "top") is False
        assert verdict(made(run, CALM, CALM), "top") is None
        claim = claims([made(run, paper=spread)])["top"]
        assert claim.verdict == REPRODUCED and "median share 98.0 %, the smallest 90.0 %" in claim.ours

    def test_the_rest_is_as_it_was(self, run):
        """It has 2 % of the loss, which is lower after each catapult; or after one of three it is not."""
        assert verdict(made(run), "rest") is True and verdict(made(run, CALM, CALM), "rest") is None
        worse = phase(ONE.history.loss.tolist(), [8, 4, 2, 2, 2, 2, 2, 2], 6.0)
        worse.history.splits[2, -1, 1] = 1.2 * worse.history.splits[0, -1, 1]
        assert worse.rest_after(worse.catapults[0]) == pytest.approx(1.2)
        assert verdict(made(run, paper=worse), "rest") is True  # the median
        assert verdict(made(run, worse, worse), "rest") is False
        assert "at most 1.20 times" in claims([made(run, worse, worse)])["rest"].ours


COURSES = {
    "two": {},
    "calm": {"paper": CALM, "ours": CALM, "our_restart": CALM},
    "diverged": {"paper": DIVERGED, "ours": DIVERGED, "paper_restart": DIVERGED},
    "diverged later": {"paper": TWICE, "ours": LATER},
    "at once": {
        "ours": phase([1.0, 2e6], [8, 1], 90.0, diverged=True),
        "our_restart": phase([1.0, math.inf], [8, 1], 90.0, diverged=True),
    },
}


@pytest.mark.parametrize("changed", COURSES.values(), ids=COURSES)
def test_no_text_tells_of_what_is_not_a_number(run, changed):
    assert not [text for text in texts(made(run, **changed)) if "nan" in text or "inf" in text]


def test_a_table_of_catapults():
    lines = catapults(TWO, 5).markdown.splitlines()
    assert len(lines) == 4 and "share of the rise in the top 5" in lines[0]
    assert lines[2] == "| 1 | 6 | 0 → 1 → 2 | 1 → 4 → 0.9 | 8 → 2 | 98.0 % |"
    assert lines[3] == "| 2 | 15 | 4 → 5 → 6 | 0.4 → 2 → 0.2 | 2 → 0.5 | 98.0 % |"
    assert catapults(CALM, 5).markdown == "There is no catapult."


class TestFigures:
    @pytest.mark.parametrize("training", [TWO, ONE, CALM, DIVERGED, LATER, TWICE])
    @pytest.mark.parametrize("draw", [figures.loss_and_norm, figures.loss_split])
    def test_of_one_training(self, draw, training):
        figure = draw(training, "a-name", "our")
        assert figure.name == "a-name" and "under our schedule" in figure.caption and figure.caption.endswith(".")
        assert figure.svg.startswith("<?xml") and figure.svg == draw(training, "a-name", "our").svg
        assert ("There is no catapult" in figure.alt) is any(training is one for one in (CALM, DIVERGED))
        assert ("diverges" in figure.alt) is training.history.diverged

    def test_the_alternative_texts(self):
        alt = figures.loss_and_norm(TWO, "ours", "our").alt
        assert "The learning rate is 6 from iteration 0 on, 15 from iteration 4 on." in alt
        assert "The loss starts at 1, is at most 4 and ends at 0.05." in alt
        assert "Catapults peak at iteration 1 (4), iteration 5 (2)." in alt
        assert "norm of the kernel goes from 8 to 0.5. " in alt and "exceeds the critical one at iterations" in alt
        split = figures.loss_split(TWO, "ours-split", "our").alt
        assert "top-5 eigenspace goes from 0.98 to at most 3.92 and ends at 0.049" in split
        diverged = figures.loss_split(DIVERGED, "ours-split", "our").alt
        assert "The loss starts at 1 and diverges: at iteration 3 it is no longer finite." in diverged

    def test_a_triangle_at_each_raise(self):
        once, never = (figures.loss_and_norm(training, "x", "our").svg for training in (TWO, CALM))
        assert "Triangles" in figures.loss_and_norm(TWO, "x", "our").caption and once.count("<use") > never.count(
            "<use"
        )

    @pytest.mark.parametrize("changed", COURSES.values(), ids=COURSES)
    def test_the_restarts(self, run, changed):
        figure = figures.restarts(made(run, **changed))
        assert figure.name == "restarts" and "Fig. 18" in figure.caption
        assert figure.svg == figures.restarts(made(run, **changed)).svg

    def test_the_alternative_text_of_the_restarts(self, run):
        alt = figures.restarts(made(run)).alt
        assert "At the paper's final rate, 1: The loss starts at 1, is at most 1 and ends at 0.7." in alt
        assert "At ours, 15: The loss starts at 1 and diverges: at iteration 3 it is no longer finite." in alt
