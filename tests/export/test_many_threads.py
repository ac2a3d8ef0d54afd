"""Results have the same bits alone and in batches with any number of threads, also with more threads than cores.

ONNX Runtime divides a product among threads by its size, and the order of its sums may depend on the division.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from written_graph import random_rows, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.export import SourceReference
from qwen3_triton.export.graph.summation import longest_prefix
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.verification.runtime import WrittenModel

# heads as wide as Qwen3's, because the division depends on the width
SHAPE = TinyCheckpoint(hidden=256, intermediate=256, heads=4, kv_heads=2, head_dim=128, max_positions=512, seed=4)
LENGTHS = [
    [2, 3, 9, 17, 21, 30, 38, 12, 5, 2, 7],
    [121, 190, 224, 270, 298, 304, 310, 329],
    [65, 66, 127, 128, 129, 130, 62, 63, 64],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("wide heads") / "checkpoint", SHAPE)


@pytest.mark.parametrize("reuses", [False, True], ids=["plain", "stored prefixes"])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_batches_have_the_bits_of_single_rows(folder: Path, tmp_path: Path, precision: Precision, reuses: bool) -> None:
    longest = longest_prefix(open_checkpoint(SourceReference(str(folder))).config)
    assert longest == 64
    prefixes = random_rows([20, longest], seed=9) if reuses else []
    graph = write_graph(folder, tmp_path / "graph", precision, max_tokens=512, prefixes=prefixes)
    expected = None
    for threads in (1, 2, 8, 16):
        model = WrittenModel(graph.file, threads=threads)
        for seed, lengths in enumerate(LENGTHS):
            for prefix in prefixes or [[]]:
                rows = [[*prefix, *row] for row in random_rows(lengths, seed=seed)]
                assert np.array_equal(model.run(rows), model.run_alone(rows)), f"{threads} threads"
        results = model.run(random_rows(LENGTHS[1]))
        expected = results if expected is None else expected
        assert np.array_equal(results, expected), f"{threads} threads"
