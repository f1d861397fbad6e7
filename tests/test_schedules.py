import math

import pytest
from catapults.schedules import LearningRate, Schedule
from hypothesis import given
from hypothesis import strategies as st

rates = st.builds(
    LearningRate,
    st.floats(1e-12, 1e12),
    st.sampled_from(["", "eta_crit", "current eta_crit"]),
)
later = st.dictionaries(st.integers(1, 10_000), rates, max_size=5)


@pytest.mark.parametrize(
    "written, value, of",
    [(6, 6.0, ""), (0.5, 0.5, ""), ("6", 6.0, ""), ("1e-3", 1e-3, ""), ("1.67 eta_crit", 1.67, "eta_crit"),
     ("2*eta_crit", 2.0, "eta_crit"), (" 3 ETA_CRIT ", 3.0, "eta_crit"),
     ("1.5 current  eta_crit", 1.5, "current eta_crit")],
)  # fmt: skip
def test_learning_rates(written, value, of):
    assert LearningRate.parse(written) == LearningRate(value, of)
    assert LearningRate.parse(written).relative == bool(of)
    assert Schedule.parse(written) == Schedule(((0, LearningRate(value, of)),))


def test_absolute_values():
    values = {"3": 3.0, "3 eta_crit": 6.0, "3 current eta_crit": 15.0}
    for written, value in values.items():
        assert LearningRate.parse(written).absolute(initial=2.0, current=5.0) == value


@pytest.mark.parametrize(
    "written",
    [0, -1, math.nan, math.inf, True, None, "", "fast", "1.67 eta", "-2 eta_crit", "1..2", "6;", "6; 10", "; 3: 4",
     "6; x: 10", "6; 1.5: 10", "6; 15: 10; 15: 12", "6; 60: 10; 15: 12", "6; 0: 7", "6; -3: 7", "6; 15: 0",
     "15: 6", "6; : 10", "6; 15, 10: 3"],
)  # fmt: skip
@pytest.mark.usefixtures("no_type_checks")
def test_impossible_schedules(written):
    with pytest.raises(ValueError, match="learning_rate = .*allowed are a positive number, a multiple"):
        Schedule.parse(written)


@pytest.mark.parametrize("value", [-1.0, 0.0, math.nan, math.inf])
def test_impossible_rates_as_objects(value):
    with pytest.raises(ValueError, match="learning_rate = .*: allowed are a positive number"):
        LearningRate(value)


@pytest.mark.parametrize("iterations", [[], [5], [0, 3, 3], [0, 5, 2]])
def test_impossible_schedules_as_objects(iterations):
    with pytest.raises(ValueError, match="do not ascend from 0"):
        Schedule(tuple((iteration, LearningRate(1.0)) for iteration in iterations))


def test_the_papers_schedule():
    schedule = Schedule.parse("6; 15: 10; 60: 15")
    set_at = {iteration: schedule.at(iteration) for iteration in range(100)}
    assert {i: rate.value for i, rate in set_at.items() if rate} == {0: 6.0, 15: 10.0, 60: 15.0}
    assert schedule.last == 60


def test_one_rate_for_several_iterations():
    several, one_by_one = "2; 15, 45: 1.5 current eta_crit", "2; 15: 1.5 current eta_crit; 45: 1.5 current eta_crit"
    assert Schedule.parse(several) == Schedule.parse(one_by_one)


@given(rates, later)
def test_what_is_written_is_read_again(first, later):
    schedule = Schedule(((0, first), *sorted(later.items())))
    assert Schedule.parse(str(schedule)) == schedule
    assert Schedule.parse(schedule) is schedule


@given(rates, later, st.integers(0, 20_000))
def test_a_rate_is_set_at_its_iterations_and_nowhere_else(first, later, iteration):
    schedule = Schedule(((0, first), *sorted(later.items())))
    assert schedule.at(iteration) == ({0: first} | later).get(iteration)
    assert schedule.at(schedule.last) is not None
