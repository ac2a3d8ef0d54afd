"""How many passes each setting gets before the fastest one is selected."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from fake_engine import CompilingEngine, FakeEngine, fake_contender

from benchmarks.contenders.contender import ContenderUnavailableError
from benchmarks.measurement import select_settings
from benchmarks.record import Sample
from benchmarks.rows import Rows, Vectors
from benchmarks.trial import TOO_SLOW, Trial, TrialResults, sample_rows, try_settings

_ROWS = [[number] * (9 + number) for number in range(1, 25)]
_SIZES = (None, 1, 2, 4, 8, 16)
_BATCH_ROWS = [24, 1, 2, 4, 8, 16]


class _ColdEngine(FakeEngine):
    """Takes a second longer when it is timed at a batch size for the first time."""

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """Return the predefined times, plus a second if the engine is cold."""
        delay = 0.0 if batch_rows in self.timed else 1.0
        return [Sample(wall_s=each.wall_s + delay, cpu_s=1.0) for each in super().time(rows, batch_rows, passes)]


def _try(engine: FakeEngine, best: Trial | None = None) -> TrialResults:
    return try_settings(fake_contender(engine, batch_rows=_SIZES), _ROWS, best, competing=True)


def _best(batch_rows: int, wall_s: float) -> Trial:
    """Return a trial of other options."""
    contender = fake_contender(FakeEngine(), options="other", batch_rows=(batch_rows,))
    (setting,) = contender.settings(len(_ROWS))
    return Trial(setting=setting, samples=[Sample(wall_s=wall_s, cpu_s=wall_s)])


def _walls(trials: TrialResults) -> dict[int, list[float]]:
    return {each.setting.batch_rows: [sample.wall_s for sample in each.samples] for each in trials.entries}


def _given(*walls_s: float) -> Mapping[int, float]:
    return dict(zip(_BATCH_ROWS, walls_s, strict=True))


def test_two_settings_with_similar_long_passes_are_repeated() -> None:
    engine = FakeEngine(dict.fromkeys(_BATCH_ROWS, 10.0))
    trials = _try(engine)
    assert engine.timed == [*_BATCH_ROWS, 24, 1]
    assert [len(samples) for samples in _walls(trials).values()] == [2, 2, 1, 1, 1, 1]


def test_long_pass_far_from_the_best_is_not_repeated() -> None:
    engine = FakeEngine(_given(38.0, 10.0, 13.1, 14.0, 16.0, 20.0))
    _try(engine)
    assert engine.timed == [*_BATCH_ROWS, 1]


def test_long_passes_are_compared_with_the_best_of_other_options() -> None:
    engine = FakeEngine(_given(38.0, 10.0, 10.4, 14.0, 16.0, 20.0))
    _try(engine, _best(2, wall_s=7.0))
    assert engine.timed == [2, 1, 4, 8, 16, 24]
    engine.timed.clear()
    _try(engine, _best(2, wall_s=8.0))
    assert engine.timed == [2, 1, 4, 8, 16, 24, 1, 2]


def test_slow_options_are_tried_only_at_the_batch_sizes_nearest_to_the_best() -> None:
    engine = FakeEngine(_given(3.0, 3.0, 3.0, 4.6, 4.6, 3.0))
    trials = _try(engine, _best(6, wall_s=3.0))
    assert engine.timed == [8, 4]
    assert _walls(trials) == {8: [4.6], 4: [4.6]}
    assert trials.untried == {
        "sorted padded batches of 2": TOO_SLOW,
        "sorted padded batches of 16": TOO_SLOW,
        "one padded batch": TOO_SLOW,
        "sorted padded batches of 1": TOO_SLOW,
    }
    engine = FakeEngine(_given(3.0, 3.0, 3.0, 4.6, 4.4, 3.0))
    assert len(_walls(_try(engine, _best(6, wall_s=3.0)))) == 6


def test_cold_pass_of_a_probe_does_not_count() -> None:
    cold = _ColdEngine(dict.fromkeys(_BATCH_ROWS, 0.5))
    assert len(_walls(_try(cold, _best(4, wall_s=0.5)))) == 6


def test_short_passes_are_repeated_while_they_are_near_the_best() -> None:
    engine = FakeEngine(_given(1.9, 0.5, 0.6, 0.7, 0.9, 1.6))
    trials = _try(engine)
    # the cold first pass does not count; the second one must be within 1.5 times the best
    assert engine.timed == [*_BATCH_ROWS, 1, 1, 2, 2, 4, 4, 8, 16, 24]
    assert _walls(trials) == {24: [1.9], 1: [0.5] * 2, 2: [0.6] * 2, 4: [0.7] * 2, 8: [0.9], 16: [1.6]}
    cold = _ColdEngine(_given(0.9, 0.5, 0.6, 0.7, 0.9, 0.1))
    assert _walls(_try(cold))[16] == [0.1, 0.1]


def test_compilation_time_disqualifies_no_setting() -> None:
    engine = CompilingEngine(_given(4.0, 1.0, 0.8, 0.5, 1.1, 1.2))
    assert _walls(_try(engine))[4] == [0.5, 0.5]
    assert engine.timed.count(24) == 1
    # the warm-up also compiles for the last batch, which has three rows
    rows = _ROWS[:19]
    trials = try_settings(fake_contender(CompilingEngine({4: 2.5}), batch_rows=(4,)), rows, None, competing=True)
    assert _walls(trials) == {4: [2.5, 2.5]}


class _RecordingEngine(FakeEngine):
    """Records the lengths of the rows that it embeds."""

    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[list[int]] = []

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """Embed `rows` and record their lengths."""
        self.embedded.append([len(row) for row in rows])
        return super().embed(rows, batch_rows)


def test_warmup_is_a_batch_of_short_rows() -> None:
    engine = _RecordingEngine()
    try_settings(fake_contender(engine, batch_rows=(None, 1, 5)), _ROWS, None, competing=True)
    assert engine.embedded == [[8] * 24, [8], [8] * 9]


def test_single_setting_gets_one_pass() -> None:
    engine = FakeEngine()
    selection = select_settings([fake_contender(engine)], [[5, 6, 7]], FakeEngine().embed([[7]], 1), lambda _: None)
    assert engine.timed == [1]
    assert [len(scan.samples) for scan in selection.entries[0].scan] == [1]
    both = [fake_contender(FakeEngine({1: wall}), options=str(wall)) for wall in (1.0, 0.9)]
    (chosen,) = select_settings(both, [[5, 6, 7]], FakeEngine().embed([[7]], 1), lambda _: None).entries
    assert [len(scan.samples) for scan in chosen.scan] == [2, 2]


class _FailingEngine(FakeEngine):
    """Fails in the second pass with a batch size of 1."""

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """Return the predefined times, or fail."""
        if batch_rows == 1 and 1 in self.timed:
            raise ContenderUnavailableError("no memory")
        return super().time(rows, batch_rows, passes)


def test_setting_that_fails_in_a_later_pass_is_removed() -> None:
    engine = _FailingEngine(_given(3.0, 0.5, 1.0, 1.0, 1.0, 1.0))
    trials = _try(engine)
    assert list(_walls(trials)) == [24, 2, 4, 8, 16]
    assert [str(failure) for failure in trials.failures] == ["no memory"]
    assert trials.untried == {"sorted padded batches of 1": "no memory"}
    assert engine.releases == 1


def test_sample_has_the_mean_length_of_all_rows() -> None:
    rows = [[1] * length for length in (*range(20, 120), 200)][::-1]
    tokens = sum(map(len, rows))
    sample = sample_rows(rows, tokens // 4)  # rounded up to every fifth
    assert sample == [row for row in rows if row in sample]
    assert len(sample) == 20
    assert sum(map(len, sample)) / len(sample) == pytest.approx(tokens / len(rows), rel=0.03)


def test_sample_of_a_few_long_rows_keeps_enough_of_them_for_batches() -> None:
    assert len(sample_rows([[1] * 500] * 50, 100)) == 12
    assert sample_rows(_ROWS, None) is _ROWS
    assert sample_rows(_ROWS, 10_000) is _ROWS
    assert len(sample_rows(_ROWS, 100)) == 12


def test_settings_are_ranked_on_the_sample_only_where_it_fills_their_batches() -> None:
    engine = FakeEngine()
    sample = sample_rows(_ROWS, 100)
    trials = try_settings(fake_contender(engine, batch_rows=_SIZES), sample, None, competing=True, texts=len(_ROWS))
    assert [trial.setting.batch_rows for trial in trials.entries] == [1, 2, 4, 8]
    assert trials.entries[0].setting.name == "sorted padded batches of 1"
    assert engine.most_rows == len(sample)
    copies = dataclasses.replace(fake_contender(FakeEngine(), batch_rows=_SIZES), copies=2)
    assert [setting.batch_rows for setting in copies.settings(24, 12)] == [1, 2, 4, 8]
    assert [setting.batch_rows for setting in copies.settings(24, 8)] == [1, 2, 4]


def test_selected_setting_is_checked_with_all_rows() -> None:
    engine = FakeEngine({1: 9.0, 2: 3.0, 4: 5.0, 8: 6.0})
    selection = select_settings(
        [fake_contender(engine, batch_rows=_SIZES)], _ROWS, FakeEngine().embed(_ROWS, 1), lambda _: None, 100
    )
    (chosen,) = selection.entries
    assert chosen.setting.batch_rows == 2
    assert chosen.setting.texts == len(_ROWS)
    assert engine.most_rows == len(_ROWS)
