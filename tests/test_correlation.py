import math

import numpy as np
import pytest
from catapults.claims.correlation import decimals, pearson, percent_or_loss, plus_minus, signed, spearman
from hypothesis import given, settings
from hypothesis import strategies as st


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


@pytest.mark.parametrize(
    "text, expected",
    [
        (signed(0.567), "+0.57"),
        (signed(-0.567), "−0.57"),
        (signed(math.nan), "–"),
        (decimals(0.12345, 3), "0.123"),
        (decimals(math.nan, 3), "–"),
        (percent_or_loss(0.1234, True), "0.123"),
        (percent_or_loss(0.1234, False), "12.3 %"),
        (percent_or_loss(math.nan, False), "–"),
        (plus_minus(0.1234, 0.0056), "0.12 ± 0.01"),
        (plus_minus(0.1234, 0.0056, 1, 100, " %"), "12.3 ± 0.6 %"),
        (plus_minus(0.1234, math.nan, 3), "0.123"),
        (plus_minus(math.nan, math.nan), "–"),
    ],
)
def test_as_text(text, expected):
    assert text == expected
