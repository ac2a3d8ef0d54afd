"""Statistics of samples with known results."""

from __future__ import annotations

import pytest

from benchmarks.samples import (
    CostCurve,
    Percentiles,
    Quartiles,
    fit_cost,
    paired_ratio,
    percentiles,
    quartiles,
    repetition_means,
)


def test_quartiles_are_interpolated() -> None:
    assert quartiles([7.0, 5.0, 1.0, 3.0, 2.0, 4.0, 6.0]) == Quartiles(low=2.5, median=4.0, high=5.5)


def test_spread_of_a_few_samples_is_their_range() -> None:
    assert quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == Quartiles(low=1.0, median=3.0, high=5.0)


def test_quartiles_of_one_sample_are_that_sample() -> None:
    assert quartiles([7.0]) == Quartiles(low=7.0, median=7.0, high=7.0)


def test_one_disturbed_repetition_does_not_move_the_median() -> None:
    assert quartiles([1.0, 1.0, 1.0, 1.0, 100.0]).median == 1.0


def test_ratio_is_computed_within_each_repetition() -> None:
    # the machine runs at half speed in the second half; the ratio is always 2
    assert paired_ratio([2.0, 2.0, 4.0, 4.0], [1.0, 1.0, 2.0, 2.0]) == Quartiles(low=2.0, median=2.0, high=2.0)


def test_ratio_of_different_numbers_of_repetitions_is_rejected() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])


def test_percentiles_are_samples_by_nearest_rank() -> None:
    assert percentiles([float(value) for value in range(200, 0, -1)]) == Percentiles(p50=100.0, p95=190.0, p99=198.0)


def test_99th_percentile_of_few_samples_is_the_slowest() -> None:
    assert percentiles([3.0, 1.0, 2.0]) == Percentiles(p50=2.0, p95=3.0, p99=3.0)


def test_percentiles_of_one_sample_are_that_sample() -> None:
    assert percentiles([7.0]) == Percentiles(p50=7.0, p95=7.0, p99=7.0)


def test_repetition_is_the_mean_of_its_passes() -> None:
    assert repetition_means([1.0, 3.0, 10.0, 20.0], 2) == [2.0, 15.0]
    assert repetition_means([1.0, 3.0], 1) == [1.0, 3.0]


@pytest.mark.parametrize("passes", [0, 2])
def test_incomplete_repetitions_are_rejected(passes: int) -> None:
    with pytest.raises(ValueError, match="cannot be divided"):
        repetition_means([1.0, 2.0, 3.0], passes)


def test_fit_recovers_a_quadratic_curve() -> None:
    curve = CostCurve(constant=2.0, linear=0.5, quadratic=0.01)
    sizes = [1.0, 4.0, 16.0, 64.0, 256.0]
    found = fit_cost(sizes, [curve.at(size) for size in sizes], quadratic=True)
    assert (found.constant, found.linear, found.quadratic) == pytest.approx((2.0, 0.5, 0.01))


def test_linear_fit_has_no_quadratic_term() -> None:
    found = fit_cost([1.0, 2.0, 3.0], [3.0, 5.0, 7.0], quadratic=False)
    assert (found.constant, found.linear, found.quadratic) == pytest.approx((1.0, 2.0, 0.0))


def test_coefficients_are_not_negative() -> None:
    found = fit_cost([1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 9.1, 15.8], quadratic=True)
    assert min(found.constant, found.linear, found.quadratic) >= 0
    assert found.quadratic == pytest.approx(1.0, rel=0.02)


def test_fit_without_points_or_through_zero_is_rejected() -> None:
    for sizes, times in (([], []), ([1.0], [0.0])):
        with pytest.raises(ValueError, match="times above 0"):
            fit_cost(sizes, times, quadratic=True)
