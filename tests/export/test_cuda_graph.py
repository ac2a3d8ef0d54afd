"""Graphs for GPUs against transformers in fp32, with CPU kernels and with functions for missing operators."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from attention_functions import bookkeeping, open_decomposed
from safetensors.torch import load_file
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from transformers import Qwen3Config, Qwen3Model
from written_graph import WrittenGraph, min_cosine, model_vectors, official_vectors, random_rows, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.export import CudaAttention, RuntimeVersion, SourceReference
from qwen3_triton.export.formats.row_codes import round_up
from qwen3_triton.export.formats.weight_blocks import BLOCK, quantize_blocks
from qwen3_triton.export.graph import CudaProfile
from qwen3_triton.export.passes.rescale import choose_rescale
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.verification.reference import ReferenceModel
from qwen3_triton.export.verification.runtime import WrittenModel, pad_row

MAX_TOKENS = 64
ROWS = random_rows([1, 2, 3, 7, 16, 33, MAX_TOKENS])
HALF, BRAIN = ir.DataType.FLOAT16, ir.DataType.BFLOAT16
OLD, NEW = RuntimeVersion(1, 23, 2), RuntimeVersion(1, 31, 1)
GATES = {Precision.FP32: 0.999999, Precision.FP16: 0.9999, Precision.INT8: 0.999}

SHAPES = {
    "four-queries-per-key": TinyCheckpoint(heads=4, kv_heads=1, head_dim=32, hidden=48, layers=3),
    "one-query-per-key": TinyCheckpoint(heads=3, kv_heads=3, head_dim=16, hidden=40, layers=3),
    "one-layer": TinyCheckpoint(layers=1, heads=2, kv_heads=1, head_dim=64, hidden=24, intermediate=20),
    "wide": TinyCheckpoint(layers=3, heads=2, kv_heads=2, head_dim=16, hidden=150, intermediate=290),
}
# graphs with operators that have no CPU kernel
DECOMPOSED = {
    "rows normed": CudaProfile(runtime=NEW),
    "rows normed, separate gate": CudaProfile(runtime=NEW, gated_norm=False),
    "pages": CudaProfile(runtime=OLD, attention=CudaAttention.PAGES),
    "pages normed": CudaProfile(runtime=NEW, attention=CudaAttention.PAGES),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("cuda") / "tiny", TinyCheckpoint(layers=3))


@pytest.fixture(scope="module")
def half(source: Path, tmp_path_factory: pytest.TempPathFactory) -> WrittenModel:
    return write_graph(source, tmp_path_factory.mktemp("cuda") / "out", Precision.FP16, cuda=CudaProfile()).session


@pytest.fixture(scope="module", params=list(DECOMPOSED.values()), ids=list(DECOMPOSED))
def decomposed(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> WrittenModel:
    out = tmp_path_factory.mktemp("cuda") / "out"
    return open_decomposed(write_graph(source, out, Precision.FP16, cuda=request.param).file)


@pytest.mark.parametrize("precision", GATES)
@pytest.mark.parametrize("tiny", SHAPES.values(), ids=SHAPES.keys())
def test_equals_transformers(tmp_path: Path, tiny: TinyCheckpoint, precision: Precision) -> None:
    source = write_checkpoint(tmp_path / "tiny", tiny)
    reference = ReferenceModel(open_checkpoint(SourceReference(str(source)))).embed(ROWS, 4, lambda _done, _all: None)
    rescale = choose_rescale(reference.peaks)
    graph = write_graph(source, tmp_path / "out", precision, MAX_TOKENS, rescale, cuda=CudaProfile())
    vectors = graph.session.run(ROWS)
    assert vectors.shape == (len(ROWS), tiny.hidden)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-6)
    assert min_cosine(vectors, official_vectors(source, ROWS)) >= GATES[precision]


@pytest.mark.parametrize(
    "profile",
    [CudaProfile(cpu_twin=True), CudaProfile(cpu_twin=True, runtime=NEW), CudaProfile(joint_gate_up=True)],
    ids=["twin", "twin of a newer release", "joint gate and up"],
)
def test_graph_variants_equal_transformers(tmp_path: Path, source: Path, profile: CudaProfile) -> None:
    vectors = write_graph(source, tmp_path / "out", Precision.FP32, cuda=profile).session.run(ROWS)
    assert min_cosine(vectors, official_vectors(source, ROWS)) >= 0.999999


def test_decomposed_attention_equals_transformers(source: Path, decomposed: WrittenModel) -> None:
    assert min_cosine(decomposed.run(ROWS), official_vectors(source, ROWS)) >= 0.9999


def test_vectors_are_batch_invariant(half: WrittenModel) -> None:
    alone = half.run_alone(ROWS)
    rng = random.Random(3)
    for _ in range(3):
        order = rng.sample(range(len(ROWS)), len(ROWS))
        batch = [pad_row(ROWS[index], rng.randrange(9), rng.randrange(9)) for index in order]
        assert min_cosine(half.run(batch), alone[order]) >= 0.999999


def test_decomposed_attention_is_batch_invariant(decomposed: WrittenModel) -> None:
    alone = decomposed.run_alone(ROWS)
    batch = [pad_row(row, 3, index) for index, row in enumerate(ROWS)]
    assert min_cosine(decomposed.run(batch), alone) >= 0.999999


def test_bad_rows_are_nan_and_affect_no_other_row(half: WrittenModel) -> None:
    good = ROWS[2:5]
    batch = [[], good[0], [-1, -1], [1000, 5], good[1], [1] * (MAX_TOKENS + 1), good[2]]
    vectors = half.run(batch)
    assert np.isnan(vectors).all(axis=1).tolist() == [True, False, True, True, False, True, False]
    assert min_cosine(vectors[[1, 4, 6]], half.run_alone(good)) >= 0.999999
    assert np.isnan(half.run([[], [-1]])).all()


def test_graph_equals_transformers_with_dequantized_weights(tmp_path: Path, source: Path) -> None:
    """The reference is transformers with the dequantized weights."""
    vectors = write_graph(source, tmp_path / "out", Precision.INT8, cuda=CudaProfile()).session.run(ROWS)
    model = Qwen3Model(Qwen3Config.from_pretrained(source))
    state = load_file(source / "model.safetensors")
    for name, tensor in state.items():
        if tensor.ndim == 2:
            array = tensor.numpy()
            if name == "embed_tokens.weight":
                scales = round_up(np.abs(array).max(axis=1) / np.float32(127), HALF).astype(np.float32)[:, None]
                tensor.copy_(tensor.new_tensor(np.rint(array / scales) * scales))
            else:
                blocks = quantize_blocks(array, HALF)
                dequantized = (blocks.codes.astype(np.float32) - 128) * blocks.scales.astype(np.float32)[:, :, None]
                tensor.copy_(tensor.new_tensor(dequantized.reshape(len(array), -1)[:, : array.shape[1]]))
    model.load_state_dict(state)
    assert min_cosine(vectors, model_vectors(model, ROWS)) >= 0.99999
    assert min_cosine(vectors, official_vectors(source, ROWS)) < 0.99999


def test_block_quantization_error_is_at_most_half_a_step() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((40, 3 * BLOCK - 5)) * 10.0 ** rng.integers(-9, 3, (40, 1))).astype(np.float32)
    matrix[7] = 0
    for dtype in (HALF, BRAIN):
        blocks = quantize_blocks(matrix, dtype)
        assert blocks.codes.shape == (40, 3, BLOCK)
        scales = np.repeat(blocks.scales.astype(np.float32), BLOCK, axis=1)[:, : matrix.shape[1]]
        codes = blocks.codes.reshape(40, -1)[:, : matrix.shape[1]].astype(np.float32) - 128
        assert np.abs(codes).max() <= 127
        assert (np.abs(codes * scales - matrix) <= scales * 0.5001).all()


def test_each_token_has_its_own_slot_in_the_pages(source: Path, tmp_path: Path) -> None:
    lengths = [255, 1, 256, 600, 257, 3]
    rows = [[1] * length for length in lengths]
    written = page_file(source, tmp_path, MAX_TOKENS * 16)
    cast = {node.output[0]: node for node in onnx.load(written.file, load_external_data=False).graph.node}
    [attention] = [node for node in cast.values() if node.name == "layers.0.attention.attention"]
    ends, past, table, pages = (attention.input[5], attention.input[6], attention.input[7], "rows.pages")
    values = bookkeeping(written.file, [ends, past, table, pages, "rows.positions"], rows)
    assert values[ends].tolist() == [0, *np.cumsum(lengths)]
    assert values[past].tolist() == [0] * len(lengths)
    assert values["rows.positions"].tolist() == [place for length in lengths for place in range(length)]
    [count] = values["rows.pages"]
    assert values[table].shape == (len(lengths), MAX_TOKENS * 16 // 256)
    assert values[table].max() < count
    places = [(row, place) for row, length in enumerate(lengths) for place in range(length)]
    slots = [(int(values[table][row, place // 256]), place % 256) for row, place in places]
    assert len(set(slots)) == sum(lengths)


def test_key_and_value_caches_are_not_merged_by_the_optimizer(source: Path, tmp_path: Path) -> None:
    """ONNX Runtime merges identical nodes, and values would then overwrite keys."""
    model = onnx.load(page_file(source, tmp_path, MAX_TOKENS).file, load_external_data=False)
    fillers = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    assert [node.name for node in fillers] == ["rows.keys", "rows.values"]
    assert fillers[0].attribute[0].t != fillers[1].attribute[0].t
    for node in model.graph.node:
        if node.op_type == "PagedAttention":
            assert list(node.input[3:5]) == ["rows.keys", "rows.values"]
            # cache outputs would have to alias the inputs, which a graph cannot guarantee
            assert len(node.output) == 1


def page_file(source: Path, folder: Path, max_tokens: int) -> WrittenGraph:
    profile = CudaProfile(runtime=OLD, attention=CudaAttention.PAGES)
    return write_graph(source, folder / "out", Precision.FP16, max_tokens, cuda=profile)
