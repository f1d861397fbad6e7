"""How claims are judged over seeds, and how sure a share or a difference is."""

import math

import numpy as np
import pytest
from catapults.paper.claims import (
    GIVEN,
    NOT_COMPARED,
    NOT_REPRODUCED,
    PARTLY,
    REPRODUCED,
    Claims,
    at_least,
    at_most,
    claim,
    counted,
    given,
    of_share,
    over_seeds,
    within,
    within_factor,
)
from catapults.paper.statistics import chance, differs, of_one_more, resolution, standard_error, wilson

rng = np.random.default_rng(0)


def one(value, unless=""):
    words = f"{value:.1f} %"
    return Claims(
        {"a": claim("a", "b", words, at_least(90, "{:g} %"), value, "It is.", unless=unless, unit="{:.1f} %")}
    )


class TestWilson:
    @pytest.mark.parametrize("held, of", [(0, 5), (3, 5), (9, 10), (10, 10), (1, 1)])
    def test_its_ends_are_where_the_score_test_rejects(self, held, of):
        """(share - p)^2 = z^2 p (1 - p) / n at both ends, except where the share is itself at an end."""
        for end in wilson(held, of):
            if 0 < end < 1:
                assert (held / of - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / of)

    def test_known(self):
        assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)

    def test_all_and_none_reach_the_ends(self):
        assert wilson(10, 10)[1] == pytest.approx(1) and wilson(0, 10)[0] == pytest.approx(0)


class TestDifferences:
    def test_the_closed_form_is_the_bootstraps(self):
        values = rng.normal(size=12)
        means = rng.choice(values, (200_000, 12)).mean(1)
        assert standard_error(values.tolist()) == pytest.approx(means.std(), rel=0.02)

    def test_differs(self):
        assert differs([1.0, 1.2, 0.9]) and differs([-1.0, -1.2, -0.9])
        assert not differs([1.0, -1.2, 0.3])
        assert not differs([5.0])  # from one pair nothing can be told
        assert math.isnan(standard_error([5.0]))


class TestChance:
    @pytest.mark.parametrize("rank, n", [(-0.7, 9), (-0.9, 5), (0.3, 12)])
    def test_is_how_often_random_orders_do_as_well(self, rank, n):
        orders = np.array([rng.permutation(n) for _ in range(40_000)])
        centred = np.arange(n) - (n - 1) / 2
        ranks = (orders - (n - 1) / 2) @ centred / (centred @ centred)
        assert chance(rank, n) == pytest.approx((ranks <= rank + 1e-9).mean(), abs=0.025)

    def test_at_its_ends(self):
        assert chance(-1.0, 4) == 0 and chance(1.0, 4) == 1
        assert math.isnan(chance(-1.0, 3)) and math.isnan(chance(math.nan, 9))

    def test_two_error_rates_are_told_apart_two_standard_errors_away(self):
        differences = (rng.binomial(400, 0.1, (200_000, 2)) / 400) @ [1, -1]
        assert resolution(0.1, 400) == pytest.approx(2 * differences.std(), rel=0.01)


class TestTolerances:
    def test_each_judges_what_it_says(self):
        for tolerance, good, bad in [
            (at_least(0.9), 0.9, 0.89),
            (at_most(3), 3, 4),
            (within(0.1, 1.0), 1.05, 1.2),
            (within_factor(1.5, 2.0), 2.9, 3.1),
            (within_factor(1.5, 2.0), 1.4, 1.3),
        ]:
            assert tolerance.judge(good) == REPRODUCED
            assert tolerance.judge(bad) == NOT_REPRODUCED
            assert tolerance.judge(math.nan) == NOT_COMPARED
        assert at_least(95, "{:g} %").words == "at least 95 %"


class TestOverSeeds:
    @pytest.mark.parametrize(
        "held, of, verdict",
        [(8, 10, REPRODUCED), (7, 10, PARTLY), (3, 10, PARTLY), (2, 10, NOT_REPRODUCED), (0, 0, NOT_COMPARED)],
    )
    def test_verdict_of_a_share(self, held, of, verdict):
        assert of_share(held, of) == verdict

    def test_median_range_and_count(self):
        found = over_seeds([one(v) for v in (95.0, 99.0, 91.0, 80.0, 97.0)])["a"]
        assert found.held == (4, 5) and found.verdict == REPRODUCED
        assert found.ours == "median 95.0 % (80.0 to 99.0)"
        assert "4 of 5 seeds (38–96 %)" in found.sentence

    def test_all_seeds(self):
        found = over_seeds([one(95.0)] * 3)["a"]
        assert found.ours == "95.0 % in all" and found.sentence == "It is. The claim holds in all 3 seeds."

    def test_seeds_that_are_not_compared_are_said(self):
        found = over_seeds([one(math.nan, "no spike"), one(95.0), one(99.0)])["a"]
        assert found.held == (2, 2) and found.verdict == REPRODUCED and "not compared in 1: no spike" in found.ours
        assert over_seeds([one(math.nan, "no spike")] * 2)["a"].why == "no spike"

    def test_what_we_set_is_no_evidence(self):
        found = over_seeds([Claims({"a": given("a", "b", "3", "It is 3.")})] * 2)["a"]
        assert found.verdict == GIVEN and found.held is None

    def test_one_seed_says_so(self):
        assert over_seeds([one(95.0)])["a"].seeds == counted(1, 1) == "the one seed"


class TestOneMore:
    @pytest.mark.parametrize("n", [3, 5, 10])
    def test_one_more_normal_value_lies_there_in_95_of_100_cases(self, n):
        drawn = np.random.default_rng(0).normal(3, 2, (4000, n + 1))
        inside = [low <= row[-1] <= high for row in drawn for low, high in [of_one_more(row[:-1].tolist())]]
        assert np.mean(inside) == pytest.approx(0.95, abs=0.015)

    def test_its_ends(self):
        assert of_one_more([1.0, 1.0, 1.0]) == (1, 1)
        assert of_one_more([1.0, 2.0]) == (-math.inf, math.inf)


def test_on_data_of_ones_own_nothing_is_reproduced():
    here = Claims(dict(one(95.0)), here=True)
    text = here._repr_mimebundle_()["text/markdown"]
    assert "holds here" in text and "reproduced" not in text
