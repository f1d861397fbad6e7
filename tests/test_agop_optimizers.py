import math
from dataclasses import replace

import numpy as np
import pytest
from catapults.claims import NOT_COMPARED, NOT_REPRODUCED, REPRODUCED
from catapults.claims.agop_optimizers import claims, optimizer_table
from catapults.experiments import ParameterError
from catapults.experiments.agop_optimizers import TITLES, OptimizerRun, Optimizers
from catapults.experiments.learning import Training
from catapults.figures import agop as figures
from catapults.sweep import Sweep
from learning_samples import IMAGES, VECTORS, assert_drawn, assert_readable, made, mine, results

__all__ = ["mine", "results"]  # fixtures
RATES = {"gd": 1.0, "sgd": 1.0, "sgd+m": 0.2, "rmsprop": 0.02, "adagrad": 0.1, "adadelta": 2.0, "adam": 0.02}
OWN = {"rates": {"gd": 1.0, "adam": 0.02, "sgd": 1.0}, "batch_size": 8, "seeds": [0, 1]}
SMALL = VECTORS | OWN
HOLDS = {REPRODUCED: True, NOT_REPRODUCED: False, NOT_COMPARED: None}


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
        ({"scheduler": "here"}, "scheduler = 'here'"),
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
def test_a_run(monkeypatch):
    experiment = Optimizers.create(**SMALL)
    run = experiment.run()
    alone = experiment.trainings()["adam", 1].run()
    assert np.array_equal(alone.batch_loss, run.results["adam", 1].batch_loss)
    assert (
        run.measured("adam")["test"][1] == alone.test_loss and run.measured("adam")["alignment"][1] == alone.alignment
    )
    assert not any(r.catapults for r in run.results.values())  # which nobody measured
    said = run.describe()
    for part in (
        "x1 x2,", "Learning rates: GD 1, Adam 0.02, SGD 1.", "Batches of 8, drawn without replacement", "GD takes all",
        "Seeds 0, 1.", "0 of 6 trainings reach that loss, 0 diverge.", "6 trainings.",
    ):  # fmt: skip
        assert part in said.markdown
    assert_readable(said, optimizer_table(run), *claims(run).values())
    assert_drawn(figures.optimizers, run)
    monkeypatch.setattr(Training, "run", lambda *_: pytest.fail("trained again"))
    assert experiment.run().sweep.describe() == "6 trainings, 6 taken from earlier ones."


@pytest.mark.usefixtures("results", "mine")
def test_images():
    run = Optimizers.create(**IMAGES | OWN | {"seeds": [0]}).run()
    assert all(0 <= r.test_error <= 1 and 0 < r.alignment <= 1 for r in run.results.values())
    assert "test error" in optimizer_table(run).markdown and " % | " in optimizer_table(run).markdown
    assert "A strong model stands for the true function" in run.describe().markdown
    assert_readable(run.describe(), optimizer_table(run), *claims(run).values(), assert_drawn(figures.optimizers, run))


def course(losses, alignments, **changes):
    """One loss and alignment for each optimiser; of its two seeds, one each way of it."""
    experiment = Optimizers.create(**SMALL | {"rates": dict(list(RATES.items())[: len(losses)])} | changes)
    found = {
        (name, seed): made(loss * (0.99 + seed / 50), aligned + (seed - 0.5) / 1000)
        for name, loss, aligned in zip(experiment.rates, losses, alignments, strict=True)
        for seed in experiment.seeds
    }
    return OptimizerRun(experiment, found, Sweep(()))


def verdicts(run):
    return HOLDS[claims(run)["pearson"].verdict], HOLDS[claims(run)["spearman"].verdict]


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
        assert_readable(optimizer_table(run), *claims(run).values())

    def test_the_correlation_is_over_all_trainings(self):
        run = course([0.9, 0.7, 0.5, 0.3], [0.2, 0.4, 0.6, 0.8])
        losses, aligned = np.array([[r.test_loss, r.alignment] for r in run.results.values()]).T
        expected = f"{np.corrcoef(losses, aligned)[0, 1]:+.2f}".replace("-", "−")
        assert claims(run)["pearson"].ours == expected and "Over all 8 trainings" in claims(run)["pearson"].sentence

    def test_an_agop_of_zeros_is_left_out(self):
        run = course([0.9, 0.7, 0.5, 0.3], [0.2, 0.4, 0.6, math.nan])
        assert verdicts(run) == (True, True)
        assert "| 0.300 ± 0.004 | – |" in optimizer_table(run).markdown
        assert "RMSprop 0.3" not in (alt := assert_drawn(figures.optimizers, run).alt) and "– and 0.3" in alt

    def test_divergence(self):
        run = course([0.9, 0.7, 0.5, 0.3], [0.2, 0.4, 0.6, 0.8])
        run = replace(run, results=run.results | {("gd", 1): made(2.0, 0.2, diverged=True)})
        row = next(line for line in optimizer_table(run).markdown.splitlines() if "| GD |" in line)
        assert row.endswith("| 40.5 | 1 of 2, 1 diverge |")
        assert "7 of 8 trainings reach that loss, 1 diverge." in run.describe().markdown
        assert_readable(run.describe(), optimizer_table(run), *claims(run).values())


def test_the_table_and_the_figure_carry_the_numbers():
    run = course([0.9] * 7, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    rows = optimizer_table(run).markdown.splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [TITLES[name] for name in RATES]
    assert rows[0] == "| GD | 1 | 0.900 ± 0.013 | 0.100 ± 0.001 | 40 | 2 of 2 |"
    alt = assert_drawn(figures.optimizers, run).alt
    assert all(title in alt for title in TITLES.values()) and "Adam 0.7 and 0.9" in alt
