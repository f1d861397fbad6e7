"""Long curves keep their peaks."""

import numpy as np
import pytest
from catapults.compute.trainings.thinning import SHOWN, thinned


@pytest.mark.parametrize("length", [0, 1, SHOWN])
def test_short_curves_stay_as_they_are(length):
    values, other = np.random.default_rng(0).random((2, length))
    chosen, *curves = thinned(values, other)
    assert chosen.tolist() == list(range(length)) and np.array_equal(curves, [values, other])


@pytest.mark.parametrize("length", [SHOWN + 1, 12_345, 100_000])
def test_of_long_ones_every_stretch_keeps_its_ends_and_extremes(length):
    values, other = np.random.default_rng(1).standard_cauchy((2, length))
    chosen, kept, rates = thinned(values, other)
    assert SHOWN / 4 < len(chosen) <= SHOWN and (np.diff(chosen) > 0).all()
    assert chosen[0] == 0 and chosen[-1] == length - 1
    assert np.array_equal(kept, values[chosen]) and np.array_equal(rates, other[chosen])
    assert {values.argmax(), values.argmin()} <= set(chosen)
    width = -(-length // (SHOWN // 4))
    for start in range(0, length, 2 * width):  # holds a whole stretch
        window = (chosen >= start) & (chosen < start + 2 * width)
        assert window.any() and kept[window].max() >= np.median(values[start : start + 2 * width])


def test_divergence_is_kept():
    values = np.ones(5000)
    values[3210], values[-1] = np.inf, np.nan
    chosen, kept, _ = thinned(values, values)
    assert kept[list(chosen).index(3210)] == np.inf and np.isnan(kept[-1])
