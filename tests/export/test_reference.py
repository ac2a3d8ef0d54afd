"""The reference computes rows in batches of similar lengths and returns them in their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoint import TinyCheckpoint, write_checkpoint

from qwen3_triton.export import SourceReference
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.verification.reference import ReferenceModel

ROWS = [[5, 6, 7], [1], [9] * 20, [5, 6, 7], [2, 3], [4] * 9, [1]]
DIFFERENT = 5
LAYERS = 2


@pytest.mark.parametrize(("batch_tokens", "batches"), [(1, DIFFERENT), (8, 4), (1000, 1)])
def test_rows_keep_their_order_and_equal_ones_are_computed_once(
    tmp_path: Path, batch_tokens: int, batches: int
) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(layers=LAYERS))
    model = ReferenceModel(open_checkpoint(SourceReference(str(source))))
    steps: list[tuple[int, int]] = []
    vectors = model.embed(ROWS, lambda done, total: steps.append((done, total)), batch_tokens).vectors
    assert steps == [(done + 1, LAYERS * batches) for done in range(LAYERS * batches)]
    for row, vector in zip(ROWS, vectors, strict=True):
        [alone] = model.embed([row], lambda _done, _total: None).vectors
        np.testing.assert_allclose(vector, alone, atol=1e-6)
