"""Graphs for GPUs against transformers in fp32, with CPU kernels and with functions for missing operators."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from attention_functions import open_decomposed
from graph_branches import Branch, bookkeeping, branch_taken, nodes_of
from safetensors.torch import load_file
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from transformers import Qwen3Config, Qwen3Model
from written_graph import WrittenGraph, min_cosine, model_vectors, official_vectors, random_rows, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.export import CudaAttention, Device, RuntimeVersion, SourceReference, weight_format
from qwen3_triton.export.formats.row_codes import round_up
from qwen3_triton.export.formats.weight_blocks import BLOCK, quantize_blocks
from qwen3_triton.export.graph import CudaProfile
from qwen3_triton.export.passes.rescale import choose_rescale
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.verification.reference import ReferenceModel
from qwen3_triton.export.verification.runtime import WrittenModel, pad_row

MAX_TOKENS = 64
MIXED = random_rows([1, 2, 3, 7, 16, 33, MAX_TOKENS])
EQUAL = random_rows([12] * 5, seed=8)
NEARLY_EQUAL = random_rows([16, 13, 16, 15, 14], seed=9)
SINGLE = random_rows([33], seed=10)
BATCHES = {"mixed": MIXED, "equal": EQUAL, "nearly equal": NEARLY_EQUAL, "single row": SINGLE}
ALL_ROWS = list(itertools.chain(*BATCHES.values()))
AT_LIMIT = [9, 7, 9, 7, 7, 9, 7, 9]
"""Lengths of rows with exactly 9 cells per 8 tokens: 72 of 64."""
ABOVE_LIMIT = [9, 7, 9, 7, 7, 9, 6, 9]
HALF, BRAIN = ir.DataType.FLOAT16, ir.DataType.BFLOAT16
OLD, NEW = RuntimeVersion(1, 23, 2), RuntimeVersion(1, 31, 1)
GATES = {Precision.FP32: 0.999999, Precision.FP16: 0.9999, Precision.INT8: 0.999}

SHAPES = {
    "four-queries-per-key": TinyCheckpoint(heads=4, kv_heads=1, head_dim=32, hidden=48, layers=3),
    "one-query-per-key": TinyCheckpoint(heads=3, kv_heads=3, head_dim=16, hidden=40, layers=3),
    "one-layer": TinyCheckpoint(layers=1, heads=2, kv_heads=1, head_dim=64, hidden=24, intermediate=20),
    "wide": TinyCheckpoint(layers=3, heads=2, kv_heads=2, head_dim=16, hidden=150, intermediate=290),
}
PROFILES = {
    "rows": CudaProfile(runtime=OLD),
    "rows normed": CudaProfile(runtime=RuntimeVersion(1, 28)),
    "rows normed and gathered": CudaProfile(runtime=NEW),
    "pages": CudaProfile(runtime=OLD, attention=CudaAttention.PAGES),
    "pages bounded": CudaProfile(runtime=NEW, attention=CudaAttention.PAGES),
}
"""Profiles whose fp16 graphs have operators without CPU kernels."""


@dataclass(frozen=True, slots=True)
class Half:
    """An fp16 graph, and the same graph without a branch for dense batches."""

    file: Path
    session: WrittenModel
    packed: WrittenModel
    agreement: float
    """Smallest cosine between vectors of the two branches."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("cuda") / "tiny", TinyCheckpoint(layers=3))


@pytest.fixture(scope="module", params=list(PROFILES.values()), ids=list(PROFILES))
def half(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Half:
    folder = tmp_path_factory.mktemp("cuda")
    written = write_graph(source, folder / "out", Precision.FP16, cuda=request.param)
    profile = dataclasses.replace(request.param, dense_batches=False)
    packed = write_graph(source, folder / "packed", Precision.FP16, cuda=profile)
    # attention over pages rounds queries and keys to fp16 after rope, the dense branch before
    agreement = 0.99999 if profile.attention is CudaAttention.PAGES else 0.999999
    return Half(written.file, open_decomposed(written.file), open_decomposed(packed.file), agreement)


# --- numbers


@pytest.mark.parametrize("precision", GATES)
@pytest.mark.parametrize("tiny", SHAPES.values(), ids=SHAPES.keys())
def test_equals_transformers(tmp_path: Path, tiny: TinyCheckpoint, precision: Precision) -> None:
    source = write_checkpoint(tmp_path / "tiny", tiny)
    checkpoint = open_checkpoint(SourceReference(str(source)))
    reference = ReferenceModel(checkpoint).embed(ALL_ROWS, lambda _done, _all: None)
    rescale = choose_rescale(reference.peaks)
    graph = write_graph(source, tmp_path / "out", precision, MAX_TOKENS, rescale, cuda=CudaProfile())
    session = open_decomposed(graph.file)
    for rows in BATCHES.values():
        vectors = session.run(rows)
        assert vectors.shape == (len(rows), tiny.hidden)
        assert vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-6)
        assert min_cosine(vectors, official_vectors(source, rows)) >= GATES[precision]


@pytest.mark.parametrize(
    "profile",
    [
        CudaProfile(),
        CudaProfile(runtime=NEW),
        CudaProfile(dense_batches=False),
        CudaProfile(cpu_twin=True),
        CudaProfile(cpu_twin=True, runtime=NEW),
        CudaProfile(cpu_twin=True, attention=CudaAttention.PAGES),
    ],
    ids=["default", "newer release", "packed only", "twin", "twin of a newer release", "twin of pages"],
)
def test_fp32_graphs_run_on_a_cpu_and_equal_transformers(tmp_path: Path, source: Path, profile: CudaProfile) -> None:
    session = write_graph(source, tmp_path / "out", Precision.FP32, cuda=profile).session
    for rows in BATCHES.values():
        assert min_cosine(session.run(rows), official_vectors(source, rows)) >= 0.999999


@pytest.mark.parametrize("runtime", [OLD, NEW], ids=str)
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_twins_in_fp16_run_on_a_cpu(
    tmp_path: Path, source: Path, precision: Precision, runtime: RuntimeVersion
) -> None:
    profile, format = CudaProfile(runtime=runtime), weight_format(precision, Device.CUDA)
    graph = open_decomposed(write_graph(source, tmp_path / "out", precision, cuda=profile).file)
    profile = dataclasses.replace(profile, cpu_twin=True)
    twin = write_graph(source, tmp_path / "twin", precision, cuda=profile, format=format).session
    for rows in BATCHES.values():
        assert min_cosine(twin.run(rows), graph.run(rows)) >= 0.99999


def test_gate_by_one_operator_equals_transformers(tmp_path: Path, source: Path) -> None:
    """A bf16 graph in fp32, because the CPU provider has no bf16 kernels."""
    format = weight_format(Precision.BF16, Device.CUDA).fp32_twin()
    written = write_graph(source, tmp_path / "out", cuda=CudaProfile(runtime=NEW), format=format)
    graph = onnx.load(written.file, load_external_data=False).graph
    for branch in Branch:
        assert sum(node.op_type == "GatedRMSNorm" for node in nodes_of(graph, branch)) == 3
    session = open_decomposed(written.file)
    for rows in BATCHES.values():
        assert min_cosine(session.run(rows), official_vectors(source, rows)) >= 0.999999


@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES.keys())
def test_every_attention_equals_transformers(source: Path, half: Half, rows: list[list[int]]) -> None:
    official = official_vectors(source, rows)
    assert min_cosine(half.session.run(rows), official) >= 0.9999
    assert min_cosine(half.packed.run(rows), official) >= 0.9999


def test_dense_and_packed_batches_have_the_same_vectors(half: Half) -> None:
    at_limit = random_rows(AT_LIMIT, seed=11)
    for rows in (EQUAL, NEARLY_EQUAL, SINGLE, at_limit):
        assert branch_taken(half.file, rows) is Branch.DENSE
        assert min_cosine(half.session.run(rows), half.packed.run(rows)) >= half.agreement
    np.testing.assert_array_equal(half.session.run(MIXED), half.packed.run(MIXED))


def test_vectors_are_batch_invariant(half: Half) -> None:
    rng = random.Random(3)
    for session, agreement in ((half.session, half.agreement), (half.packed, 0.999999)):
        alone = session.run_alone(ALL_ROWS)
        for size in (3, 7, len(ALL_ROWS)):
            order = rng.sample(range(len(ALL_ROWS)), size)
            batch = [pad_row(ALL_ROWS[index], rng.randrange(9), rng.randrange(9)) for index in order]
            assert min_cosine(session.run(batch), alone[order]) >= agreement


@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES.keys())
def test_padding_does_not_change_vectors(half: Half, rows: list[list[int]]) -> None:
    widest = max(map(len, rows)) + 5
    expected = half.session.run(rows)
    for batch in (
        [pad_row(row, widest - len(row), 0) for row in rows],
        [pad_row(row, 0, widest - len(row)) for row in rows],
        [pad_row(row, 3, index) for index, row in enumerate(rows)],
    ):
        assert branch_taken(half.file, batch) is branch_taken(half.file, rows)
        np.testing.assert_array_equal(half.session.run(batch), expected)


@pytest.mark.parametrize("good", [MIXED[2:5], EQUAL[:3]], ids=["packed", "dense"])
def test_bad_rows_are_nan_and_affect_no_other_row(half: Half, good: list[list[int]]) -> None:
    batch = [[], good[0], [-1, -1], [1000, 5], good[1], [1] * (MAX_TOKENS + 1), good[2]]
    vectors = half.session.run(batch)
    assert np.isnan(vectors).all(axis=1).tolist() == [True, False, True, True, False, True, False]
    np.testing.assert_array_equal(vectors[[1, 4, 6]], half.session.run(good))


@pytest.mark.parametrize("batch", [[[]], [[], [-1]], [[1000]], [[1] * (MAX_TOKENS + 1)] * 3], ids=str)
def test_batches_of_bad_rows_are_nan(half: Half, batch: list[list[int]]) -> None:
    for session in (half.session, half.packed):
        vectors = session.run(batch)
        assert len(vectors) == len(batch)
        assert np.isnan(vectors).all()


# --- which batches are dense


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        (AT_LIMIT, Branch.DENSE),
        (ABOVE_LIMIT, Branch.PACKED),
        ([9, 7], Branch.DENSE),
        ([9, 6], Branch.PACKED),
        ([1], Branch.DENSE),
        ([MAX_TOKENS], Branch.DENSE),
        ([1, 2], Branch.PACKED),
        ([8] * 9, Branch.DENSE),
    ],
    ids=str,
)
def test_batch_is_dense_up_to_9_cells_per_8_tokens(half: Half, lengths: list[int], expected: Branch) -> None:
    assert (max(lengths) * len(lengths) * 8 <= sum(lengths) * 9) == (expected is Branch.DENSE)
    rows = random_rows(lengths)
    assert takes(half, rows) is expected
    # neither padding nor bad rows count
    assert takes(half, [pad_row(row, index, 3) for index, row in enumerate(rows)]) is expected
    assert takes(half, [[], *rows, [1000], [1] * (MAX_TOKENS + 1)]) is expected


def test_a_batch_without_good_rows_is_dense(half: Half) -> None:
    assert takes(half, [[], [-1]]) is Branch.DENSE


def takes(half: Half, rows: Sequence[Sequence[int]]) -> Branch:
    """Return the branch that a batch takes, after a check that the condition says so."""
    branch = branch_taken(half.file, rows)
    is_dense = bookkeeping(half.file, ["rows.is_dense"], rows)["rows.is_dense"]
    assert is_dense.tolist() == [branch is Branch.DENSE]
    return branch


# --- 8-bit weights


def test_graph_equals_transformers_with_dequantized_weights(tmp_path: Path, source: Path) -> None:
    """The reference is transformers with the dequantized weights."""
    session = open_decomposed(write_graph(source, tmp_path / "out", Precision.INT8, cuda=CudaProfile()).file)
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
    for rows in (MIXED, NEARLY_EQUAL):
        vectors = session.run(rows)
        assert min_cosine(vectors, model_vectors(model, rows)) >= 0.99999
        assert min_cosine(vectors, official_vectors(source, rows)) < 0.99999


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


# --- rows and pages


def test_offsets_of_tokens_and_padding_are_a_permutation_of_the_cells(source: Path, tmp_path: Path) -> None:
    lengths = [3, 1, 7, 2]
    rows, width = [[1] * length for length in lengths], max(lengths)
    written = write_graph(source, tmp_path / "out", Precision.FP16, cuda=CudaProfile(runtime=OLD))
    graph = onnx.load(written.file, load_external_data=False).graph
    moves = [node for node in nodes_of(graph, Branch.PACKED) if node.op_type == "RestorePadding"]
    # q, k and v to rows and the context back; in the last layer, the last cells are gathered instead
    offsets, inverse = moves[0].input[1], moves[3].input[1]
    assert [node.input[1] for node in moves] == [offsets, offsets, offsets, inverse] * 2 + [offsets] * 3
    values = bookkeeping(written.file, [offsets, inverse, "rows.token_count"], rows)
    assert values[offsets].dtype == values[inverse].dtype == np.int32
    assert values[offsets].shape == values[inverse].shape == (len(rows), width)
    order, places = values[offsets].ravel(), values[inverse].ravel()
    cells = [row * width + place for row, length in enumerate(lengths) for place in range(length)]
    assert values["rows.token_count"].tolist() == [len(cells)]
    assert order[: len(cells)].tolist() == cells
    assert sorted(order.tolist()) == list(range(len(rows) * width))
    assert order[places].tolist() == list(range(len(rows) * width))


def test_each_token_has_its_own_slot_in_the_pages(source: Path, tmp_path: Path) -> None:
    lengths = [255, 1, 256, 600, 257, 3]
    rows = [[1] * length for length in lengths]
    written = page_file(source, tmp_path, MAX_TOKENS * 16)
    attention = paged_attention(written.file)[0]
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


def test_longest_row_bounds_the_pages_from_the_release_with_that_input(source: Path, tmp_path: Path) -> None:
    written = page_file(source, tmp_path, MAX_TOKENS, NEW)
    bounds = {node.input[16] for node in paged_attention(written.file)}
    assert bounds == {"rows.bounds"}
    for rows in (MIXED, [[], *MIXED[:3], [1] * (MAX_TOKENS + 1)]):
        longest = max(len(row) for row in rows if len(row) <= MAX_TOKENS)
        assert bookkeeping(written.file, ["rows.bounds"], rows)["rows.bounds"].tolist() == [longest, longest]


def test_key_and_value_caches_are_not_merged_by_the_optimizer(source: Path, tmp_path: Path) -> None:
    """ONNX Runtime merges identical nodes, and values would then overwrite keys."""
    written = page_file(source, tmp_path, MAX_TOKENS)
    nodes = nodes_of(onnx.load(written.file, load_external_data=False).graph, Branch.PACKED)
    fillers = [node for node in nodes if node.op_type == "ConstantOfShape"]
    assert [node.name for node in fillers] == ["rows.keys", "rows.values"]
    assert fillers[0].attribute[0].t != fillers[1].attribute[0].t
    for node in paged_attention(written.file):
        assert list(node.input[3:5]) == ["rows.keys", "rows.values"]
        # cache outputs would have to alias the inputs, which a graph cannot guarantee
        assert len(node.output) == 1


def paged_attention(file: Path) -> list[onnx.NodeProto]:
    """Return the nodes of PagedAttention by layer."""
    nodes = nodes_of(onnx.load(file, load_external_data=False).graph, Branch.PACKED)
    attention = [node for node in nodes if node.op_type == "PagedAttention"]
    assert len(attention) == 3
    return attention


def page_file(source: Path, folder: Path, max_tokens: int, runtime: RuntimeVersion = OLD) -> WrittenGraph:
    profile = CudaProfile(runtime=runtime, attention=CudaAttention.PAGES)
    return write_graph(source, folder / "out", Precision.FP16, max_tokens, cuda=profile)
