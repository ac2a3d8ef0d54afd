"""Statistics on samples whose answers are known."""

from __future__ import annotations

import pytest

from benchmarks.samples import (
    CostCurve,
    Percentiles,
    Spread,
    fit_cost,
    paired_ratio,
    percentiles,
    repetition_means,
    spread,
)


def test_spread_is_median_and_quartiles() -> None:
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(low=2.0, median=3.0, high=4.0)


def test_spread_of_one_sample_is_that_sample() -> None:
    assert spread([7.0]) == Spread(low=7.0, median=7.0, high=7.0)


def test_one_disturbed_repetition_does_not_move_the_median() -> None:
    assert spread([1.0, 1.0, 1.0, 1.0, 100.0]).median == 1.0


def test_ratio_is_taken_within_each_repetition() -> None:
    # the machine runs at half speed in the second half; the ratio is 2 all along
    assert paired_ratio([2.0, 2.0, 4.0, 4.0], [1.0, 1.0, 2.0, 2.0]) == Spread(low=2.0, median=2.0, high=2.0)


def test_ratio_of_different_numbers_of_repetitions_is_refused() -> None:
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
def test_repetitions_that_are_not_whole_are_refused(passes: int) -> None:
    with pytest.raises(ValueError, match="no whole repetitions"):
        repetition_means([1.0, 2.0, 3.0], passes)


def test_curve_is_found_again() -> None:
    made = CostCurve(fixed=2.0, linear=0.5, square=0.01)
    sizes = [1.0, 4.0, 16.0, 64.0, 256.0]
    found = fit_cost(sizes, [made.at(size) for size in sizes], square=True)
    assert (found.fixed, found.linear, found.square) == pytest.approx((2.0, 0.5, 0.01))


def test_straight_line_has_no_square() -> None:
    found = fit_cost([1.0, 2.0, 3.0], [3.0, 5.0, 7.0], square=False)
    assert (found.fixed, found.linear, found.square) == pytest.approx((1.0, 2.0, 0.0))


def test_no_part_of_a_cost_is_below_zero() -> None:
    found = fit_cost([1.0, 2.0, 3.0, 4.0], [1.0, 4.0, 9.1, 15.8], square=True)
    assert min(found.fixed, found.linear, found.square) >= 0
    assert found.square == pytest.approx(1.0, rel=0.02)


def test_curve_without_points_or_through_zero_is_refused() -> None:
    for sizes, times in (([], []), ([1.0], [0.0])):
        with pytest.raises(ValueError, match="times above 0"):
            fit_cost(sizes, times, square=True)
