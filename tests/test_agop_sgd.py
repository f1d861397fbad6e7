import math
from dataclasses import replace

import numpy as np
import pytest
from catapults.claims import NOT_COMPARED, NOT_REPRODUCED, REPRODUCED
from catapults.claims.agop_sgd import batch_table, claims
from catapults.experiments import ParameterError
from catapults.experiments.agop_sgd import BatchRun, BatchSizes
from catapults.experiments.learning import StrongModel, Training
from catapults.figures import agop as figures
from catapults.sweep import Sweep
from learning_samples import IMAGES, VECTORS, assert_drawn, assert_readable, at_once, made, mine, results

__all__ = ["mine", "results"]  # fixtures
OWN = {
    "learning_rates": ["0.5 eta_crit"], "batch_sizes": [4, 8, 32], "replacement": True, "critical_every": 1,
    "seeds": [0, 1],
}  # fmt: skip
SMALL = VECTORS | OWN | {"dataset": "rank-4", "depth": 3}
HOLDS = {REPRODUCED: True, NOT_REPRODUCED: False, NOT_COMPARED: None}
TWO = {"learning_rates": ["0.5 eta_crit", 0.01]}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"learning_rates": []}, r"learning_rates = \[\]"),
        ({"learning_rates": [1, "x"]}, r"learning_rates\[1\] = 'x': allowed are a positive number"),
        ({"learning_rates": [1, 1]}, r"learning_rates = \[1, 1\]: allowed is each once"),
        ({"learning_rates": ["1; 16: 2"]}, "allowed are changes before 16"),
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
        ({"scheduler": "here"}, "scheduler = 'here': allowed is an address"),
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
class TestARun:
    def test_each_training_is_what_its_parameters_say(self, monkeypatch):
        experiment = BatchSizes.create(**SMALL | {"replacement": False})
        run = experiment.run()
        key = ("0.5 eta_crit", 8, 1)
        alone = experiment.trainings()[key].run()
        for field in ("batch_loss", "learning_rate", "validation_loss", "steps_above", "corner"):
            assert np.array_equal(getattr(alone, field), getattr(run.results[key], field))
        assert not np.array_equal(run.results["0.5 eta_crit", 8, 0].batch_loss, alone.batch_loss)
        assert [r.source.partition("seed ")[2] for r in run.of("0.5 eta_crit", 4)] == ["0.", "1."]
        measured = run.measured("0.5 eta_crit", 8)
        assert measured["catapults"][1] == alone.catapults == alone.steps_above[alone.best]
        assert measured["test"][1] == alone.test_loss and measured["alignment"][1] == alone.alignment

        monkeypatch.setattr(Training, "run", lambda *_: pytest.fail("trained again"))
        assert experiment.run().sweep.describe() == "6 trainings, 6 taken from earlier ones."

    def test_its_texts_and_figures(self):
        run = BatchSizes.create(**SMALL | TWO | {"batch_sizes": [8, 32]}).run()
        said = run.describe()
        critical = np.mean(
            [r.initial_critical_learning_rate for r in run.results.values() if r.learning_rate[0] > 0.01]
        )
        for part in (
            "x1 x2 x3 x4", "3 weight layers", f"Learning rate: 0.5 η_crit (η_crit = {critical:.3g}) and 0.01.",
            "drawn with replacement; a batch of 32 is gradient descent. Seeds 0, 1;", "0 of 8 trainings reach",
            "8 trainings.",
        ):  # fmt: skip
            assert part in said.markdown
        shuffled = run.experiment.model_copy(update={"replacement": False})
        assert "drawn without replacement until all had" in replace(run, experiment=shuffled).describe().markdown
        assert_readable(said, batch_table(run), *claims(run, {}).values())
        for draw in (figures.batch_sizes, figures.batch_validation):
            assert_drawn(draw, run)
        assert assert_drawn(figures.batch_validation, run, small=True).name == "validation-small"


@pytest.mark.usefixtures("results", "mine")
def test_images_share_one_strong_model(monkeypatch):
    trained, run_it = [], StrongModel.run
    monkeypatch.setattr(StrongModel, "run", lambda self, *a: (trained.append(self.name), run_it(self, *a))[1])
    run = BatchSizes.create(**IMAGES | OWN | {"batch_sizes": [8, 32], "seeds": [0, 3]}).run()
    assert trained == ["strong model of mine"] and len(run.results) == 4
    corners = [r.true_corner for r in run.results.values()]
    assert all(np.array_equal(corner, corners[0]) for corner in corners)
    assert all(0 <= r.test_error <= 1 for r in run.results.values())
    assert "wrong" in run.describe().markdown and "test error" in figures.batch_sizes(run).alt
    assert " % | " in batch_table(run).markdown
    assert_readable(run.describe(), batch_table(run), *claims(run, {}).values())


def course(catapults, losses, alignments, small=None, **changes):
    """A run with seeds 0 and 1 of these means for batches of 4, 8, 16 and 32; ``small``: the same for a second rate."""
    experiment = BatchSizes.create(**SMALL | {"batch_sizes": [4, 8, 16, 32]} | (TWO if small else {}) | changes)
    found = {}
    for rate, columns in zip(experiment.learning_rates, [(catapults, losses, alignments), small], strict=False):
        for size, count, loss, aligned in zip(experiment.batch_sizes, *columns, strict=True):
            for seed, off in ((0, -1), (1, 1)):
                found[rate, size, seed] = made(loss * (1 + off / 10), aligned - off / 100, catapults=count)
    return BatchRun(experiment, found, Sweep(()))


def changed(run, size, result):
    """Where both seeds gave this at the first rate."""
    rate = run.experiment.learning_rates[0]
    return replace(run, results=run.results | {(rate, size, seed): result for seed in (0, 1)})


def verdicts(run, quoted=None):
    return {name: HOLDS[claim.verdict] for name, claim in claims(run, quoted or {}).items()}


PAPER = [90, 30, 10, 0], [0.1, 0.2, 0.4, 0.9], [0.9, 0.8, 0.6, 0.2]


class TestClaims:
    def test_of_the_paper_s_picture(self):
        run = course(*PAPER)
        expected = dict.fromkeys(("catapults", "performance", "validation", "alignment", "correlation"), True)
        assert verdicts(run) == expected
        assert claims(run, {})["catapults"].ours.startswith("90 (4), 30 (8), 10 (16), 0 (32); rank correlation")
        assert "0.900 (4), 0.800 (8), 0.600 (16), 0.200 (32)" in claims(run, {})["alignment"].sentence

    @pytest.mark.parametrize(
        "places, holds", [([0, 1, 2, 3], True), ([3, 2, 1, 0], False), ([1, 3, 0, 2], False), ([0, 0, 0, 0], None)]
    )
    def test_what_goes_with_the_batch_size(self, places, holds):
        found = verdicts(course(*([column[place] for place in places] for column in PAPER)))
        assert [found[name] for name in ("catapults", "performance", "validation", "alignment")] == [holds] * 4

    def test_two_sizes_are_no_trend(self):
        run = course(*PAPER)
        two = replace(run, experiment=run.experiment.model_copy(update={"batch_sizes": [4, 32]}))
        found = verdicts(two)
        assert found["catapults"] is found["performance"] is found["alignment"] is None
        assert found["correlation"] is True  # over four trainings

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
        assert (
            f"differ by {losses[-1] - losses[0]:.3f}; at the large rate by 0.800"
            in claims(run, {})["small_spread"].ours
        )

    def test_a_single_catapult_of_one_seed_is_seen(self):
        run = course(*PAPER, small=([0] * 4, [0.5] * 4, [0.5] * 4))
        one = replace(run, results=run.results | {(0.01, 8, 1): made(0.5, 0.5, catapults=1)})
        claim = claims(one, {})["small_catapults"]
        assert claim.verdict == NOT_REPRODUCED and claim.ours == "at most 0.5 for a batch size"

    @pytest.mark.parametrize("aligned, loss, holds", [(0.88, 0.19, True), (0.94, 0.1, False), (0.9, 0.21, False)])
    def test_table_1(self, aligned, loss, holds):
        quoted = {"alignment_4": aligned, "test_loss_4": loss}
        run = course(*PAPER)
        claim = claims(run, quoted)["table_4"]
        assert HOLDS[claim.verdict] is holds and claim.ours == "0.900 ± 0.014 and 0.100 ± 0.014"
        assert f"{aligned:g} and {loss:g} (Table 1)" == claim.paper
        elsewhere = quoted | {"settings": {"n_train": 2000}}
        assert verdicts(run, elsewhere)["table_4"] is None
        assert verdicts(run, quoted | {"settings": {"n_train": 32}})["table_4"] is holds
        assert "table_8" not in claims(run, quoted)

    def test_an_agop_of_zeros(self):
        quoted = {"alignment_4": 0.9, "test_loss_4": 0.1}
        run = changed(course(*PAPER), 4, made(0.1, math.nan, catapults=90))
        found = verdicts(run, quoted)
        assert found["alignment"] is found["table_4"] is None and found["performance"] is found["catapults"] is True
        assert "– (4), 0.800 (8)" in claims(run, quoted)["alignment"].ours
        row = next(line for line in batch_table(run).markdown.splitlines() if "| 4 |" in line)
        assert "| 90 ± 0 | 0.100 ± 0.000 | – |" in row
        assert_readable(batch_table(run), *claims(run, quoted).values())
        assert "AGOP alignment at η = 0.5 η_crit: – (4), 0.8 (8)" in assert_drawn(figures.batch_sizes, run).alt

    def test_divergence(self):
        run = changed(course(*PAPER), 4, made(2.0, 0.1, diverged=True))
        assert verdicts(run)["performance"] is False
        assert "| 41 | 0 of 2, 2 diverge |" in batch_table(run).markdown
        assert "6 of 8 trainings reach that loss, 2 diverge" in run.describe().markdown
        assert_readable(batch_table(run), run.describe(), *claims(run, {}).values())
        assert_drawn(figures.batch_validation, run)


class TestFigures:
    def test_their_words_carry_the_numbers(self):
        run = course(*PAPER, small=([0] * 4, [0.5] * 4, [0.5] * 4))
        figure = assert_drawn(figures.batch_sizes, run)
        assert "over 2 seeds" in figure.caption
        assert "catapults at η = 0.5 η_crit: 90 (4), 30 (8), 10 (16), 0 (32)" in figure.alt
        assert "test loss at η = 0.01: 0.5 (4)" in figure.alt
        along = assert_drawn(figures.batch_validation, run)
        assert "batch size 4: from 2 to 0.09 at best" in along.alt and "at η = 0.5 η_crit" in along.caption
        assert "at η = 0.01" in assert_drawn(figures.batch_validation, run, small=True).caption

    def test_one_rate_has_no_figure_of_a_small_one(self):
        assert figures.batch_validation(course(*PAPER), small=True) is None

    def test_trainings_that_take_no_step(self):
        run = course(*PAPER)
        run = replace(run, results={key: at_once(result) for key, result in run.results.items()})
        assert_drawn(figures.batch_validation, run), assert_drawn(figures.batch_sizes, run)
        assert_readable(batch_table(run), run.describe(), *claims(run, {}).values())
