"""Statistics on samples whose answers are known."""

from __future__ import annotations

import pytest

from benchmarks.samples import Spread, paired_ratio, spread


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
