"""What an experiment draws: from the data sets of this machine, or from the tensors that were packed for it."""

import numpy as np
import pytest
import torch
from catapults import data
from catapults.compute import draws
from catapults.experiments.descent import Restart
from samples import own
from sweep_samples import Walk
from test_experiments import REAL, STRONG, descent, fit, sgd


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("CATAPULTS_DATA", str(tmp_path / "data"))
    own(tmp_path / "data")


MINE = {"dataset": "mine:0,1", "n_train": 4}
OF_MINE = MINE | {"strong": STRONG | {"n_train": 4, "n_validation": 4}}


def same(a: data.Task, b: data.Task) -> bool:
    return a.digest == b.digest and (a.name, a.source, a.identity) == (b.name, b.source, b.identity)


@pytest.mark.parametrize(
    "make",
    [
        descent,
        sgd,
        fit,
        lambda: descent(**MINE),
        lambda: fit(**OF_MINE, label_noise=0.5),
        lambda: fit(**OF_MINE).needs[0],
    ],
)
def test_what_is_packed_is_drawn_where_there_is_no_data(make, tmp_path, monkeypatch):
    experiment = make()
    drawn, identity = draws.draw(experiment), draws.identity(experiment)
    assert len(drawn.train) == experiment.n_train
    draws.pack(experiment, tmp_path / "job")
    (packed,) = (tmp_path / "job" / "tensors").iterdir()
    before = packed.stat().st_mtime_ns
    draws.pack(experiment, tmp_path / "job")
    assert packed.stat().st_mtime_ns == before
    monkeypatch.delenv("CATAPULTS_DATA")
    monkeypatch.setenv("CATAPULTS_JOB", str(tmp_path / "job"))
    assert same(draws.draw(experiment), drawn) and draws.identity(experiment) == identity
    with pytest.raises(data.DataUnavailable, match="does not hold what this experiment draws"):
        draws.draw(experiment.model_copy(update={"seed": 99}))
    with pytest.raises(data.DataUnavailable):
        draws.identity(experiment.model_copy(update={"seed": 99}))


def test_a_restart_draws_what_it_restarts_with():
    assert same(draws.draw(Restart(of=descent(), steps=3)), draws.draw(descent()))


def test_what_changes_no_draw_shares_it_and_what_does_not_does_not():
    first = draws.arguments(fit(**OF_MINE))
    assert draws.arguments(fit(**OF_MINE, width=99, learning_rate=1, batch_size=2)) == first
    changes = ({"seed": 1}, {"n_test": 5}, {"label_noise": 0.1}, {"image_size": 3})
    assert all(draws.arguments(fit(**OF_MINE | change)) != first for change in changes)
    assert draws.arguments(fit(**REAL))["name"] == "cifar-10:0,1"


def test_labels_of_the_test_are_without_noise():
    noisy, plain = draws.draw(fit(**OF_MINE, label_noise=0.9)), draws.draw(fit(**OF_MINE))
    assert torch.equal(noisy.test.targets, plain.test.targets)
    assert not torch.equal(noisy.train.targets, plain.train.targets)


def test_an_experiment_without_data():
    assert draws.draw(Walk()) is None and draws.identity(Walk()) == "none" and draws.dataset(Walk()) is None
    assert draws.identity(Walk(dataset="rank-2")) == data.identity("rank-2")
    assert np.array_equal(draws.draw(descent()).train.inputs, data.load("rank-2", 8).train.inputs)
