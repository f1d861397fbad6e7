import math
import re
from dataclasses import replace

import numpy as np
import pytest
from catapults.book.explorer import batches_html
from catapults.compute import obtain
from catapults.experiments import ParameterError
from catapults.experiments.agop_sgd import BatchRun, BatchSizes
from catapults.figures import agop as figures
from catapults.paper import NOT_COMPARED, NOT_REPRODUCED, PARTLY, REPRODUCED, judge
from catapults.paper.agop_sgd import batch_table, claims, table_1
from catapults.paper.descriptions_agop import describe
from learning_samples import IMAGES, VECTORS, assert_drawn, assert_readable, at_once, made, mine, results, results_of

__all__ = ["mine", "results"]  # fixtures
OWN = {
    "learning_rates": ["0.5 eta_crit"], "batch_sizes": [4, 8, 32], "replacement": True, "critical_every": 1,
    "seeds": [0, 1],
}  # fmt: skip
SMALL = VECTORS | OWN | {"dataset": "rank-4", "depth": 3}
HOLDS = {REPRODUCED: True, PARTLY: False, NOT_REPRODUCED: False, NOT_COMPARED: None}
TWO = {"learning_rates": ["0.5 eta_crit", 0.01]}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"learning_rates": []}, r"learning_rates = \[\]"),
        ({"learning_rates": [1, "x"]}, r"learning_rates\[1\] = 'x': allowed are a positive number"),
        ({"learning_rates": [1, 1]}, r"learning_rates = \[1, 1\]: allowed is each once"),
        ({"learning_rates": [1, "1; 16: 2"]}, r"^learning_rates\[1\] = '1; 16: 2': allowed are changes before 16"),
        ({"batch_sizes": [4]}, r"batch_sizes = \[4\]"),
        ({"batch_sizes": [4, 0]}, r"batch_sizes = \[4, 0\]"),
        ({"batch_sizes": [8, 4]}, r"batch_sizes = \[8, 4\]: allowed are sizes that ascend"),
        ({"batch_sizes": [4, 4]}, r"batch_sizes = \[4, 4\]: allowed is each once"),
        ({"batch_sizes": [4, 33]}, r"batch_sizes = \[4, 33\]: allowed are 1 to n_train = 32"),
        ({"seeds": []}, r"seeds = \[\]"),
        ({"seeds": [1, 1]}, r"seeds = \[1, 1\]: allowed is each once"),
        ({"seeds": [-1]}, r"seeds = \[-1\]"),
        ({"seed": 3}, "seed: unknown parameter"),
        ({"critical_every": 0}, "critical_every = 0"),
        ({"scheduler": None}, "scheduler: unknown parameter"),
        ({"dataset": "abc"}, "^dataset = 'abc': allowed are NAME"),
        ({"dataset": "usps-2"}, "strong = None: 'usps-2' needs a strong model"),
    ],
)
def test_impossible_parameters(changed, message):
    with pytest.raises(ParameterError, match=message):
        BatchSizes.create(**SMALL | changed)


def test_which_trainings_there_are():
    large = {"n_train": 2000, "batch_sizes": [5, 500, 501, 2000], "critical_every": 3, "evaluate_every": 50}
    trainings = BatchSizes.create(**SMALL | TWO | large).trainings()
    assert len(trainings) == 2 * 4 * 2
    for (rate, size, seed), training in trainings.items():
        assert (training.learning_rate, training.batch_size, training.seed) == (rate, size, seed)
        assert training.critical_every == (3 if size <= 500 else 600)
        assert training.evaluate_every == {5: 400, 500: 50, 501: 50, 2000: 50}[size]  # an epoch of 400 steps
        assert training.replacement and training.settle is None and training.optimizer == "sgd"


@pytest.mark.usefixtures("results")
def test_trained():
    page = BatchSizes.create(**SMALL | TWO | {"batch_sizes": [8, 32]})
    found = obtain(page, device="cpu")
    (run,) = runs = page.runs(found)
    for name, fit in page.trainings().items():
        assert run.results[name] is found[fit]
    every = run.of("0.5 eta_crit", 8)
    assert [r.source.partition("seed ")[2] for r in every] == ["0.", "1."]
    assert all(0 <= r.catapults <= r.evaluated[r.best] for r in run.results.values())
    said = describe(runs, found)
    critical = np.mean([r.initial_critical_learning_rate for size in (8, 32) for r in run.of("0.5 eta_crit", size)])
    for part in (
        "x1 x2 x3 x4", "3 weight layers", f"Learning rate: 0.5 η_crit (η_crit = {critical:.3g}) and 0.01",
        "drawn with replacement; a batch of 32 is gradient descent. Seeds 0, 1; each draws", "The 8 trainings took ",
    ):  # fmt: skip
        assert part in said.markdown
    assert ", seed 0." not in said.markdown and judge(page, found).keys() == claims(runs).keys()
    assert_readable(said, batch_table(run), *claims(runs).values())
    for draw in (figures.batch_sizes, figures.batch_validation):
        assert_drawn(draw, run)
    assert assert_drawn(figures.batch_validation, run, small=True).name == "validation-small"


@pytest.mark.usefixtures("mine")
def test_images_share_one_strong_model():
    page = BatchSizes.create(**IMAGES | OWN | {"batch_sizes": [8, 32], "seeds": [0, 3], "replacement": False})
    strong, *fits = page.experiments()
    assert strong == page.strong_model() and len(fits) == 4 and all(fit.needs == (strong,) for fit in fits)
    found = results_of(page, {name: made(9.0, 0.5, error=0.25) for name in page.trainings()})
    (run,) = runs = page.runs(found)
    said = describe(runs, found).markdown
    assert "It gets 87.5 % of 16 test samples right." in said and "The 5 trainings took 7.5 s" in said
    assert "Batches are drawn without replacement until all samples have been used;" in said
    assert "test error at η" in assert_drawn(figures.batch_sizes, run).alt
    assert "| 25.0 ± 0.0 % |" in batch_table(run).markdown
    assert_readable(batch_table(run), *claims(runs).values())


def course(catapults, losses, alignments, small=None, **changes):
    """A run with seeds 0 and 1 of these means for batches of 4, 8, 16 and 32; ``small``: the same for a second rate."""
    experiment = BatchSizes.create(**SMALL | {"batch_sizes": [4, 8, 16, 32]} | (TWO if small else {}) | changes)
    found = {}
    for rate, columns in zip(experiment.learning_rates, [(catapults, losses, alignments), small], strict=False):
        for size, count, loss, aligned in zip(experiment.batch_sizes, *columns, strict=True):
            for seed, off in ((0, -1), (1, 1)):
                found[rate, size, seed] = made(loss * (1 + off / 10), aligned - off / 100, catapults=count)
    return BatchRun(experiment, found)


def changed(run, size, result):
    """Where both seeds gave this at the first rate."""
    rate = run.experiment.learning_rates[0]
    return replace(run, results=run.results | {(rate, size, seed): result for seed in (0, 1)})


def verdicts(run):
    return {name: HOLDS[claim.verdict] for name, claim in claims([run]).items()}


def described(run):
    return describe([run], results_of(run.experiment, run.results)).markdown


PAPER = [90, 30, 10, 0], [0.1, 0.2, 0.4, 0.9], [0.9, 0.8, 0.6, 0.2]


class TestClaims:
    def test_of_the_paper_s_picture(self):
        run = course(*PAPER)
        expected = dict.fromkeys(("steps_above", "performance", "validation", "alignment", "correlation"), True)
        assert verdicts(run) == expected
        assert claims([run])["steps_above"].ours == "90 (4), 30 (8), 10 (16), 0 (32)"
        assert claims([run])["steps_above"].held == (2, 2)
        assert "0.900 (4), 0.800 (8), 0.600 (16), 0.200 (32)" in claims([run])["alignment"].sentence

    @pytest.mark.parametrize(
        "places, holds", [([0, 1, 2, 3], True), ([3, 2, 1, 0], False), ([1, 3, 0, 2], False), ([0, 0, 0, 0], None)]
    )
    def test_what_goes_with_the_batch_size(self, places, holds):
        found = verdicts(course(*([column[place] for place in places] for column in PAPER)))
        assert [found[name] for name in ("steps_above", "performance", "validation", "alignment")] == [holds] * 4

    def test_of_two_sizes_the_ends_decide(self):
        run = course(*PAPER)
        two = replace(run, experiment=run.experiment.model_copy(update={"batch_sizes": [4, 32]}))
        found = verdicts(two)
        assert found["steps_above"] is found["performance"] is found["alignment"] is True
        assert found["correlation"] is None  # of two trainings a seed

    @pytest.mark.parametrize("alignments, holds", [([0.2, 0.6, 0.8, 0.9], False), ([0.8, 0.9, 0.2, 0.6], False)])
    def test_correlation(self, alignments, holds):
        assert verdicts(course(*PAPER[:2], alignments))["correlation"] is holds

    @pytest.mark.parametrize(
        "counts, losses, expected",
        [
            ([0, 0, 0, 0], [0.5, 0.6, 0.7, 0.8], (True, True)),
            ([0, 1, 0, 0], [0.5, 0.6, 0.7, 0.95], (False, False)),
        ],
    )
    def test_the_small_rate(self, counts, losses, expected):
        run = course(*PAPER, small=(counts, losses, [0.5] * 4))
        assert (verdicts(run)["small_catapults"], verdicts(run)["small_spread"]) == expected
        said = f"differs by {losses[-1] - losses[0]:.3f} in the median; at the large rate by 0.800"
        assert said in claims([run])["small_spread"].ours

    def test_a_single_step_of_one_training_is_seen(self):
        run = course(*PAPER, small=([0] * 4, [0.5] * 4, [0.5] * 4))
        assert claims([run])["small_catapults"].sentence == (
            "At the rate 0.01 steps above their batch's critical rate are found in no training."
        )
        one = replace(run, results=run.results | {(0.01, 8, 1): made(0.5, 0.5, catapults=1)})
        claim = claims([one])["small_catapults"]
        assert claim.held == (1, 2) and claim.verdict == PARTLY and claim.ours == "up to 1 in a training"

    def test_steps_are_not_called_catapults(self):
        run = course(*PAPER, small=PAPER)
        for name in ("steps_above", "small_catapults"):
            claim = claims([run])[name]
            said = claim.statement + claim.ours + claim.sentence
            assert "catapult" not in said and "above the batch's critical rate" in said and "catapults" in claim.paper
        assert "steps above" in batch_table(run).markdown

    def test_their_share(self):
        """Of the 20 steps before the best validation, over both seeds."""
        run = changed(course(*PAPER), 4, made(0.1, 0.9, catapults=5))
        assert (
            "| 0.5 η_crit | 4 | 5 ± 0 | 25 % | 0.100 ± 0.000 | 0.900 ± 0.000 | – | 40 | 2 of 2 |"
            in batch_table(run).markdown
        )

    def test_an_agop_of_zeros(self):
        run = changed(course(*PAPER), 4, made(0.1, math.nan, catapults=90))
        found = verdicts(run)
        assert found["alignment"] is found["performance"] is found["steps_above"] is True
        assert "– (4), 0.800 (8)" in claims([run])["alignment"].ours
        assert "| 0.100 ± 0.000 | – | – | 40 |" in batch_table(run).markdown
        assert_readable(batch_table(run), *claims([run]).values())
        assert "AGOP alignment at η = 0.5 η_crit: – (4), 0.8 (8)" in assert_drawn(figures.batch_sizes, run).alt


TABLE_1 = {
    "dataset": "rank-2", "depth": 2, "width": 1024, "n_train": 2000, "batch_sizes": [5, 10, 50, 2000],
    "evaluate_every": 400,
}  # fmt: skip


class TestTable1:
    @pytest.mark.parametrize("aligned, loss, holds", [(0.97, 0.5, True), (0.91, 0.42, False), (0.95, 0.53, False)])
    def test_at_the_papers_sizes(self, aligned, loss, holds):
        run = course([9, 5, 1, 0], [loss, 0.59, 0.71, 0.74], [aligned, 0.89, 0.84, 0.81], **TABLE_1)
        claim = claims([run])["table_5"]
        assert HOLDS[claim.verdict] is holds and claim.paper == "0.95 and 0.42 (Table 1)"
        assert claim.ours.startswith(f"{aligned:.3f} ± 0.014 and {loss:.3f} ± ") and claim.shown_in == ("table 1",)
        assert all(verdicts(run)[f"table_{size}"] for size in (10, 50, 2000))
        assert f"| 5 | 0.95 | {aligned:.3f} ± 0.014 | 0.42 | {loss:.3f} ± " in table_1(run).markdown
        assert len(table_1(run).markdown.splitlines()) == 6

    def test_at_others(self):
        run = course(*PAPER, **TABLE_1 | {"width": 64, "batch_sizes": [5, 20, 100, 2000]})
        assert verdicts(run)["table_5"] is None and "width" in claims([run])["table_5"].sentence
        assert "table_20" not in claims([run]) and len(table_1(run).markdown.splitlines()) == 4

    @pytest.mark.parametrize("other", [{"dataset": "rank-4"}, {"learning_rates": [0.1]}])
    def test_on_something_else(self, other):
        run = course(*PAPER, **TABLE_1 | other)
        assert table_1(run) is None and not any(name.startswith("table") for name in claims([run]))

    def test_divergence(self):
        run = changed(course(*PAPER, **TABLE_1), 5, made(0.42, 0.95, diverged=True))
        assert verdicts(run)["table_5"] is None and "| 5 | 0.95 | – | 0.42 | – |" in table_1(run).markdown


class TestDivergence:
    """Trainings that diverge would have the lowest loss and the best alignment here."""

    BAD = made(0.01, 0.99, diverged=True)

    def test_most_at_one_batch_size(self):
        run = changed(course([0, 30, 20, 10], [0.9, 0.2, 0.3, 0.4], [0.1, 0.8, 0.6, 0.2]), 4, self.BAD)
        found, said = verdicts(run), claims([run])
        assert found["performance"] is found["alignment"] is found["steps_above"] is True
        assert found["correlation"] is None  # of three sizes
        note = (
            "left out, because they diverge at the rate 0.5 η_crit: "
            "2 of 2 trainings at batch size 4, which is not compared"
        )
        assert said["performance"].ours.startswith("0.200 (8), ") and said["performance"].ours.endswith(note)
        assert (
            said["correlation"].sentence.startswith("Over the 3 trainings of a seed ")
            and note in said["correlation"].ours
        )
        assert "| 4 | – | – | – | – | – | 41 | 0 of 2, 2 diverge |" in batch_table(run).markdown
        assert "6 of 8 trainings end below a loss of 0.001, 2 diverge." in described(run)
        figure = assert_drawn(figures.batch_sizes, run)
        left_out = "Left out: 2 of 8 trainings, which diverge, and all with a batch size at which most diverge."
        assert left_out in figure.caption
        assert "test FVU at η = 0.5 η_crit: – (4), 0.2 (8)" in figure.alt
        assert "batch size 4 (diverges)" in assert_drawn(figures.batch_validation, run).alt
        assert_readable(batch_table(run), *said.values())

    def test_one_of_two_is_left_out_of_the_mean(self):
        run = course(*PAPER)
        run = replace(run, results=run.results | {("0.5 eta_crit", 4, 1): self.BAD})
        ours = claims([run])["performance"].ours
        assert ours.startswith("0.090 (4), ") and ours.endswith(": 1 of 2 trainings at batch size 4")

    def test_too_few_batch_sizes_are_left(self):
        run = changed(changed(changed(course(*PAPER), 4, self.BAD), 8, self.BAD), 16, self.BAD)
        found = verdicts(run)
        assert found["performance"] is found["alignment"] is found["steps_above"] is found["validation"] is None
        every = replace(run, results=dict.fromkeys(run.results, self.BAD))
        assert set(verdicts(every).values()) == {None}
        assert_readable(batch_table(every), *claims([every]).values())
        assert_drawn(figures.batch_sizes, every)

    def test_the_spread_is_that_of_sizes_compared_at_both_rates(self):
        """Of 0.8 at the large rate, 0.3 is left without the largest batch, which diverges at the small one."""
        run = course(*PAPER, small=([0] * 4, [0.5, 0.5, 0.6, 9.0], [0.5] * 4))
        run = replace(run, results=run.results | {(0.01, 32, seed): self.BAD for seed in (0, 1)})
        claim = claims([run])["small_spread"]
        assert (
            "differs by 0.100 in the median; at the large rate by 0.300; left out" in claim.ours
            and claim.verdict == REPRODUCED
        )


class TestFigures:
    def test_their_words_carry_the_numbers(self):
        run = course(*PAPER, small=([0] * 4, [0.5] * 4, [0.5] * 4))
        figure = assert_drawn(figures.batch_sizes, run)
        assert "over 2 seeds" in figure.caption
        assert "steps above at η = 0.5 η_crit: 90 (4), 30 (8), 10 (16), 0 (32)" in figure.alt
        assert "test FVU at η = 0.01: 0.5 (4)" in figure.alt
        along = assert_drawn(figures.batch_validation, run)
        assert "batch size 4: from 2 to 0.09 at best" in along.alt and "at η = 0.5 η_crit" in along.caption
        assert "at η = 0.01" in assert_drawn(figures.batch_validation, run, small=True).caption

    def test_one_rate_has_no_figure_of_a_small_one(self):
        assert figures.batch_validation(course(*PAPER), small=True) is None

    def test_trainings_that_take_no_step(self):
        run = course(*PAPER)
        run = replace(run, results={key: at_once(result) for key, result in run.results.items()})
        assert_drawn(figures.batch_validation, run), assert_drawn(figures.batch_sizes, run)
        assert_readable(batch_table(run), *claims([run]).values())


class TestThePictureByBatchSize:
    def test_has_a_page_for_each_size_with_its_numbers(self):
        run = course([5, 3, 1, 0], [0.2, 0.4, 0.6, 0.8], [0.9, 0.8, 0.7, 0.6])
        made = batches_html(run)
        assert made.count("<template") == 4 and made.count("<tr>") == 5
        assert made.count('role="img"') == 5  # one is shown without scripts
        assert "Batches of 4: 5 " in made and "All 32 samples: 0 " in made and 'max="3"' in made

    def test_axes_are_the_same(self):
        run = course([5, 3, 1, 0], [0.2, 0.4, 0.6, 0.8], [0.9, 0.8, 0.7, 0.6])
        ticks = [re.findall(r"<!-- (\S+) -->", figures.learned(run, size).svg) for size in (4, 32)]
        assert ticks[0] == ticks[1]

    def test_without_a_training_that_converges(self):
        run = course([5, 3, 1, 0], [math.nan] * 4, [0.9, 0.8, 0.7, 0.6])
        results = {k: replace(r, diverged=True) for k, r in run.results.items()}
        assert batches_html(replace(run, results=results)) == "<p>All trainings diverge.</p>"
