"""Outputs of the written graph against transformers in fp32: padded and packed, alone and batched."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from written_graph import (
    BLOCK_BOUNDARY_LENGTHS,
    WrittenGraph,
    min_cosine,
    official_vectors,
    random_rows,
    write_graph,
)

from qwen3_triton.client import Precision
from qwen3_triton.export import SourceReference, UnsupportedCheckpointError
from qwen3_triton.export.passes.rescale import NO_RESCALE, choose_rescale
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.verification.reference import ReferenceModel

MAX_TOKENS = 64
LENGTHS = [1, 2, 3, 7, 16, 33, MAX_TOKENS]
ROWS = random_rows(LENGTHS)
GATES = {Precision.FP32: 0.999999, Precision.FP16: 0.9999}

SHAPES = {
    "four-queries-per-key": TinyCheckpoint(heads=4, kv_heads=1, head_dim=32, hidden=48, layers=3),
    "one-query-per-key": TinyCheckpoint(heads=3, kv_heads=3, head_dim=16, hidden=40, layers=3),
    "one-layer": TinyCheckpoint(layers=1, heads=2, kv_heads=1, head_dim=64, hidden=24, intermediate=20),
    "wide": TinyCheckpoint(layers=3, heads=2, kv_heads=2, head_dim=16, hidden=96, intermediate=17),
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> WrittenGraph:
    folder = tmp_path_factory.mktemp("graph")
    return write_graph(write_checkpoint(folder / "tiny", TinyCheckpoint(layers=3)), folder / "out")


@pytest.fixture(scope="module")
def half_graph(tmp_path_factory: pytest.TempPathFactory) -> WrittenGraph:
    folder = tmp_path_factory.mktemp("half")
    return write_graph(write_checkpoint(folder / "tiny", TinyCheckpoint(layers=3)), folder / "out", Precision.FP16)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("tiny", SHAPES.values(), ids=SHAPES.keys())
def test_equals_transformers(tmp_path: Path, tiny: TinyCheckpoint, precision: Precision) -> None:
    source = write_checkpoint(tmp_path / "tiny", tiny)
    checkpoint = open_checkpoint(SourceReference(str(source)))
    reference = ReferenceModel(checkpoint).embed(ROWS, lambda _done, _total: None)
    rescale = choose_rescale(reference.peaks) if precision is Precision.FP16 else NO_RESCALE
    vectors = write_graph(source, tmp_path / "out", precision, MAX_TOKENS, rescale).session.run(ROWS)
    assert vectors.shape == (len(ROWS), tiny.hidden)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-6)
    assert min_cosine(vectors, official_vectors(source, ROWS)) >= GATES[precision]
    assert min_cosine(vectors, reference.vectors) >= GATES[precision]


def test_vectors_differ_between_rows(graph: WrittenGraph) -> None:
    """Otherwise a model with constant output could pass the cosine gates."""
    vectors = graph.session.run(ROWS).astype(np.float64)
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -1)
    assert similarities.max() < 0.9


def test_vectors_depend_on_token_order_and_on_each_token(graph: WrittenGraph) -> None:
    row = ROWS[-1][:12]
    swapped = [row[1], row[0], *row[2:]]
    vectors = graph.session.run([row, swapped, [*row[:5], (row[5] + 1) % 300, *row[6:]]])
    assert min_cosine(vectors[:1], vectors[1:2]) < 0.9999
    assert min_cosine(vectors[:1], vectors[2:3]) < 0.9999


def padded(row: list[int], left: int, right: int, inside: int, rng: random.Random) -> list[int]:
    inner = list(row)
    for _ in range(inside):
        inner.insert(rng.randrange(1, len(inner) + 1), -rng.randrange(1, 200))
    return [-1] * left + inner + [-7] * right


@pytest.mark.parametrize(
    ("left", "right", "inside"), [(5, 0, 0), (0, 5, 0), (0, 0, 9), (3, 4, 5)], ids=["left", "right", "inside", "all"]
)
def test_padding_does_not_change_a_bit(graph: WrittenGraph, left: int, right: int, inside: int) -> None:
    rng = random.Random(left + right + inside)
    rows = [padded(row, left, right, inside, rng) for row in ROWS]
    assert all(sum(id_ >= 0 for id_ in row) == length for row, length in zip(rows, LENGTHS, strict=True))
    assert np.array_equal(graph.session.run(rows), graph.session.run(ROWS))


@pytest.mark.parametrize("name", ["graph", "half_graph"])
@pytest.mark.parametrize("seed", range(3))
def test_alone_equals_batched(name: str, seed: int, request: pytest.FixtureRequest) -> None:
    """Bit-identical in fp32. For fp16, products of a single token use another kernel."""
    session = request.getfixturevalue(name).session
    rng = random.Random(seed)
    rows = random_rows([rng.randrange(1, MAX_TOKENS + 1) for _ in range(24)], seed=seed)
    alone = session.run_alone(rows)
    order = list(range(len(rows)))
    rng.shuffle(order)
    batched = session.run([padded(rows[index], rng.randrange(4), rng.randrange(4), 2, rng) for index in order])
    if name == "half_graph":
        assert min_cosine(batched, alone[order]) >= 0.9999999
    else:
        assert np.array_equal(batched, alone[order])


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_several_groups_are_batch_invariant(tmp_path: Path, kv_heads: int) -> None:
    """Several groups, and texts with lengths around the block size; with four key heads a row has a single query."""
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(kv_heads=kv_heads, max_positions=512))
    session = write_graph(source, tmp_path / "out", max_tokens=512).session
    rng = random.Random(5)
    lengths = [*(rng.randrange(1, 512) for _ in range(16)), *BLOCK_BOUNDARY_LENGTHS]
    rows = random_rows(lengths)
    order = list(range(len(rows)))
    rng.shuffle(order)
    alone = session.run_alone(rows)
    assert np.array_equal(session.run([rows[index] for index in order]), alone[order])
    assert min_cosine(alone, official_vectors(source, rows)) >= 0.999999


BAD_ROWS = {
    "padding-only": [-1, -1, -3],
    "zero-width": [],
    "first-id-past-the-vocabulary": [5, 300, 6],
    "huge-id": [2**62],
    "longer-than-max-tokens": [1] * (MAX_TOKENS + 1),
}


@pytest.mark.parametrize("name", ["graph", "half_graph"])
@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_bad_row_is_nan_and_affects_no_other_row(name: str, bad: list[int], request: pytest.FixtureRequest) -> None:
    session = request.getfixturevalue(name).session
    truth = session.run(ROWS)
    for index in range(len(ROWS) + 1):
        vectors = session.run([*ROWS[:index], bad, *ROWS[index:]])
        assert np.isnan(vectors[index]).all()
        assert np.array_equal(np.delete(vectors, index, axis=0), truth)


def test_extreme_valid_ids_and_lengths_are_finite(graph: WrittenGraph) -> None:
    rows = [[0], [299], [1] * MAX_TOKENS, [-(2**62), 4]]
    assert np.isfinite(graph.session.run(rows)).all()


@pytest.mark.parametrize("batch", [[bad] for bad in BAD_ROWS.values()] + [list(BAD_ROWS.values())])
def test_batch_of_only_bad_rows_is_nan(graph: WrittenGraph, batch: list[list[int]]) -> None:
    vectors = graph.session.run(batch)
    assert vectors.shape == (len(batch), 40)
    assert np.isnan(vectors).all()


def test_random_batches_with_bad_rows_equal_single_rows(graph: WrittenGraph) -> None:
    rng = random.Random(3)
    alone = graph.session.run_alone(ROWS)
    bad_rows = list(BAD_ROWS.values())
    for _ in range(25):
        picks = [rng.randrange(len(ROWS) + len(bad_rows)) for _ in range(rng.randrange(1, 12))]
        batch = [ROWS[pick] if pick < len(ROWS) else bad_rows[pick - len(ROWS)] for pick in picks]
        vectors = graph.session.run(batch)
        for pick, answer in zip(picks, vectors, strict=True):
            if pick < len(ROWS):
                assert np.array_equal(answer, alone[pick])
            else:
                assert np.isnan(answer).all()


TRANSFORMERS_5 = int(transformers.__version__.split(".")[0]) >= 5
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "linear-old-spelling": {"type": "linear", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}


@pytest.mark.parametrize("spelling", ["rope_theta", "rope_parameters"])
@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS.keys())
def test_rope_scaling_equals_transformers(tmp_path: Path, scaling: Mapping[str, Any], spelling: str) -> None:
    if "type" in scaling and spelling == "rope_parameters":
        scaling = {"rope_type": scaling["type"], **scaling}
    tiny = TinyCheckpoint(rope_scaling=scaling, rope_spelling=spelling, theta=50000.0)
    source = write_checkpoint(tmp_path / "tiny", tiny)
    # transformers 4 silently ignores rope_parameters
    equivalent = tiny if TRANSFORMERS_5 else dataclasses.replace(tiny, rope_spelling="rope_theta")
    truth = official_vectors(write_checkpoint(tmp_path / "equivalent", equivalent), ROWS)
    assert min_cosine(write_graph(source, tmp_path / "out").session.run(ROWS), truth) >= 0.999999
    if scaling:
        plain = write_checkpoint(tmp_path / "plain", TinyCheckpoint(theta=50000.0))
        assert min_cosine(official_vectors(plain, ROWS), truth) < 0.9999


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_length_dependent_rope_is_rejected(tmp_path: Path, kind: str) -> None:
    tiny = TinyCheckpoint(rope_scaling={"rope_type": kind, "factor": 2.0})
    source = write_checkpoint(tmp_path / "tiny", tiny)
    with pytest.raises(UnsupportedCheckpointError, match=f"rope type '{kind}'"):
        open_checkpoint(SourceReference(str(source)))
