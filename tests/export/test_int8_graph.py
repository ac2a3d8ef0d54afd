"""The int8 graph against transformers and against a simulation in numpy; batch invariance."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from int8_arithmetic import simulated_vectors, to_codes
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from watched_graph import group_nodes, run_watched
from written_graph import BLOCK_BOUNDARY_LENGTHS, WrittenGraph, min_cosine, official_vectors, random_rows, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.export import ExportError
from qwen3_triton.export.architectures import DecoderConfig
from qwen3_triton.export.passes.rotate import rotate_stream
from qwen3_triton.export.passes.rotation import make_rotation
from qwen3_triton.export.sources.weights import Weights
from qwen3_triton.export.verification.runtime import WrittenModel, pad_row

MAX_TOKENS = 64
ROWS = random_rows([1, 2, 3, 7, 16, 33, MAX_TOKENS])
# random weights with few columns have larger quantization errors than trained models
GATE = 0.995
STEP = 2.5 / 127
"""Small enough that the largest channels of norm outputs are clipped."""

SHAPES = {
    "four-queries-per-key": TinyCheckpoint(heads=4, kv_heads=1, head_dim=32, hidden=48, layers=3),
    "one-query-per-key": TinyCheckpoint(heads=3, kv_heads=3, head_dim=16, hidden=40, layers=3),
    "one-layer": TinyCheckpoint(layers=1, heads=2, kv_heads=1, head_dim=64, hidden=24, intermediate=20),
    "odd-widths": TinyCheckpoint(layers=3, heads=2, kv_heads=2, head_dim=16, hidden=93, intermediate=17),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("int8") / "tiny", TinyCheckpoint(layers=3))


@pytest.fixture(scope="module")
def graph(source: Path, tmp_path_factory: pytest.TempPathFactory) -> WrittenGraph:
    return write_graph(source, tmp_path_factory.mktemp("int8") / "out", Precision.INT8)


@pytest.fixture(scope="module")
def stepped(source: Path, tmp_path_factory: pytest.TempPathFactory) -> WrittenGraph:
    """A graph with one step for all norm outputs."""
    return write_graph(source, tmp_path_factory.mktemp("int8") / "stepped", Precision.INT8, norm_output_scale=STEP)


@pytest.mark.parametrize("tiny", SHAPES.values(), ids=SHAPES.keys())
def test_graph_is_close_to_transformers_and_closer_to_simulated_int8(tmp_path: Path, tiny: TinyCheckpoint) -> None:
    source = write_checkpoint(tmp_path / "tiny", tiny)
    vectors = write_graph(source, tmp_path / "out", Precision.INT8, MAX_TOKENS).session.run(ROWS)
    assert vectors.shape == (len(ROWS), tiny.hidden)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-6)
    truth = official_vectors(source, ROWS)
    assert min_cosine(vectors, truth) >= GATE
    # only codes next to a rounding boundary may differ
    assert min_cosine(vectors, simulated_vectors(source, ROWS)) >= 0.9999
    assert min_cosine(vectors, truth) < 0.99999


def test_product_is_the_exact_sum_of_codes(graph: WrittenGraph) -> None:
    """Codes, scale and product of one operand are compared with integer arithmetic."""
    nodes = group_nodes(onnx.load(graph.file, load_external_data=False))
    [product] = [node for node in nodes if node.name == "layers.1.mlp.gate"]
    codes, weight, _, weight_scale, _ = product.input
    [quantize] = [node for node in nodes if node.output[0] == codes]
    rows, scale, zero = quantize.input
    values = run_watched(graph.file, [rows, scale, zero, codes, product.output[0]], ROWS, fuse=False) | stored(graph)
    peaks = np.abs(values[rows]).max(axis=1, keepdims=True)
    assert values[scale] == pytest.approx(peaks / 127, rel=1e-6)
    assert (values[zero] == 128).all()
    assert np.array_equal(values[codes].astype(np.int32) - 128, np.rint(values[rows] / values[scale]).astype(np.int32))
    assert values[codes].min() >= 1
    sums = (values[codes].astype(np.int64) - 128) @ values[weight].astype(np.int64)
    assert np.abs(sums).max() < 2**24
    assert np.array_equal(values[product.output[0]], sums.astype(np.float32) * values[weight_scale])


def test_norm_outputs_have_one_step_and_are_clipped(stepped: WrittenGraph) -> None:
    nodes = group_nodes(onnx.load(stepped.file, load_external_data=False))
    [product] = [node for node in nodes if node.name == "layers.1.mlp.gate"]
    codes, weight, step, weight_scale, _ = product.input
    [quantize] = [node for node in nodes if node.output[0] == codes]
    [silu] = [node for node in nodes if node.name == "layers.1.mlp.silu"]
    # the product needs no scale per row, and its 56 columns are padded
    [used] = [node for node in nodes if node.name == "layers.1.mlp.gate.used"]
    assert used.input[0] == product.output[0]
    assert list(silu.input) == [used.output[0]]
    rows = quantize.input[0]
    values = run_watched(stepped.file, [rows, codes, product.output[0]], ROWS, fuse=False) | stored(stepped)
    assert values[step] == np.float32(STEP)
    assert values[quantize.input[1]] == np.float32(STEP)
    assert np.abs(values[rows]).max() > 129 * STEP
    clipped = np.clip(np.rint(values[rows] / np.float32(STEP)), -128, 127)
    assert np.array_equal(values[codes].astype(np.int32) - 128, clipped.astype(np.int32))
    sums = clipped.astype(np.int64) @ values[weight].astype(np.int64)
    assert values[product.output[0]] == pytest.approx(sums * values[weight_scale] * STEP, rel=1e-5, abs=1e-6)


def test_rotated_stream_fuses_norm_and_rounding(source: Path, tmp_path: Path) -> None:
    def rotate(weights: Weights, config: DecoderConfig) -> Weights:
        return rotate_stream(weights, config, make_rotation(config.hidden))

    rotated = write_graph(source, tmp_path / "out", Precision.INT8, change=rotate, norm_output_scale=STEP)
    nodes = group_nodes(onnx.load(rotated.file, load_external_data=False))
    producer = {output: node for node in nodes for output in node.output}
    for name in ("layers.0.attention.qkv", "layers.1.attention.qkv", "layers.2.mlp.gate"):
        codes = producer[name].input[0]
        rows, scale, _ = producer[codes].input
        values = run_watched(rotated.file, [rows, scale, codes], ROWS, fuse=False)
        assert values[scale] == pytest.approx(
            STEP * np.sqrt((values[rows] ** 2).mean(1, keepdims=True) + 1e-6), rel=1e-5
        )
        clipped = np.clip(np.rint(values[rows] / values[scale]), -128, 127).astype(np.int32)
        assert np.array_equal(values[codes].astype(np.int32) - 128, clipped)
        assert clipped.min() == -128
    # values of the last layer are weighted sums of norm outputs in floats
    assert producer[producer["layers.2.attention.k"].input[0]].input[0] in producer
    norms = [node.name for node in nodes if node.op_type.endswith("SimplifiedLayerNormalization")]
    assert {name for name in norms if name.endswith(".norm")} == {"layers.2.attention.norm", "head.norm"}
    fine = write_graph(source, tmp_path / "fine", Precision.INT8, change=rotate, norm_output_scale=5 / 127)
    assert min_cosine(fine.session.run(ROWS), official_vectors(source, ROWS)) >= 0.99


def stored(graph: WrittenGraph) -> dict[str, NDArray[Any]]:
    initializers = onnx.load(graph.file).graph.initializer
    return {tensor.name: onnx.numpy_helper.to_array(tensor, str(graph.file.parent)) for tensor in initializers}


def test_weights_are_quantized_per_output_channel(source: Path, graph: WrittenGraph) -> None:
    tensors = {name: tensor.numpy() for name, tensor in load_file(source / "model.safetensors").items()}
    codes, scales = to_codes(tensors["layers.1.mlp.down_proj.weight"])
    assert np.array_equal(stored(graph)["layers.1.mlp.down.codes"][:, : len(codes)], codes.T)
    assert np.array_equal(stored(graph)["layers.1.mlp.down.scale"][: len(codes)], scales[:, 0])
    assert np.abs(codes).max(axis=1).min() == 127
    codes, scales = to_codes(tensors["embed_tokens.weight"])
    assert np.array_equal(stored(graph)["embedding.table.codes"], codes)
    assert np.array_equal(stored(graph)["embedding.table.scale"], scales)


def test_products_have_columns_that_every_kernel_computes_right(graph: WrittenGraph) -> None:
    """On processors with AMX, ONNX Runtime 1.23 returns wrong sums for other numbers of columns."""
    nodes = group_nodes(onnx.load(graph.file, load_external_data=False))
    weights = {node.name: stored(graph)[node.input[1]] for node in nodes if node.op_type == "MatMulIntegerToFloat"}
    assert len(weights) > 10
    assert [name for name, codes in weights.items() if codes.shape[1] % 16] == []
    # hidden 40 and intermediate 56 are padded with zeros
    for name, columns in (("layers.1.mlp.down", 40), ("layers.1.mlp.gate", 56)):
        assert weights[name].shape[1] > columns
        assert not weights[name][:, columns:].any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("form", ["graph", "stepped"])
def test_batch_padding_and_thread_count_do_not_change_a_bit(
    request: pytest.FixtureRequest, form: str, seed: int
) -> None:
    graph: WrittenGraph = request.getfixturevalue(form)
    rng = random.Random(seed)
    rows = random_rows([rng.randrange(1, MAX_TOKENS + 1) for _ in range(24)], seed=seed)
    rows[0] = rows[0][:1]
    alone = graph.session.run_alone(rows)
    order = list(range(len(rows)))
    rng.shuffle(order)
    batched = [pad_row(rows[index], rng.randrange(4), rng.randrange(4)) for index in order]
    assert np.array_equal(graph.session.run(batched), alone[order])
    one_thread = WrittenModel(graph.file, threads=1)
    assert np.array_equal(one_thread.run(batched), alone[order])
    assert np.array_equal(one_thread.run_alone(rows), alone)


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_several_groups_are_batch_invariant(tmp_path: Path, kv_heads: int) -> None:
    """Several groups, and texts with lengths around the block size; with four key heads a row has a single query."""
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(kv_heads=kv_heads, max_positions=512))
    session = write_graph(source, tmp_path / "out", Precision.INT8, max_tokens=512).session
    rng = random.Random(5)
    lengths = [*(rng.randrange(1, 512) for _ in range(16)), *BLOCK_BOUNDARY_LENGTHS]
    rows = random_rows(lengths)
    order = list(range(len(rows)))
    rng.shuffle(order)
    assert np.array_equal(session.run([rows[index] for index in order]), session.run_alone(rows)[order])


def test_bad_rows_are_nan_and_affect_no_other_row(graph: WrittenGraph) -> None:
    truth = graph.session.run(ROWS)
    vectors = graph.session.run([[-1], *ROWS[:3], [300], *ROWS[3:], [1] * (MAX_TOKENS + 1)])
    assert np.isnan(vectors[[0, 4, -1]]).all()
    assert np.array_equal(np.delete(vectors, [0, 4, len(vectors) - 1], axis=0), truth)
    assert np.isnan(graph.session.run([[-1], [300]])).all()


def test_rows_of_zeros_do_not_divide_by_zero(tmp_path: Path) -> None:
    """A token with an embedding of zeros, and output channels of zeros."""
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint())
    tensors = load_file(source / "model.safetensors")
    tensors["embed_tokens.weight"][5] = 0
    tensors["layers.0.mlp.gate_proj.weight"][3] = 0
    tensors["layers.0.self_attn.q_proj.weight"][:16] = 0
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    rows = [[5, 5, 5], [1, 5, 2], [1, 2, 3, 5]]
    vectors = write_graph(source, tmp_path / "out", Precision.INT8).session.run(rows)
    assert np.isfinite(vectors).all()
    # a row of zeros has no direction
    assert np.abs(vectors[0]).max() == 0
    assert min_cosine(vectors[1:], official_vectors(source, rows)[1:]) >= GATE


def test_fp32_layers_are_float_products(source: Path, tmp_path: Path, graph: WrittenGraph) -> None:
    def products(file: Path) -> dict[str, str]:
        nodes = group_nodes(onnx.load(file, load_external_data=False))
        kinds = {node.name: node.op_type for node in nodes if node.op_type in ("MatMul", "MatMulIntegerToFloat")}
        return {name: kind for name, kind in kinds.items() if not name.endswith((".context", ".mix"))}

    everything = products(graph.file)
    last_values = "layers.2.attention.v"
    assert everything.pop(last_values) == "MatMul"
    assert set(everything.values()) == {"MatMulIntegerToFloat"}
    truth = official_vectors(source, ROWS)
    fp32_layers = frozenset({"layers.0.mlp.down", "layers.1.attention.qkv", "layers.2.mlp.up"})
    mixed = write_graph(source, tmp_path / "mixed", Precision.INT8, fp32_layers=fp32_layers)
    assert {name for name, kind in products(mixed.file).items() if kind == "MatMul"} == fp32_layers | {last_values}
    assert min_cosine(mixed.session.run(ROWS), truth) >= GATE
    whole = write_graph(
        source, tmp_path / "whole", Precision.INT8, fp32_layers=frozenset({*everything, "embedding.table"})
    )
    assert min_cosine(whole.session.run(ROWS), truth) >= 0.999999


def test_graph_has_no_split_pad_or_transpose(graph: WrittenGraph) -> None:
    nodes = group_nodes(onnx.load(graph.file, load_external_data=False))
    # the last layer transposes a few weighted rows by head
    operators = {node.op_type for node in nodes if not node.name.startswith("layers.2.attention")}
    assert operators.isdisjoint({"Split", "Pad", "Transpose", "ScatterND", "DequantizeLinear", "DynamicQuantizeLinear"})


def test_files_are_about_a_quarter_of_fp32(tmp_path: Path) -> None:
    tiny = TinyCheckpoint(layers=2, hidden=128, intermediate=256, heads=4, kv_heads=2, head_dim=32, vocabulary=4000)
    source = write_checkpoint(tmp_path / "tiny", tiny)

    def size(precision: Precision) -> int:
        folder = write_graph(source, tmp_path / precision, precision).file.parent
        return sum(file.stat().st_size for file in folder.iterdir())

    assert size(Precision.INT8) <= 0.3 * size(Precision.FP32)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("layers.9.mlp.down", id="no such layer"),
        pytest.param("layers.0.mlp.gate_up", id="no such product"),
        # the last layer has separate products for q and k
        pytest.param("layers.1.attention.qkv", id="not in the last layer"),
    ],
)
def test_unknown_fp32_layer_is_an_error(tiny_source: Path, tmp_path: Path, path: str) -> None:
    fp32_layers = frozenset({path, "layers.0.mlp.down"})
    with pytest.raises(ExportError, match=f"the graph has no product {re.escape(path)}; use paths such as"):
        write_graph(tiny_source, tmp_path / "out", Precision.INT8, fp32_layers=fp32_layers)
