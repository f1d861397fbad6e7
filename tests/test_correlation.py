import math
from dataclasses import replace

import numpy as np
import pytest
from catapults.experiments.fits import undiverged
from catapults.paper import NOT_COMPARED, NOT_REPRODUCED, PARTLY, REPRODUCED
from catapults.paper.correlation import Order, follows, pearson, signed, spearman, together
from catapults.paper.measurements import (
    ALIGNMENT,
    CATAPULTS,
    NORM,
    STEPS_ABOVE,
    TEST_LOSS,
    ends,
    linear_fvu,
    mean_and_deviation,
    nothing_to_compare,
    performance,
    validation,
    without_diverged,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_samples import made, strong_result


def by_hand(a, b):
    """The mean product of deviations over the deviations' sizes."""
    a, b = np.array(a, float) - np.mean(a), np.array(b, float) - np.mean(b)
    return (a * b).mean() / math.sqrt((a * a).mean() * (b * b).mean())


def ranks(values):
    """Equal values share the mean of their places."""
    return [np.mean([place for place, v in enumerate(sorted(values)) if v == value]) for value in values]


numbers = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=12)


@settings(deadline=None)
@given(numbers)
def test_are_what_their_definitions_say(pairs):
    """Small whole numbers, so that many are equal."""
    a, b = (list(map(float, values)) for values in zip(*pairs, strict=True))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(pearson(a, b)) and math.isnan(spearman(a, b))
        return
    assert pearson(a, b) == pytest.approx(by_hand(a, b), abs=1e-12)
    assert spearman(a, b) == pytest.approx(by_hand(ranks(a), ranks(b)), abs=1e-12)


def test_ties_share_their_rank():
    a, b = [1, 1, 2, 3], [1, 2, 3, 3]
    assert spearman(a, b) == pytest.approx(by_hand([0.5, 0.5, 2, 3], [0, 1, 2.5, 2.5]))


def test_ranks_see_only_the_order():
    a = [1, 2, 3, 4]
    b = [1, 10, 100, 1e6]
    assert spearman(a, b) == pytest.approx(1) and pearson(a, b) < 0.9
    assert spearman(a, [4, 3, 2, -1e6]) == pytest.approx(-1)


@pytest.mark.parametrize("of", [pearson, spearman])
class TestWhatIsNotKnown:
    def test_pairs_with_nan_or_infinity_are_left_out(self, of):
        a, b = [1, math.nan, 2, 3, 5, 6], [2, 7, 3, math.nan, 1, math.inf]
        assert of(a, b) == pytest.approx(of([1, 2, 5], [2, 3, 1]))

    @pytest.mark.parametrize(
        "a, b",
        [
            ([], []),
            ([1, 2], [3, 4]),
            ([1, 2, math.nan], [3, 4, 5]),
            ([1, 2, 3], [math.nan] * 3),
            ([1, 1, 1], [1, 2, 3]),
            ([1, 2, 3], [4, 4, 4]),
            ([1, 1, 1, 2], [1, 2, 3, math.nan]),  # what varies is left out
        ],
    )
    def test_too_few_or_all_the_same(self, of, a, b):
        assert math.isnan(of(a, b))


ORDER = Order("batch size", "as batches get smaller", -1)
PLACES = [5, 10, 50, 100]


def at(values, places=PLACES):
    return dict(zip(places, map(float, values), strict=False))


class TestFollows:
    @pytest.mark.parametrize(
        "direction, grows, values, holds",
        [
            (1, True, [1, 2, 3, 4], REPRODUCED),
            (1, False, [1, 2, 3, 4], NOT_REPRODUCED),
            (1, False, [4, 3, 2, 1], REPRODUCED),
            (-1, True, [4, 3, 2, 1], REPRODUCED),
            (-1, False, [4, 3, 2, 1], NOT_REPRODUCED),
            (1, True, [1, 4, 0, 2], NOT_REPRODUCED),  # the ends are in order, the ranks are not
            (1, True, [1, 1, 1, 1], NOT_COMPARED),
            (1, True, [1, 0, 3], REPRODUCED),  # of three places the ends decide
            (1, True, [1, math.nan, math.nan, math.nan], NOT_COMPARED),
        ],
    )
    def test_both_signs_and_both_directions(self, direction, grows, values, holds):
        order = replace(ORDER, direction=direction)
        assert follows(ALIGNMENT, grows, order, [at(values)], "yes").verdict == holds

    @pytest.mark.parametrize("places", [[], [5]])
    def test_one_place_is_no_trend(self, places):
        claim = follows(ALIGNMENT, True, ORDER, [{p: 0.1 * p for p in places}], "yes")
        assert claim.verdict == NOT_COMPARED and claim.held is None and "nan" not in claim.sentence + claim.ours
        assert claim.why == "there are no two different values to compare"

    def test_both_ends_have_to_be_in_order(self):
        """Four of five rise, the last place is lower than the first."""
        order = Order("number of catapults", "as the number of catapults grows", 1)
        values = at([0.4, 0.5, 0.6, 0.7, 0.3], range(5))
        assert follows(ALIGNMENT, True, order, [values], "yes").verdict == NOT_REPRODUCED

    def test_each_seed_counts_and_the_difference_must_exceed_its_error(self):
        up, down = at([0.4, 0.3, 0.2, 0.1]), at([0.1, 0.2, 0.3, 0.4])
        claim = follows(ALIGNMENT, True, ORDER, [up] * 8 + [down] * 2, "yes")
        assert claim.held == (8, 10) and claim.verdict == REPRODUCED and claim.why == ""
        assert follows(ALIGNMENT, True, ORDER, [up] * 7 + [down] * 3, "yes").verdict == PARTLY
        tiny = [at([0.1 + 1e-4, 0.1 + 5e-5, 0.1 + 3e-5, 0.1])] * 4 + [at([0.1, 0.2, 0.3, 0.9])]
        claim = follows(ALIGNMENT, True, ORDER, tiny, "yes")
        assert claim.held == (4, 5) and claim.verdict == PARTLY and "does not exceed 2 standard errors" in claim.why

    def test_places_that_a_seed_lacks(self):
        claim = follows(ALIGNMENT, True, ORDER, [at([0.4, 0.3]), at([math.nan, 0.3, 0.2, 0.1])], "yes")
        assert claim.held == (2, 2) and claim.ours == "0.400 (5), 0.300 (10), 0.200 (50), 0.100 (100)"

    def test_its_words(self):
        order = replace(ORDER, left_out="left out: 2 of 9")
        claim = follows(ALIGNMENT, True, order, [at([0.9, 0.5, 0.1])], "yes", "figure 9")
        assert claim.statement == "the alignment grows as batches get smaller"
        listed = "0.900 (5), 0.500 (10), 0.100 (50); left out: 2 of 9"
        assert claim.ours == listed
        assert claim.sentence == f"The alignment by batch size (in brackets) is {listed}."
        assert claim.shown_in == ("figure 9",) and claim.paper == "yes"

    def test_means_that_the_test_set_cannot_tell_apart(self):
        values = [at([0.01, 0.02, 0.03, 0.04])] * 3
        claim = follows(ALIGNMENT, False, ORDER, values, "yes", apart=0.031)
        assert claim.verdict == NOT_COMPARED and "they differ by 0.030" in claim.why
        assert follows(ALIGNMENT, False, ORDER, values, "yes", apart=0.029).verdict == REPRODUCED

    def test_what_cannot_be_compared(self):
        claim = follows(ALIGNMENT, True, ORDER, [at([4, 3, 2, 1])], "yes", unless="nothing is learned")
        assert claim.verdict == NOT_COMPARED and claim.why == "nothing is learned" and claim.held is None


class TestTogether:
    def rows(self, *signs):
        pairs = [(0.9, 0.1), (0.7, 0.3), (0.5, 0.5), (0.3, 0.8)]
        return [[made(loss, a if sign > 0 else 1 - a) for loss, a in pairs] for sign in signs]

    def test_each_seed_counts(self):
        claim = together(self.rows(1, 1, -1), performance("loss"), "yes", "", "")
        assert claim.held == (2, 3) and claim.verdict == PARTLY
        assert claim.ours == "Pearson −0.99 (−0.99 to +0.99), Spearman −1.00 (−1.00 to +1.00)"
        assert claim.sentence.startswith("Over the 4 trainings of a seed")
        assert together(self.rows(1), performance("loss"), "yes", "", "").ours == "Pearson −0.99, Spearman −1.00"

    def test_ranks_that_could_be_chance(self):
        """A strong correlation of the values, which one training makes: the other ranks are the wrong way round."""
        row = [made(loss, a) for loss, a in [(0.5, 0.2), (0.52, 0.21), (0.54, 0.22), (0.1, 0.9)]]
        assert together([row], performance("loss"), "yes", "", "").verdict == NOT_REPRODUCED

    def test_what_cannot_be_compared(self):
        two = [row[:3] for row in self.rows(1, 1)]
        claim = together(two, performance("loss"), "yes", "left out: 1", "")
        assert claim.verdict == NOT_COMPARED and "no four different" in claim.why and claim.ours.endswith("left out: 1")
        assert together(self.rows(1), performance("loss"), "yes", "", "bad").why == "bad"


class TestNothingToCompare:
    @pytest.mark.parametrize(
        "loss, said", [(0.80, ""), (0.82, "the best FVU is 0.82, and 0.90 that of the best linear")]
    )
    def test_regression_has_to_beat_the_linear_predictor(self, loss, said):
        found = nothing_to_compare([made(loss, 0.5), made(1.0, 0.5)], None, 2)
        assert (found == "") is (said == "") and said in found

    def test_a_strong_model_has_to_beat_chance(self):
        classes = [made(1.0, 0.5, error=0.3)]
        assert nothing_to_compare(classes, strong_result(0.2), 2) == ""
        assert "it gets 30 % wrong" in nothing_to_compare(classes, strong_result(0.3), 2)
        assert nothing_to_compare(classes, strong_result(0.3), 10) == ""  # where chance gets 90 % wrong

    def test_divergence(self):
        assert nothing_to_compare([made(0.1, 0.5, diverged=True)], None, 2) == "all trainings diverge"


@pytest.mark.parametrize(
    "value, expected", [(0.567, "+0.57"), (-0.567, "−0.57"), (math.nan, "–")]
)  # fmt: skip
def test_signed(value, expected):
    assert signed(value) == expected


class TestMeasurements:
    def test_as_text(self):
        a, b = made(0.1234, 0.5, error=0.25), made(0.1334, math.nan, error=0.27)
        loss, error = TEST_LOSS, performance("error")
        assert loss.write(0.12345) == "0.123" and error.write(0.1234) == "12.3 %" and loss.write(math.nan) == "–"
        assert error.write_mean([a, b]) == "26.0 ± 1.4 %" and error.write_mean([a]) == "25.0 %"
        assert loss.write_mean([made(0.1234, 0.5), made(0.1334, 0.5)]) == "0.128 ± 0.007"
        assert ALIGNMENT.write_mean([a, b]) == "0.500"
        assert ALIGNMENT.write_mean([b]) == ALIGNMENT.write_mean([]) == "–"

    def test_which_there_are(self):
        result = replace(made(0.4, 0.5, error=0.25), validation_loss=np.array([3.0, 2.0, 1.0]), catapults=7, spikes=3)
        assert performance("error").of(result) == 0.25 == validation("error").of(result)
        as_loss = replace(result, measure="loss", test_variance=0.5, linear_test_loss=0.9)
        assert performance("loss").of(as_loss) == 0.8 and validation("loss").of(as_loss) == 4.0
        assert TEST_LOSS.of(as_loss) == 0.4 and linear_fvu([as_loss]) == 1.8
        assert STEPS_ABOVE.of(result) == 7 and CATAPULTS.of(result) == 3
        assert CATAPULTS.of(replace(result, spikes_above=2)) == 2  # those that are catapults, where it is known
        assert NORM.of(replace(result, norms=(4.0, 3.0))) == 0.75
        assert (performance("loss").title, validation("error").title) == ("test FVU", "best validation error")

    def test_mean_and_deviation(self):
        assert mean_and_deviation([1.0, 3.0, math.nan]) == (2.0, pytest.approx(math.sqrt(2)))
        for values, mean in (([], math.nan), ([math.nan], math.nan), ([4.0, math.inf], 4.0)):
            assert mean_and_deviation(values) == pytest.approx((mean, math.nan), nan_ok=True)

    def test_what_diverges(self):
        fine, bad = made(1.0, 0.5), made(1.0, 0.5, diverged=True)
        assert ends([fine, fine]) == "2 of 2" and without_diverged([fine]) == ""
        assert ends([fine, bad]) == "1 of 2, 1 diverges" and ends([bad, bad]) == "0 of 2, 2 diverge"
        assert without_diverged([fine, bad, bad]) == "left out: 2 of 3 trainings, which diverge"
        assert undiverged([fine, bad, fine]) == [fine, fine]
