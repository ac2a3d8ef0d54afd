"""This project's own contenders with one and two copies of the packed graph, loaded in real sessions."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from fake_processors import ZEN_4

from benchmarks.checkpoint import cached_checkpoint
from benchmarks.contenders.contender import RunContext, prepare_all
from benchmarks.contenders.ours import OURS
from benchmarks.model_shape import SHAPES
from benchmarks.scaling import random_rows


def test_copies_give_bit_identical_outputs(tmp_path: Path) -> None:
    shape, lines = SHAPES["tiny"], list[str]()
    rows = random_rows([3, 17, 1, 9, 30, 2, 5], shape.vocabulary)
    with ExitStack() as cleanup:
        context = RunContext(
            checkpoint=cached_checkpoint(shape, tmp_path),
            cache=tmp_path,
            threads=2,
            max_tokens=64,
            log=lines.append,
            cleanup=cleanup,
            processor=ZEN_4,
        )
        one, pinned, two, single = prepare_all(OURS[:1], context).contenders
        assert (one.options, pinned.options, two.options) == ("", "2 threads, pinned", "2 copies, 1 thread each")
        assert single.options == "1 thread"
        assert two.settings(len(rows))[0].name == f"{two.options}, sorted packed batches of 1"
        # with a single batch the second copy would be idle
        assert [setting.batch_rows for setting in two.settings(4)] == [1, 2]
        assert two.settings(1) == []
        assert len(one.settings(1)) == 1
        whole = one.engine.embed(rows, len(rows))
        for size in (1, 2, 4):
            assert np.array_equal(two.engine.embed(rows, size), whole)
            assert np.array_equal(pinned.engine.embed(rows, size), whole)
        assert len(two.engine.time(rows, 2, 3)) == 3
    assert any(line.startswith("  writing fp32 graph") for line in lines)
