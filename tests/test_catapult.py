import math

import numpy as np
import pytest
from catapults.catapult import RISE, Catapult, Spike, above, find, spikes, spikes_above, steps_above
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import find_peaks

runs = st.lists(st.tuples(st.floats(1e-6, 1e6), st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=40).map(
    lambda rows: np.array(rows).T
)
losses = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60, unique=True).map(np.array)


def found(loss, unstable):
    """In a run with the rate 1 that exceeds the critical one where ``unstable`` is 1."""
    return find(np.array(loss, float), np.ones(len(loss)), np.where(np.array(unstable), 0.5, 2.0))


@pytest.mark.parametrize(
    "loss, unstable, expected",
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
def test_catapults(loss, unstable, expected):
    assert found(loss, unstable) == expected


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


@pytest.mark.parametrize(
    "loss, expected",
    [
        ([1, 4, 1], [Spike(0, 1, 2)]),
        ([4, 1, 1.5, 4, 3, 2, 1], [Spike(1, 3, 5)]),
        ([1, 1.9, 1], []),  # too small
        ([1, 4, 3, 5], []),  # does not come back
        ([5, 4, 3, 1], []),
        ([5, 2, 1], []),  # the start is no peak
        ([1, 4, 3, 6.1, 1], [Spike(2, 3, 4)]),  # two peaks without a return between them are one
        ([1, 4, 1.5, 6, 1], [Spike(0, 1, 2), Spike(2, 3, 4)]),
        ([1, 2, 1.5, 0.5, 3, 1], [Spike(0, 1, 3), Spike(3, 4, 5)]),
        ([3, 2, 1, 0.5, 3, 1], [Spike(3, 4, 5)]),  # the start is the bottom, not the last value that is low enough
        ([1, 4, 1, math.inf], [Spike(0, 1, 2)]),
        ([1], []),
    ],
)
def test_spikes(loss, expected):
    assert spikes(np.array(loss, float)) == expected


def test_a_loss_that_vanishes():
    assert spikes(np.array([1.0, 0, 1, 0])) == [Spike(1, 2, 3)]


@pytest.mark.parametrize("rise, base", [(1.1, 50.0), (1.1, 200.0), (1.3, 10.0)])
def test_a_peak_of_just_the_rise(rise, base):
    assert spikes(np.array([base, base * rise * (1 + 1e-9), base]), rise) == [Spike(0, 1, 2)]
    for peak in (base * rise, np.nextafter(base * rise, 0)):
        assert spikes(np.array([base, peak, base]), rise) in ([], [Spike(0, 1, 2)])


def test_spikes_where_not_all_was_measured():
    loss = np.array([1, math.nan, 4, math.nan, math.nan, 1, math.nan])
    assert spikes(loss) == [Spike(0, 2, 5)]


@pytest.mark.parametrize(
    "loss, rise, message",
    [
        ([1.0, 4, 1], 1.0, "rise = 1.0: allowed are numbers above 1"),
        ([1.0, -1, 1], 2.0, "loss: its smallest value is -1"),
    ],
)
def test_impossible_spikes(loss, rise, message):
    with pytest.raises(ValueError, match=message):
        spikes(np.array(loss), rise)


@given(losses)
def test_what_is_a_spike_is_what_the_definition_says(loss):
    last = -1
    for s in spikes(loss):
        assert s.start < s.peak < s.end and last < s.peak
        assert loss[s.peak] >= RISE * max(loss[s.start], loss[s.end]) * (1 - 1e-12)
        assert loss[s.peak] == loss[s.start : s.end + 1].max()
        assert s.start == 0 or loss[s.start - 1] >= loss[s.start]
        last = s.peak


@given(losses, st.floats(1e-3, 1e3))
def test_spikes_do_not_depend_on_the_unit(loss, unit):
    assert spikes(loss * 2.0 ** round(math.log2(unit))) == spikes(loss)


@given(losses)
def test_spikes_backwards_have_the_same_peaks(loss):
    last = len(loss) - 1
    assert [last - s.peak for s in reversed(spikes(loss[::-1].copy()))] == [s.peak for s in spikes(loss)]


@given(losses)
def test_spikes_are_scipys_peaks_of_that_prominence(loss):
    rise = math.exp(0.7)  # not a ratio of round numbers, of which a logarithm may or may not reach that of the rise
    peaks, _ = find_peaks(np.log(loss), prominence=0.7)
    assert [s.peak for s in spikes(loss, rise)] == peaks.tolist()


@given(losses)
def test_a_loss_that_never_rises_has_no_spike(loss):
    assert spikes(np.minimum.accumulate(loss)) == []


def test_steps_above_count_a_rate_as_unchanged_between_measurements():
    nan = math.nan
    critical, rate = np.array([nan, 2.0, nan, 1.0, 1.0, 3.0]), np.array([9.0, 1.0, 3.0, 1.0, 1.1, nan])
    assert above(rate, critical).tolist() == [False, False, True, False, True, False]
    assert steps_above(rate, critical).tolist() == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("at, count", [(0, 0), (1, 1), (2, 1), (3, 0), (5, 0), (6, 1)])
def test_a_spike_is_above_where_its_rise_is(at, count):
    """From the step that leaves its start to the one that reaches its peak."""
    loss = np.array([2.0, 1.0, 3.0, 9.0, 1.0, 0.5, 0.4, 5.0, 0.1])
    found = spikes(loss)
    assert found == [Spike(1, 3, 4), Spike(6, 7, 8)]
    steps = np.zeros(len(loss) - 1, bool)
    steps[at] = True
    assert spikes_above(found, steps) == count
