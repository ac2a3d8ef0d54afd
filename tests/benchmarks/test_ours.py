"""This project's own contenders: a copy or two of the packed graph, loaded for real."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.checkpoint import cached_checkpoint
from benchmarks.contenders.contender import Bench, prepare_all
from benchmarks.contenders.ours import OURS
from benchmarks.growth import draw_rows
from benchmarks.model_shape import SHAPES


def test_copies_share_the_batches_and_change_no_bit(tmp_path: Path) -> None:
    shape, lines = SHAPES["tiny"], list[str]()
    rows = draw_rows([3, 17, 1, 9, 30, 2, 5], shape.vocabulary)
    with ExitStack() as undo:
        bench = Bench(
            checkpoint=cached_checkpoint(shape, tmp_path),
            cache=tmp_path,
            threads=2,
            max_tokens=64,
            say=lines.append,
            undo=undo,
        )
        one, two = prepare_all(OURS[:1], bench).contenders
        assert (one.options, two.options) == ("", "2 copies, 1 thread each")
        assert two.settings(len(rows))[0].name == f"{two.options}, sorted packed batches of 2"
        # with one batch the second copy would have nothing to do
        assert [setting.batch_rows for setting in two.settings(4)] == [2]
        assert two.settings(1) == []
        assert len(one.settings(1)) == 1
        whole = one.engine.embed(rows, len(rows))
        for size in (1, 2, 4):
            assert np.array_equal(two.engine.embed(rows, size), whole)
        assert len(two.engine.time(rows, 2, 3)) == 3
    assert "  comparing the written file with the reference" in lines
