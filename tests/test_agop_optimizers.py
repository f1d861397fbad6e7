import math
from dataclasses import replace

import numpy as np
import pytest
from catapults.compute import obtain
from catapults.experiments import ParameterError
from catapults.experiments.agop_optimizers import TITLES, OptimizerRun, Optimizers
from catapults.figures import agop as figures
from catapults.paper import GIVEN, NOT_COMPARED, NOT_REPRODUCED, PARTLY, REPRODUCED, judge
from catapults.paper.agop_optimizers import claims, optimizer_table
from catapults.paper.correlation import signed
from catapults.paper.descriptions_agop import describe
from learning_samples import IMAGES, VECTORS, assert_drawn, assert_readable, made, mine, results, results_of

__all__ = ["mine", "results"]  # fixtures
RATES = {"gd": 1.0, "sgd": 1.0, "sgd+m": 0.2, "rmsprop": 0.02, "adagrad": 0.1, "adadelta": 2.0, "adam": 0.02}
OWN = {"rates": {"gd": 1.0, "adam": 0.02, "sgd": 1.0}, "batch_size": 8, "seeds": [0, 1]}
SMALL = VECTORS | OWN
HOLDS = {REPRODUCED: True, PARTLY: False, NOT_REPRODUCED: False, NOT_COMPARED: None}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"rates": {"adam": 0.1}}, "rates = "),
        (
            {"rates": {"adam": 0.1, "lion": 0.1}},
            "rates = .*: 'lion' is no optimiser; allowed are gd, sgd, sgd[+]m, rms",
        ),
        ({"rates": {"adam": 0.1, "sgd": 0.0}}, "rates = "),
        ({"rates": {"adam": 0.1, "sgd": "2 eta_crit"}}, "rates = "),
        ({"batch_size": 33}, "batch_size = 33: allowed are 1 to n_train = 32"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"seeds": [2, 2]}, r"seeds = \[2, 2\]: allowed is each once"),
        ({"seeds": []}, r"seeds = \[\]"),
        ({"seed": 1}, "seed: unknown parameter"),
        ({"scheduler": None}, "scheduler: unknown parameter"),
        ({"dataset": "abc"}, "^dataset = 'abc': allowed are NAME"),
    ],
)
def test_impossible_parameters(changed, message):
    with pytest.raises(ParameterError, match=message):
        Optimizers.create(**SMALL | changed)


def test_which_trainings_there_are():
    trainings = Optimizers.create(**SMALL | {"rates": RATES}).trainings()
    assert list(trainings) == [(name, seed) for name in RATES for seed in (0, 1)] and RATES.keys() == TITLES.keys()
    for (name, seed), training in trainings.items():
        assert training.optimizer == ("sgd" if name == "gd" else name)
        assert training.batch_size == (32 if name == "gd" else 8)
        assert training.learning_rate == RATES[name] and training.seed == seed and training.critical_every is None


@pytest.mark.usefixtures("results")
def test_trained():
    page = Optimizers.create(**SMALL)
    found = obtain(page, device="cpu")
    (run,) = runs = page.runs(found)
    for name, fit in page.trainings().items():
        assert run.results[name] is found[fit]
    assert not any(r.catapults for r in run.results.values())  # which nobody measured
    said = describe(runs, found)
    for part in (
        "x1 x2,", "Three optimisers with these learning rates: GD 1, Adam 0.02, SGD 1. Batches of 8, drawn without",
        "been used; GD takes all samples. Seeds 0, 1; each", "0 of 6 trainings end below a loss of 0.001, 0 diverge.",
    ):  # fmt: skip
        assert part in said.markdown
    assert judge(page, found).keys() == claims(runs).keys()
    assert_readable(said, optimizer_table(run), *claims(runs).values())
    assert_drawn(figures.optimizers, run)


@pytest.mark.usefixtures("mine")
def test_images():
    page = Optimizers.create(**IMAGES | OWN | {"seeds": [0], "rates": {"adam": 0.1, "sgd": 0.1}})
    found = results_of(page, {name: made(9.0, 0.5, error=0.25) for name in page.trainings()})
    (run,) = runs = page.runs(found)
    assert "| 25.0 % |" in optimizer_table(run).markdown and "test error" in optimizer_table(run).markdown
    said = describe(runs, found).markdown
    assert "A strong model stands for the true function" in said and "The 3 trainings took 4.5 s" in said
    assert "Two optimisers" in said and "have been used. Seed 0, which draws" in said
    assert_readable(optimizer_table(run), *claims(runs).values(), assert_drawn(figures.optimizers, run))


def course(losses, alignments, **changes):
    """One loss and alignment for each optimiser; of its two seeds, one each way of it."""
    experiment = Optimizers.create(**SMALL | {"rates": dict(list(RATES.items())[: len(losses)])} | changes)
    found = {
        (name, seed): made(loss * (0.99 + seed / 50), aligned + (seed - 0.5) / 1000)
        for name, loss, aligned in zip(experiment.rates, losses, alignments, strict=True)
        for seed in experiment.seeds
    }
    return OptimizerRun(experiment, found)


def verdicts(run):
    return HOLDS[claims([run])["pearson"].verdict], HOLDS[claims([run])["spearman"].verdict]


class TestClaims:
    @pytest.mark.parametrize(
        "losses, alignments, holds",
        [
            ([0.9, 0.7, 0.5, 0.3], [0.2, 0.4, 0.6, 0.8], (True, True)),
            ([0.3, 0.5, 0.7, 0.9], [0.2, 0.4, 0.6, 0.8], (False, False)),
            ([0.9, 0.3, 0.7, 0.5], [0.2, 0.4, 0.6, 0.8], (False, False)),
            ([0.5, 0.54, 0.52, 0.1], [0.2, 0.21, 0.22, 0.9], (True, False)),  # one that is far from the others
            ([0.9, 0.8, 0.7, 0.6], [math.nan] * 4, (None, None)),
        ],
    )
    def test_test_loss_and_alignment(self, losses, alignments, holds):
        run = course(losses, alignments)
        assert verdicts(run) == holds
        assert_readable(optimizer_table(run), *claims([run]).values())

    def test_the_correlation_is_over_the_optimisers_of_a_seed(self):
        run = course([0.9, 0.7, 0.2, 0.3], [0.2, 0.4, 0.6, 0.8])
        found = []
        for seed in (0, 1):
            pairs = [(r.test_loss, r.alignment) for (_, s), r in run.results.items() if s == seed]
            found.append(float(np.corrcoef(*zip(*pairs, strict=True))[0, 1]))
        said = claims([run])["pearson"]
        assert said.held == (2, 2) and said.ours == f"median {signed(np.median(found))}, {signed(min(found))} to " + (
            signed(max(found))
        )
        other = replace(run, results=run.results | {("gd", 1): made(0.01, 0.1)})
        assert claims([other])["pearson"].held == (1, 2) and claims([other])["pearson"].verdict == PARTLY

    def test_table_3_is_a_list_of_settings(self):
        claim = claims([course([0.9, 0.7], [0.2, 0.4])])["settings"]
        assert claim.verdict == GIVEN and claim.shown_in == ("table 3",) and "GD 1" in claim.ours

    def test_an_agop_of_zeros_is_left_out(self):
        run = course([0.9, 0.7, 0.5, 0.3], [0.2, 0.4, 0.6, math.nan])
        assert verdicts(run) == (True, True)
        assert "| 0.300 ± 0.004 | – | – |" in optimizer_table(run).markdown
        assert "RMSprop 0.3" not in (alt := assert_drawn(figures.optimizers, run).alt) and "– and 0.3" in alt

    def test_divergence(self):
        """A training that diverges, with a loss and an alignment that would turn the correlation."""
        run = course([0.9, 0.7, 0.5, 0.3], [0.2, 0.4, 0.6, 0.8])
        bad = replace(run, results=run.results | {("gd", 1): made(0.01, 0.01, diverged=True)})
        row = next(line for line in optimizer_table(bad).markdown.splitlines() if "| GD |" in line)
        assert row == "| GD | 1 | 0.891 | 0.200 | – | 40.5 | 1 of 2, 1 diverges |"
        assert verdicts(bad) == (True, True)
        assert claims([bad])["pearson"].ours.endswith("; left out: 1 of 8 trainings, which diverges")
        assert "Left out: 1 of 8 trainings, which diverges." in assert_drawn(figures.optimizers, bad).caption
        assert_readable(optimizer_table(bad), *claims([bad]).values())
        every = replace(run, results=dict.fromkeys(run.results, made(0.01, 0.01, diverged=True)))
        assert verdicts(every) == (None, None)
        assert_readable(optimizer_table(every), *claims([every]).values(), assert_drawn(figures.optimizers, every))


def test_the_table_and_the_figure_carry_the_numbers():
    run = course([0.9] * 7, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    rows = optimizer_table(run).markdown.splitlines()[2:9]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [TITLES[name] for name in RATES]
    assert rows[0] == "| GD | 1 | 0.900 ± 0.013 | 0.100 ± 0.001 | – | 40 | 2 of 2 |"
    alt = assert_drawn(figures.optimizers, run).alt
    assert all(title in alt for title in TITLES.values()) and "Adam 0.7 and 0.9" in alt


class TestMarks:
    def test_no_two_are_the_same(self):
        assert len(set(figures.marks([f"optimiser {k}" for k in range(66)]).values())) == 66

    def test_they_differ_in_shape_as_far_as_there_are_shapes(self):
        shapes = [shape for shape, _ in figures.marks([*TITLES, "an eighth", "a ninth"]).values()]
        assert len(set(shapes)) == 9

    def test_they_are_outlines_of_one_size(self, monkeypatch):
        """Equal trainings hide nothing, and a size says nothing."""
        drawn = []
        monkeypatch.setattr(figures.Axes, "plot", lambda self, *_, **style: drawn.append(style) or [])
        monkeypatch.setattr(figures.Axes, "legend", lambda self, **_: None)
        figures.optimizers(course([0.9] * 7, [0.5] * 7))
        assert len(drawn) == 7 and {style["markerfacecolor"] for style in drawn} == {"none"}
        assert len({style["markersize"] for style in drawn}) == 1
        assert len({(style["marker"], style["markeredgecolor"]) for style in drawn}) == 7
