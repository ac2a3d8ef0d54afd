"""The scan, the gate before a contender's time, and the turns that contenders take."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from fake_engine import GivenEngine, GivenScores, given_contender

from benchmarks.measurement import Agreement, agreement, choose_finalists, interleave, min_cosine
from benchmarks.record import Sample
from benchmarks.rows import Vectors

_ROWS = [[5, 6, 7], [1], [2, 3]]


def _truth() -> Vectors:
    return GivenEngine().embed(_ROWS, 1)


def test_fastest_setting_of_all_options_is_chosen_and_the_scan_kept() -> None:
    slow = given_contender(GivenEngine({3: 9.0, 1: 4.0, 2: 5.0}), options="slow")
    fast = given_contender(GivenEngine({3: 6.0, 1: 3.5, 2: 3.0}), options="fast")
    (chosen,) = choose_finalists([slow, fast], _ROWS, _truth(), lambda _: None).entries
    assert chosen.setting.name == "fast, sorted padded batches of 2"
    assert [scan.setting for scan in chosen.scan] == [
        f"{options}, {batches}"
        for options in ("slow", "fast")
        for batches in ("one padded batch", "sorted padded batches of 1", "sorted padded batches of 2")
    ]
    assert chosen.truth.min_cosine is not None
    assert chosen.truth.min_cosine > 0.9999999


def test_wrong_vectors_keep_a_program_out() -> None:
    finalists = choose_finalists([given_contender(GivenEngine())], _ROWS, -_truth(), lambda _: None)
    assert not finalists.entries
    assert "min cosine -1.0" in finalists.absent["p"]


def test_vectors_that_are_no_numbers_keep_a_program_out() -> None:
    finalists = choose_finalists([given_contender(GivenEngine())], _ROWS, np.nan * _truth(), lambda _: None)
    assert not finalists.entries


def test_next_fastest_setting_is_taken_where_the_fastest_is_wrong() -> None:
    wrong = given_contender(GivenScores({3: 1.0, 1: 5.0, 2: 2.0}, wrong_in_company=0.5), options="wrong")
    right = given_contender(GivenScores({3: 4.0, 1: 6.0, 2: 3.0}), options="right")
    lines: list[str] = []
    truth = GivenScores().embed(_ROWS, 1)
    (chosen,) = choose_finalists([wrong, right], _ROWS, truth, lines.append).entries
    assert chosen.setting.name == "right, sorted padded batches of 2"
    assert chosen.truth.max_score_error == 0.0
    rejected = {scan.setting: scan.rejected for scan in chosen.scan if scan.rejected}
    assert list(rejected) == ["wrong, one padded batch", "wrong, sorted padded batches of 2"]
    assert all("a score differs by 0.500000" in reason for reason in rejected.values())
    assert [line for line in lines if "passed over" in line] == [f"  passed over: {why}" for why in rejected.values()]


def test_program_that_is_always_wrong_is_out_with_the_reason_of_its_fastest() -> None:
    contender = given_contender(GivenScores({3: 1.0, 1: 5.0, 2: 2.0}))
    truth = GivenScores().embed(_ROWS, 1) + np.float32(0.5)
    finalists = choose_finalists([contender], _ROWS, truth, lambda _: None)
    assert not finalists.entries
    assert finalists.absent["p"].startswith("one padded batch: a score differs by 0.5")


def test_answers_that_depend_on_their_company_are_told() -> None:
    engine = GivenEngine({1: 2.0}, wrong_in_company=0.2)
    (chosen,) = choose_finalists([given_contender(engine)], _ROWS, _truth(), lambda _: None).entries
    assert chosen.company is not None
    assert chosen.company.min_cosine is not None
    assert 0.99 < chosen.company.min_cosine < 0.999


def test_scores_are_compared_by_their_difference() -> None:
    scores, others = np.asarray([[0.5], [0.25]], np.float32), np.asarray([[0.5], [0.75]], np.float32)
    assert agreement(scores, others) == Agreement(max_score_error=0.5)
    assert agreement(_truth(), _truth()).max_score_error is None


@pytest.mark.parametrize("shift", [0.01, np.nan])
def test_wrong_scores_keep_a_program_out(shift: float) -> None:
    contender = given_contender(GivenScores())
    finalists = choose_finalists([contender], _ROWS, GivenScores().embed(_ROWS, 1), lambda _: None)
    assert [entry.truth.max_score_error for entry in finalists.entries] == [0.0]
    shifted = choose_finalists([contender], _ROWS, GivenScores().embed(_ROWS, 1) + np.float32(shift), lambda _: None)
    assert not shifted.entries
    assert "more than 0.001" in shifted.absent["p"]


def test_min_cosine_is_that_of_the_worst_row() -> None:
    left, right = np.asarray([[1, 0], [1, 1]], np.float32), np.asarray([[2, 0], [0, 1]], np.float32)
    assert abs(min_cosine(left, right) - 0.5**0.5) < 1e-7


def _take_turn(turns: list[str], name: str) -> list[Sample]:
    turns.append(name)
    return [Sample(wall_s=1.0, cpu_s=1.0)] * 2


def test_contenders_take_turns_in_changing_order() -> None:
    turns: list[str] = []
    runs = [functools.partial(_take_turn, turns, name) for name in "abc"]
    timings = interleave(runs, 6, 1, lambda _: None)
    rounds = ["".join(turns[first : first + 3]) for first in range(0, len(turns), 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert len(set(rounds)) > 1
    assert [len(samples) for samples in timings.samples] == [12] * 3
    assert [len(samples) for samples in timings.warmups] == [2] * 3
    assert len(timings.load_average) == 6
