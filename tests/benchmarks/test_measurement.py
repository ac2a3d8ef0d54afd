"""The scan of settings, the accuracy limits, and interleaved timing."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from fake_engine import FakeEngine, FakeScorer, fake_contender

from benchmarks import measurement
from benchmarks.measurement import Parity, compare_outputs, interleave, select_settings
from benchmarks.record import Sample
from benchmarks.rows import Rows, Vectors

_ROWS = [[5, 6, 7], [1], [2, 3]]


def _reference() -> Vectors:
    return FakeEngine().embed(_ROWS, 1)


def test_fastest_setting_is_selected_and_the_scan_recorded() -> None:
    slow = fake_contender(FakeEngine({3: 9.0, 1: 4.0, 2: 5.0}), options="slow")
    fast = fake_contender(FakeEngine({3: 6.0, 1: 3.5, 2: 3.0}), options="fast")
    (chosen,) = select_settings([slow, fast], _ROWS, _reference(), lambda _: None).entries
    assert chosen.setting.name == "fast, sorted padded batches of 2"
    one, two, all_rows = "sorted padded batches of 1", "sorted padded batches of 2", "one padded batch"
    # later options begin with the batch size that was the best so far
    assert [scan.setting for scan in chosen.scan] == [
        *(f"slow, {batches}" for batches in (all_rows, one, two)),
        *(f"fast, {batches}" for batches in (one, two, all_rows)),
    ]
    assert chosen.reference_parity.min_cosine is not None
    assert chosen.reference_parity.min_cosine > 0.9999999


def test_program_with_wrong_embeddings_is_not_measured() -> None:
    selection = select_settings([fake_contender(FakeEngine())], _ROWS, -_reference(), lambda _: None)
    assert not selection.entries
    assert "min cosine -1.0" in selection.not_measured["p"]


def test_program_whose_cosines_are_nan_is_not_measured() -> None:
    selection = select_settings([fake_contender(FakeEngine())], _ROWS, np.nan * _reference(), lambda _: None)
    assert not selection.entries


def test_next_fastest_setting_is_selected_if_the_fastest_is_wrong() -> None:
    wrong = fake_contender(FakeScorer({3: 1.0, 1: 5.0, 2: 2.0}, batched_error=0.5), options="wrong")
    right = fake_contender(FakeScorer({3: 4.0, 1: 6.0, 2: 3.0}), options="right")
    lines: list[str] = []
    reference = FakeScorer().embed(_ROWS, 1)
    (chosen,) = select_settings([wrong, right], _ROWS, reference, lines.append).entries
    assert chosen.setting.name == "right, sorted padded batches of 2"
    assert chosen.reference_parity.max_score_error == 0.0
    rejected = {scan.setting: scan.rejected for scan in chosen.scan if scan.rejected}
    assert list(rejected) == ["wrong, one padded batch", "wrong, sorted padded batches of 2"]
    assert all("max score error 0.500000" in reason for reason in rejected.values())
    assert [line for line in lines if "rejected" in line] == [f"  rejected: {reason}" for reason in rejected.values()]


def test_reason_is_that_of_the_fastest_setting_if_all_are_wrong() -> None:
    contender = fake_contender(FakeScorer({3: 1.0, 1: 5.0, 2: 2.0}))
    reference = FakeScorer().embed(_ROWS, 1) + np.float32(0.5)
    selection = select_settings([contender], _ROWS, reference, lambda _: None)
    assert not selection.entries
    assert selection.not_measured["p"].startswith("one row alone: max score error 0.5")
    assert not contender.engine.timed  # type: ignore[attr-defined]


def test_reason_is_that_of_the_fastest_setting_if_all_are_wrong_in_batches() -> None:
    contender = fake_contender(FakeScorer({3: 1.0, 2: 2.0}, batched_error=0.5), batch_rows=(None, 2))
    selection = select_settings([contender], _ROWS, FakeScorer().embed(_ROWS, 1), lambda _: None)
    assert not selection.entries
    assert selection.not_measured["p"].startswith("one padded batch: max score error 0.5")


def test_refinements_of_slow_options_are_not_tried() -> None:
    slow, fast = FakeEngine(dict.fromkeys((1, 2, 3), 9.0)), FakeEngine(dict.fromkeys((1, 2, 3), 4.0))
    refined, useless = FakeEngine(dict.fromkeys((1, 2, 3), 3.0)), FakeEngine()
    contenders = [
        fake_contender(slow, options="slow"),
        fake_contender(useless, options="slow, pinned", refines="slow"),
        fake_contender(fast, options="fast"),
        fake_contender(refined, options="fast, pinned", refines="fast"),
        fake_contender(FakeEngine(), options="absent, pinned", refines="absent"),
    ]
    (chosen,) = select_settings(contenders, _ROWS, _reference(), lambda _: None).entries
    assert chosen.setting.contender.options == "fast, pinned"
    assert not useless.timed
    assert chosen.untried == {
        "slow, pinned": "too slow in the default layout",
        "absent, pinned": "it cannot run in the default layout",
    }


def test_options_outside_the_limits_are_not_timed_and_listed_with_the_reason() -> None:
    class Wrong(FakeEngine):
        def embed(self, rows: Rows, batch_rows: int) -> Vectors:
            return -super().embed(rows, batch_rows)

    wrong = Wrong({1: 0.1})
    contenders = [fake_contender(wrong, options="4 bits"), fake_contender(FakeEngine(), options="8 bits")]
    (chosen,) = select_settings(contenders, _ROWS, _reference(), lambda _: None).entries
    assert chosen.setting.contender.options == "8 bits"
    assert not wrong.timed
    assert chosen.untried["4 bits"].startswith("4 bits, one row alone: min cosine -1.0")


def test_options_for_a_common_prefix_need_one() -> None:
    keeps = dataclasses.replace(fake_contender(FakeEngine(), options="kept"), needs_common_prefix=True)
    plain = fake_contender(FakeEngine({1: 0.5}), options="plain")
    (chosen,) = select_settings([keeps, plain], _ROWS, _reference(), lambda _: None).entries
    assert chosen.untried == {"kept": "the texts have no common prefix"}
    rows = [[*range(8), *row] for row in _ROWS]
    (chosen,) = select_settings([keeps, plain], rows, _reference(), lambda _: None).entries
    assert "kept" not in chosen.untried
    assert any(scan.setting.startswith("kept") for scan in chosen.scan)


def test_outputs_that_depend_on_the_batch_are_recorded() -> None:
    engine = FakeEngine({1: 2.0}, batched_error=0.2)
    (chosen,) = select_settings([fake_contender(engine)], _ROWS, _reference(), lambda _: None).entries
    assert chosen.batched_parity is not None
    assert chosen.batched_parity.min_cosine is not None
    assert 0.99 < chosen.batched_parity.min_cosine < 0.999


def test_scores_are_compared_by_their_difference() -> None:
    scores, others = np.asarray([[0.5], [0.25]], np.float32), np.asarray([[0.5], [0.75]], np.float32)
    assert compare_outputs(scores, others) == Parity(max_score_error=0.5)
    assert compare_outputs(_reference(), _reference()).max_score_error is None


@pytest.mark.parametrize("shift", [0.01, np.nan])
def test_program_with_wrong_scores_is_not_measured(shift: float) -> None:
    contender = fake_contender(FakeScorer())
    selection = select_settings([contender], _ROWS, FakeScorer().embed(_ROWS, 1), lambda _: None)
    assert [entry.reference_parity.max_score_error for entry in selection.entries] == [0.0]
    shifted = select_settings([contender], _ROWS, FakeScorer().embed(_ROWS, 1) + np.float32(shift), lambda _: None)
    assert not shifted.entries
    assert "above the limit of 0.001" in shifted.not_measured["p"]


def test_min_cosine_is_that_of_the_worst_row() -> None:
    left, right = np.asarray([[1, 0], [1, 1]], np.float32), np.asarray([[2, 0], [0, 1]], np.float32)
    assert compare_outputs(left, right).min_cosine == pytest.approx(0.5**0.5, abs=1e-7)


def _record_run(executed: list[str], name: str) -> list[Sample]:
    executed.append(name)
    return [Sample(wall_s=1.0, cpu_s=1.0)] * 2


def test_runs_are_interleaved_in_changing_order() -> None:
    executed: list[str] = []
    runs = [functools.partial(_record_run, executed, name) for name in "abc"]
    timings = interleave(runs, 6, 1, lambda _: None)
    orders = ["".join(executed[first : first + 3]) for first in range(0, len(executed), 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) > 1
    assert [len(samples) for samples in timings.samples] == [12] * 3
    assert [len(samples) for samples in timings.warmups] == [2] * 3
    assert len(timings.load_average) == 6


@pytest.mark.parametrize(("enough_s", "repetitions"), [(0.0, 3), (0.25, 3), (0.45, 5), (10.0, 6)])
def test_no_repetition_starts_when_time_is_up(
    monkeypatch: pytest.MonkeyPatch, enough_s: float, repetitions: int
) -> None:
    now_s = itertools.count()

    class _Clock:
        """Every pause, and thus every repetition of one run, takes 0.1 s."""

        seconds = 0.0
        perf_counter = staticmethod(lambda: _Clock.seconds)

        @staticmethod
        def sleep(_seconds: float) -> None:
            _Clock.seconds = next(now_s) / 10

    monkeypatch.setattr(measurement, "time", _Clock)
    timings = interleave([lambda: [Sample(wall_s=1.0, cpu_s=1.0)]], 6, 1, lambda _: None, enough_s=enough_s)
    assert len(timings.samples[0]) == len(timings.load_average) == repetitions
