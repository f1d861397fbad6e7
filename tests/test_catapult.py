import math

import numpy as np
import pytest
from catapults.catapult import RISE, Catapult, find
from hypothesis import given
from hypothesis import strategies as st

runs = st.lists(st.tuples(st.floats(1e-6, 1e6), st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=40).map(
    lambda rows: np.array(rows).T
)


def found(loss, above):
    """In a run with the rate 1 that exceeds the critical one where ``above`` is 1."""
    return find(np.array(loss, float), np.ones(len(loss)), np.where(np.array(above), 0.5, 2.0))


@pytest.mark.parametrize(
    "loss, above, expected",
    [
        ([1, 3, 9, 0.5, 0.2], [1, 1, 0, 0, 0], [Catapult(0, 2, 3)]),  # the textbook's
        ([1, 0.9, 0.8], [0, 0, 0], []),
        ([1, 3, 9, 0.5, 0.2], [0, 0, 0, 0, 0], []),  # a spike without an unstable direction
        ([1, 0.8, 0.6, 2, 0.5], [1, 1, 1, 0, 0], [Catapult(2, 3, 4)]),  # it falls before it rises
        ([1, 0.8, 0.6, 2, 0.5], [1, 0, 0, 0, 0], []),  # stable again before the rise
        ([1, 3, 9, 2, 1.5], [1, 1, 0, 0, 0], []),  # has not come back
        ([1, 1.5, 0.9], [1, 1, 0], []),  # too small
        ([1, 30, 900, math.inf], [1, 1, 1, 1], []),
        ([1, 4, 0.5, 2, 0.4], [1, 0, 0, 1, 0], [Catapult(0, 1, 2)]),
        ([1, 4, 0.5, 0.4, 2, 0.3], [1, 0, 0, 1, 0, 0], [Catapult(0, 1, 2), Catapult(3, 4, 5)]),
        ([1, 4, 3, 5, 0.5], [1, 0, 1, 0, 0], [Catapult(0, 3, 4)]),  # two peaks before it is back are one catapult
        ([1, 4, 0.5, 3, 0.2], [1, 1, 1, 0, 0], [Catapult(0, 1, 2), Catapult(2, 3, 4)]),
    ],
)  # fmt: skip
def test_catapults(loss, above, expected):
    assert found(loss, above) == expected


def test_an_unknown_critical_rate_is_not_exceeded():
    assert find(np.array([1.0, 5.0, 0.5]), np.ones(3), np.full(3, math.nan)) == []


@pytest.mark.parametrize("rise", [1.0, 0.0, math.nan])
def test_impossible_rises(rise):
    with pytest.raises(ValueError, match="rise = .*: allowed are numbers above 1"):
        find(np.ones(3), np.ones(3), np.ones(3), rise)


@given(runs)
def test_what_is_found_is_what_the_definition_says(run):
    loss, rate, critical = run
    end = -1
    for c in find(loss, rate, critical):
        assert end <= c.start < c.peak < c.end
        assert loss[c.peak] >= RISE * loss[c.start] and loss[c.end] < loss[c.start]
        assert loss[c.peak] == loss[c.start : c.end].max() and loss[c.start] == loss[c.start : c.end].min()
        assert rate[c.start] > critical[c.start]
        end = c.end


@given(runs, st.floats(1e-3, 1e3))
def test_units_of_loss_and_rate_do_not_matter(run, unit):
    loss, rate, critical = run
    unit = 2.0 ** round(math.log2(unit))  # exactly
    assert find(unit * loss, rate, critical) == find(loss, unit * rate, unit * critical) == find(loss, rate, critical)


@given(runs)
def test_a_stable_run_has_none(run):
    loss, rate, critical = run
    assert find(loss, np.minimum(rate, critical), critical) == []


@given(runs, runs)
def test_runs_one_after_the_other_add_up_after_a_stable_step_that_is_lower(first, second):
    """Such a step ends what the first run has begun, or counts it."""
    low = np.array([[min(first[0].min(), second[0].min()) / 2], [1.0], [2.0]])
    joined = np.concatenate([first, low, second], 1)
    alone = len(find(*np.concatenate([first, low], 1))) + len(find(*second))
    assert len(find(*joined)) == alone
