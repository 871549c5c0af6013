"""Mean and sample standard deviation, compared with the standard library."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.measure.sample_statistics import deviation, mean


@given(st.lists(st.floats(0.001, 1e6), min_size=2, max_size=20))
def test_mean_and_sample_deviation(values: list[float]) -> None:
    assert mean(values) == pytest.approx(statistics.mean(values))
    assert deviation(values) == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-6 * mean(values))


def test_deviation_of_one_value_is_zero() -> None:
    assert deviation([3.0]) == 0.0
