import math

import pytest
from catapults.schedules import Cyclical, LearningRate, Schedule, check, parse
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


class TestCycles:
    def test_smiths_triangle(self):
        cycle = Cyclical.parse("1 .. 3, 4")
        values = [cycle.at(iteration).value for iteration in range(17)]
        assert values == [1, 1.5, 2, 2.5, 3, 2.5, 2, 1.5] * 2 + [1]

    @given(st.floats(1e-6, 1e6), st.floats(1.01, 100), st.integers(1, 500), st.integers(0, 5000))
    def test_the_formula_of_the_paper_that_it_comes_from(self, low, factor, half, iteration):
        """Smith (2017), section 3.1, where half a cycle is called the step size."""
        high = low * factor
        cycle = math.floor(1 + iteration / (2 * half))
        x = abs(iteration / half - 2 * cycle + 1)
        expected = low + (high - low) * max(0, 1 - x)
        ours = Cyclical(LearningRate(low), LearningRate(high), half).at(iteration).value
        assert ours == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize(
        "written", ["0.5 eta_crit .. 2 eta_crit, 20", "1 .. 3, 4", "0.25 .. 3e2,1", "1eta_crit..2 eta_crit,7"]
    )
    def test_what_is_written_is_read_again(self, written):
        cycle = parse(written)
        assert isinstance(cycle, Cyclical) and parse(str(cycle)) == cycle and parse(cycle) is cycle

    @pytest.mark.parametrize(
        "written, message",
        [
            ("1 .. 3", "allowed are a positive number"),
            ("1 .. , 4", "allowed are a positive number"),
            ("1 .. 3, 4.5", "allowed are a positive number"),
            ("1 .. 3, x", "allowed are a positive number"),
            ("0 .. 3, 4", "allowed are a positive number"),
            ("1 .. 3, 0", "allowed are half cycles of at least 1 step"),
            ("3 .. 1, 4", "allowed are cycles from a lower to a higher rate"),
            ("3 .. 3, 4", "allowed are cycles from a lower to a higher rate"),
            ("1 .. 3 eta_crit, 4", "allowed are cycles between two absolute rates, or between two multiples"),
            ("1 current eta_crit .. 3 current eta_crit, 4", "allowed are cycles between two absolute rates"),
        ],
    )
    def test_impossible_cycles(self, written, message):
        with pytest.raises(ValueError, match=f"learning_rate = '.*': {message}"):
            parse(written)

    def test_all_else_is_a_schedule(self):
        for written in (6, "6", "1.67 eta_crit", "6; 15: 10"):
            assert parse(written) == Schedule.parse(written)

    def test_the_parameter_is_named(self):
        with pytest.raises(ValueError, match=r"^calm_learning_rate = '3\.0 \.\. 1\.0, 4': allowed are cycles"):
            check("3 .. 1, 4", "calm_learning_rate")
        with pytest.raises(ValueError, match=r"^our_schedule = '1 \.\. 3, 4': allowed are"):
            check("1 .. 3, 4", "our_schedule", Schedule.parse)
