"""What is recorded is computed again, and compared."""

from dataclasses import replace

import numpy as np
import pytest
from catapults import compute, data
from catapults.compute import record, verify
from catapults.experiments.descent import GradientDescent, Restart

NETWORK = dict(
    dataset="rank-2", architecture="fcn", depth=2, width=16, norm=None, image_size=None, n_train=8, labels="zero-one",
    parameterization="ntk", gain=1.0, bias=False,
)  # fmt: skip
DESCENTS = [
    GradientDescent.create(**NETWORK, learning_rate="1.5 eta_crit", steps=6, top=2, hessian_every=None, seed=seed)
    for seed in range(3)
]
RESTART = Restart(of=DESCENTS[0], steps=3)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("CATAPULTS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("CATAPULTS_RECORD", str(tmp_path / "record"))


def recorded(*experiments, change=lambda result, made: (result, made)):
    results = compute.sweep(experiments, processes=1)
    outcomes = [results.outcomes[experiment.key] for experiment in experiments]
    record.take((o.experiment, *change(o.result, o.made)) for o in outcomes)


def later_loss(result, made):
    """Another end, as chaos may bring."""
    loss = result.history.loss.copy()
    loss[verify.EARLY :] *= 2
    return replace(result, history=replace(result.history, loss=loss)), made


def early_loss(result, made):
    loss = result.history.loss.copy()
    loss[1] *= 1 + 2 * verify.TOLERANCE
    return replace(result, history=replace(result.history, loss=loss)), made


def no_data(experiment):
    raise data.DataUnavailable("no data")


def other_data(result, made):
    return result, made | {"drawn": "other"}


@pytest.mark.parametrize(
    "change, same", [(lambda *both: both, True), (later_loss, True), (early_loss, False), (other_data, False)]
)
def test_compares_the_first_iterations_and_what_was_drawn(change, same):
    recorded(DESCENTS[0], change=change)
    (comparison,) = verify.verify([DESCENTS[0]])
    assert comparison.same == same and not comparison.failure


def test_what_one_needs_comes_from_the_record():
    recorded(DESCENTS[0], RESTART)
    (comparison,) = verify.verify([RESTART])
    assert comparison.same and comparison.experiment == RESTART


def test_a_failure_is_no_agreement(monkeypatch):
    recorded(DESCENTS[0])
    monkeypatch.setattr("catapults.compute.draws.draw", no_data)
    (comparison,) = verify.verify([DESCENTS[0]])
    assert not comparison.same and comparison.lacks_data and "no data" in comparison.failure


def test_the_choice_rotates_with_the_commit_and_keeps_to_its_time():
    recorded(*DESCENTS, change=lambda result, made: (result, made | {"seconds": 10.0}))
    choices = {tuple(e.seed for e in verify.chosen(DESCENTS, 20, commit)) for commit in map(str, range(20))}
    assert all(len(choice) == 2 for choice in choices) and len(choices) > 1
    assert verify.chosen(DESCENTS, 9, "a") == []
    assert len(verify.chosen(DESCENTS, 10, "a", processes=2)) == 2
    assert verify.chosen(DESCENTS, 9, "a", processes=2) == []  # none can be shared by two
    assert verify.chosen([RESTART], 100, "a") == []  # it is not in the record


def test_what_needs_something_that_is_not_recorded_is_not_chosen():
    recorded(DESCENTS[0], RESTART)
    assert verify.chosen([RESTART], 100, "a") == [RESTART]
    record.path(DESCENTS[0]).unlink()
    assert verify.chosen([RESTART], 100, "a") == []


def test_stops_in_time():
    recorded(*DESCENTS)
    seen = []
    done = verify.in_time(verify.verify(DESCENTS), 0.0, seen.append)
    assert len(done) == 1 and seen == done


@pytest.mark.parametrize(
    "theirs, ours, difference",
    [([1.0, np.nan], [1.0, np.nan], 0), ([1.0], [1.1], 0.1 / 1.1), ([0.0], [0.0], 0), ([1.0], [np.nan], np.inf)],
)
def test_difference(theirs, ours, difference):
    assert verify._difference(np.array(theirs), np.array(ours)) == pytest.approx(difference)
