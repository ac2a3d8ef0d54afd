"""Graphs with stored prefixes return the bits of the graph without them, alone and in every batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tiny_checkpoint import write_checkpoint
from written_graph import WrittenGraph, min_cosine, official_vectors, random_rows, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.export.graph.prefixes import StoredPrefix, store_prefixes
from qwen3_triton.export.graph.state_tables import PREFIX_STREAM, PREFIX_VALUES
from qwen3_triton.export.verification.runtime import WrittenModel

MAX_TOKENS = 512
LONG, OTHER = random_rows([20, 9], seed=3)
SHORT = LONG[:7]
PREFIXES = [SHORT, LONG, OTHER]


def test_nested_prefixes_are_stored_once() -> None:
    stored = store_prefixes([LONG, OTHER, SHORT, LONG])
    assert sorted(stored.sequences) == sorted([tuple(LONG), tuple(OTHER)])
    starts = {ids: start for start, ids in zip(np.cumsum([0, len(stored.sequences[0])]), stored.sequences, strict=True)}
    assert stored.prefixes == (
        StoredPrefix(tuple(SHORT), starts[tuple(LONG)]),
        StoredPrefix(tuple(OTHER), starts[tuple(OTHER)]),
        StoredPrefix(tuple(LONG), starts[tuple(LONG)]),
    )
    assert stored.tokens == len(LONG) + len(OTHER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("prefixes") / "checkpoint")


@pytest.fixture(scope="module", params=[Precision.FP32, Precision.INT8])
def graphs(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[WrittenGraph, WrittenGraph]:
    """The graph with stored prefixes, and the one without."""
    output = tmp_path_factory.mktemp("graphs")
    return (
        write_graph(folder, output / "with", request.param, MAX_TOKENS, prefixes=PREFIXES),
        write_graph(folder, output / "without", request.param, MAX_TOKENS),
    )


def rows_with_prefixes() -> list[list[int]]:
    """Rows with each prefix, with none, with a part of one, of lengths at which attention changes its blocks."""
    tails = iter(random_rows([2, 3, 5, 110, 128, 129, 257, 300, 2, 4, 16, 130, 2, 8, 31, 260], seed=5))
    rows = [[*prefix, *next(tails)] for prefix in (LONG, LONG, LONG, LONG, LONG, LONG, LONG, LONG)]
    rows += [[*prefix, *next(tails)] for prefix in (SHORT, SHORT, SHORT, SHORT, OTHER, OTHER, OTHER, OTHER)]
    changed = [*LONG[:12], (LONG[12] + 1) % 300, *LONG[13:], 5]
    return [*rows, changed, LONG, SHORT, OTHER, [*LONG, 4], LONG[:3], [9], *random_rows([2, 40, 129, 384])]


def test_rows_have_the_same_bits(graphs: tuple[WrittenGraph, WrittenGraph]) -> None:
    reusing, plain = graphs
    rows = rows_with_prefixes()
    expected = plain.session.run_alone(rows)
    assert np.array_equal(reusing.session.run_alone(rows), expected)
    assert np.array_equal(reusing.session.run(rows), plain.session.run(rows))
    assert np.array_equal(reusing.session.run(rows), expected)


def test_batches_of_one_prefix_have_the_same_bits(graphs: tuple[WrittenGraph, WrittenGraph]) -> None:
    reusing, plain = graphs
    for prefix in PREFIXES:
        rows = [[*prefix, *tail] for tail in random_rows([2, 2, 7, 9, 30, 30, 61, 200, 3] * 4, seed=11)]
        assert np.array_equal(reusing.session.run(rows), plain.session.run_alone(rows))


def test_fp16_rows_have_the_same_bits_alone(folder: Path, tmp_path: Path) -> None:
    """In batches, the fp16 kernels of the CPU provider depend on the number of rows, even without stored prefixes."""
    rows = rows_with_prefixes()
    reusing = write_graph(folder, tmp_path / "with", Precision.FP16, MAX_TOKENS, prefixes=PREFIXES)
    expected = write_graph(folder, tmp_path / "without", Precision.FP16, MAX_TOKENS).session.run_alone(rows)
    assert np.array_equal(reusing.session.run_alone(rows), expected)
    assert min_cosine(reusing.session.run(rows), expected) > 1 - 1e-6


def test_transformers_agrees(folder: Path, graphs: tuple[WrittenGraph, WrittenGraph]) -> None:
    rows = rows_with_prefixes()
    is_int8 = any(name.endswith(".codes") for name in ir.load(graphs[0].file).graph.initializers)
    assert min_cosine(graphs[0].session.run(rows), official_vectors(folder, rows)) > (0.99 if is_int8 else 1 - 1e-10)


def test_every_prefix_is_found(graphs: tuple[WrittenGraph, WrittenGraph]) -> None:
    """Other tables change exactly the rows that begin with a stored prefix and have two more tokens."""
    reusing = graphs[0]
    rows = rows_with_prefixes()
    expected = reusing.session.run_alone(rows)
    changed = _with_negated_tables(reusing.file)
    uses = [any(len(row) >= len(prefix) + 2 and row[: len(prefix)] == prefix for prefix in PREFIXES) for row in rows]
    differs = (WrittenModel(changed).run(rows) != expected).any(axis=1)
    assert differs.tolist() == uses
    assert 0 < sum(uses) < len(rows)


def _with_negated_tables(file: Path) -> Path:
    model = ir.load(file)
    for name, value in model.graph.initializers.items():
        if name.rpartition(".")[2] in (PREFIX_VALUES, PREFIX_STREAM):
            table = value.const_value
            assert table is not None
            value.const_value = ir.tensor(-table.numpy(), name=name)
    changed = file.with_name("changed.onnx")
    ir.save(model, changed)
    return changed
