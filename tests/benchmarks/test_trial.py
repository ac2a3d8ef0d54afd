"""Which passes a setting is given before the fastest one is chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fake_engine import CompilingEngine, GivenEngine, given_contender

from benchmarks.batches import BATCH_ROWS
from benchmarks.contenders.contender import CannotRun
from benchmarks.measurement import choose_finalists
from benchmarks.record import Sample
from benchmarks.rows import Rows, Vectors
from benchmarks.trial import Trials, try_settings

_ROWS = [[number] * (9 + number) for number in range(1, 25)]
_SIZES = (None, *BATCH_ROWS)
_PLACES = [24, *BATCH_ROWS]


class _ColdEngine(GivenEngine):
    """Takes a second more the first time that it is timed at a batch size."""

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """What was given, and what starting takes."""
        more = 0.0 if batch_rows in self.timed else 1.0
        return [Sample(wall_s=each.wall_s + more, cpu_s=1.0) for each in super().time(rows, batch_rows, passes)]


def _tried(engine: GivenEngine, best_s: float = math.inf) -> Trials:
    return try_settings(given_contender(engine, batch_rows=_SIZES), _ROWS, best_s, rivals=True)


def _walls(trials: Trials) -> dict[int, list[float]]:
    return {each.setting.batch_rows: [sample.wall_s for sample in each.samples] for each in trials.entries}


def _given(*walls_s: float) -> Mapping[int, float]:
    return dict(zip(_PLACES, walls_s, strict=True))


def test_of_long_passes_that_are_alike_two_settings_go_twice() -> None:
    engine = GivenEngine(dict.fromkeys(_PLACES, 10.0))
    trials = _tried(engine)
    assert engine.timed == [*_PLACES, 24, 1]
    assert [len(samples) for samples in _walls(trials).values()] == [2, 2, 1, 1, 1, 1]


def test_long_pass_out_of_reach_of_the_best_is_not_repeated() -> None:
    engine = GivenEngine(_given(38.0, 10.0, 13.1, 14.0, 16.0, 20.0))
    _tried(engine)
    assert engine.timed == [*_PLACES, 1]


def test_long_passes_are_held_against_what_other_options_reached() -> None:
    engine = GivenEngine(_given(38.0, 10.0, 10.4, 14.0, 16.0, 20.0))
    _tried(engine, best_s=7.0)
    assert engine.timed == _PLACES
    _tried(engine, best_s=8.0)
    assert engine.timed == [*_PLACES, *_PLACES, 1, 2]


def test_short_passes_count_when_warm_and_go_on_while_they_are_near_the_best() -> None:
    engine = GivenEngine(_given(1.9, 0.5, 0.6, 0.7, 0.9, 1.6))
    trials = _tried(engine)
    # a cold pass is held against none, one and a half times the best at the second is
    assert engine.timed == [*_PLACES, 1, 1, 2, 2, 4, 4, 8, 16, 24]
    assert _walls(trials) == {24: [1.9], 1: [0.5] * 2, 2: [0.6] * 2, 4: [0.7] * 2, 8: [0.9], 16: [1.6]}
    cold = _ColdEngine(_given(0.9, 0.5, 0.6, 0.7, 0.9, 0.1))
    assert _walls(_tried(cold))[16] == [0.1, 0.1]


def test_compiling_rules_no_setting_out() -> None:
    engine = CompilingEngine(_given(4.0, 1.0, 0.8, 0.5, 1.1, 1.2))
    assert _walls(_tried(engine))[4] == [0.5, 0.5]
    assert engine.timed.count(24) == 1
    # a last batch of three rows is compiled for as well
    rows = _ROWS[:19]
    trials = try_settings(given_contender(CompilingEngine({4: 2.5}), batch_rows=(4,)), rows, 2.5, rivals=True)
    assert _walls(trials) == {4: [2.5, 2.5]}


class _Asked(GivenEngine):
    """Keeps what it was to embed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[int]] = []

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """As given."""
        self.asked.append([len(row) for row in rows])
        return super().embed(rows, batch_rows)


def test_warming_up_costs_a_batch_of_short_rows() -> None:
    engine = _Asked()
    try_settings(given_contender(engine, batch_rows=(None, 1, 5)), _ROWS, math.inf, rivals=True)
    assert engine.asked == [[8] * 24, [8], [8] * 9]


def test_program_with_one_setting_goes_once() -> None:
    engine = GivenEngine()
    finalists = choose_finalists([given_contender(engine)], [[5, 6, 7]], GivenEngine().embed([[7]], 1), lambda _: None)
    assert engine.timed == [1]
    assert [len(scan.samples) for scan in finalists.entries[0].scan] == [1]
    both = [given_contender(GivenEngine({1: wall}), options=str(wall)) for wall in (1.0, 0.9)]
    (chosen,) = choose_finalists(both, [[5, 6, 7]], GivenEngine().embed([[7]], 1), lambda _: None).entries
    assert [len(scan.samples) for scan in chosen.scan] == [2, 2]


class _FailingAgain(GivenEngine):
    """Fails at the second pass of a batch size."""

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """What was given, once."""
        if batch_rows == 1 and 1 in self.timed:
            raise CannotRun("no memory")
        return super().time(rows, batch_rows, passes)


def test_setting_that_fails_at_a_later_pass_is_out() -> None:
    engine = _FailingAgain(_given(3.0, 0.5, 1.0, 1.0, 1.0, 1.0))
    trials = _tried(engine)
    assert list(_walls(trials)) == [24, 2, 4, 8, 16]
    assert [str(failure) for failure in trials.failures] == ["no memory"]
    assert engine.rests == 1
