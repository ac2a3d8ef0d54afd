"""Structure of the written graph: names, operators, and the number of rows of each product."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from watched_graph import group_nodes, run_watched
from written_graph import WrittenGraph, random_rows, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.export.batching.inputs import batch_inputs

LAYERS = 3
VOCABULARY = 1000
QUERIES_PER_KEY = 2
# products of a layer, and of the last layer, in which only keys are computed for every token
PRODUCTS = {"attention.qkv", "attention.output", "mlp.gate", "mlp.up", "mlp.down"}
LAST_PRODUCTS = {"attention.q", "attention.k", "attention.v", "attention.output", "mlp.gate", "mlp.up", "mlp.down"}
WEIGHTS = {Precision.FP32: "weight", Precision.FP16: "weight", Precision.INT8: "codes"}
WEIGHT_BYTES = {Precision.FP32: 4, Precision.FP16: 2, Precision.INT8: 1}
PRODUCT_OPERATORS = {"MatMul", "MatMulIntegerToFloat"}
# operators of ONNX Runtime in the standard domain that ONNX does not define
ONNX_RUNTIME_OWN = {"SimplifiedLayerNormalization"}


@pytest.fixture(scope="module", params=list(WEIGHTS))
def precision(request: pytest.FixtureRequest) -> Precision:
    chosen: Precision = request.param
    return chosen


@pytest.fixture(scope="module")
def graph(precision: Precision, tmp_path_factory: pytest.TempPathFactory) -> WrittenGraph:
    folder = tmp_path_factory.mktemp("structure")
    source = write_checkpoint(folder / "tiny", TinyCheckpoint(layers=LAYERS, vocabulary=VOCABULARY))
    return write_graph(source, folder / "out", precision)


@pytest.fixture(scope="module")
def proto(graph: WrittenGraph) -> onnx.ModelProto:
    return onnx.load(graph.file, load_external_data=False)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)


@dataclass(frozen=True, slots=True)
class Watched:
    """Rows of every matrix product outside loops by node name, summed over heads if it is per head."""

    rows: dict[str, int]
    embedding: np.ndarray


def watch_products(graph: WrittenGraph, rows: list[list[int]]) -> Watched:
    """Run the graph with every product as an additional output."""
    nodes = group_nodes(onnx.load(graph.file, load_external_data=False))
    products = {node.output[0]: node.name for node in nodes if node.op_type in PRODUCT_OPERATORS}
    products = {value: name for value, name in products.items() if name.split(".", 2)[-1] in PRODUCTS | LAST_PRODUCTS}
    watched = run_watched(graph.file, products, rows, fuse=False)
    embedding = watched.pop("embedding")
    return Watched({products[value]: answer.shape[-2] for value, answer in watched.items()}, embedding)


def test_products_skip_padding_and_bad_rows_and_the_last_layer_is_pruned(graph: WrittenGraph) -> None:
    good = random_rows([3, 11, 1, 20])
    tokens = 35
    batch = [
        [-1] * 9 + good[0],
        [-1, -1],
        [*good[1], -5, -5],
        [VOCABULARY] * 40,
        [*good[2][:1], *[-1] * 50],
        good[3],
        [],
    ]
    watched = watch_products(graph, batch)
    inner = {f"layers.{index}.{name}": tokens for index in range(LAYERS - 1) for name in PRODUCTS}
    last = {f"layers.{LAYERS - 1}.{name}": len(good) for name in LAST_PRODUCTS}
    last[f"layers.{LAYERS - 1}.attention.k"] = tokens
    last[f"layers.{LAYERS - 1}.attention.v"] = len(good) * QUERIES_PER_KEY
    assert watched.rows == inner | last
    assert np.isnan(watched.embedding).all(axis=1).tolist() == [False, True, False, True, False, False, True]


def test_batch_of_bad_rows_computes_one_filler_token(graph: WrittenGraph) -> None:
    watched = watch_products(graph, [[-1] * 30, [VOCABULARY] * 30])
    assert watched.rows.pop(f"layers.{LAYERS - 1}.attention.v") == QUERIES_PER_KEY
    assert set(watched.rows.values()) == {1}


def test_each_weight_is_stored_once_with_its_shape(proto: onnx.ModelProto, precision: Precision) -> None:
    kind = WEIGHTS[precision]
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    shapes = {name: list(tensor.dims) for name, tensor in tensors.items()}
    assert shapes[f"layers.0.attention.qkv.{kind}"] == [40, (4 + 2 + 2) * 16]
    assert shapes[f"layers.{LAYERS - 1}.attention.q.{kind}"] == [40, 4 * 16]
    assert shapes[f"layers.{LAYERS - 1}.attention.k.{kind}"] == [40, 2 * 16]
    assert shapes[f"layers.{LAYERS - 1}.attention.v.weight"] == [2, 1, 40, 16]
    assert shapes[f"embedding.table.{kind}"] == [VOCABULARY, 40]
    of_one = sorted(name for name in shapes if name.startswith("layers.0.attention.qkv."))
    if precision is Precision.INT8:
        assert of_one == ["layers.0.attention.qkv.codes", "layers.0.attention.qkv.scale"]
        assert shapes["layers.0.attention.qkv.scale"] == [(4 + 2 + 2) * 16]
        assert shapes["embedding.table.scale"] == [VOCABULARY, 1]
        assert {tensors[name].data_type for name in tensors if name.endswith(".codes")} == {onnx.TensorProto.INT8}
    else:
        assert of_one == ["layers.0.attention.qkv.weight"]


def test_names_are_paths_and_unique(proto: onnx.ModelProto) -> None:
    names = [node.name for node in all_nodes(proto.graph)]
    assert len(set(names)) == len(names)
    path = re.compile(r"(rows|groups|embedding|head|layers\.\d+\.(attention|mlp)|layers\.\d+)(\.\w+)+")
    assert [name for name in names if not path.fullmatch(name)] == []
    tensors = [tensor.name for tensor in proto.graph.initializer]
    path = re.compile(r"(constant|rope|embedding|head|layers\.\d+\.(attention|mlp))(\.[\w.+-]+)+")
    assert [name for name in tensors if not path.fullmatch(name)] == []
    assert {"layers.1.attention.qkv", "layers.1.mlp.down", "layers.2.attention.k"} <= set(names)


def test_branch_of_a_single_block_has_no_reshape_at_its_border(proto: onnx.ModelProto) -> None:
    """A Reshape of an outer value or of the output of a branch would copy."""
    branches = [node for node in group_nodes(proto) if node.op_type == "If"]
    assert len(branches) == LAYERS - 1
    for node in branches:
        [branch] = [attribute.g for attribute in node.attribute if attribute.name == "then_branch"]
        inside = {output for each in branch.node for output in each.output}
        border = [each for each in branch.node if branch.output[0].name in each.output]
        border += [each for each in branch.node if each.input[0] not in inside]
        assert "Reshape" not in {each.op_type for each in border}


def test_opset_and_operators_are_old_enough(proto: onnx.ModelProto) -> None:
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    assert versions[""] <= 21
    assert set(versions) == {"", "com.microsoft"}
    assert proto.ir_version <= 10
    for node in all_nodes(proto.graph):
        assert node.domain in versions
        if node.domain == "" and node.op_type not in ONNX_RUNTIME_OWN:
            assert onnx.defs.get_schema(node.op_type, versions[""], "").since_version <= versions[""]


def test_inputs_and_output_follow_the_wire_contract(proto: onnx.ModelProto) -> None:
    def described(values: object) -> list[tuple[str, int, list[str | int]]]:
        assert isinstance(values, list)
        return [
            (
                value.name,
                value.type.tensor_type.elem_type,
                [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim],
            )
            for value in values
        ]

    assert described(list(proto.graph.input)) == [
        ("input_ids", onnx.TensorProto.INT64, ["ids"]),
        ("row_lengths", onnx.TensorProto.INT32, ["rows"]),
        ("request_lengths", onnx.TensorProto.INT32, ["requests"]),
    ]
    assert described(list(proto.graph.output)) == [
        ("embedding", onnx.TensorProto.FLOAT, ["rows", 40]),
        ("row_status", onnx.TensorProto.INT32, ["rows", 1]),
    ]


def test_weights_are_external_data(graph: WrittenGraph, proto: onnx.ModelProto, precision: Precision) -> None:
    data = graph.file.with_name("model.onnx.data")
    assert data.is_file()
    outside = [tensor for tensor in proto.graph.initializer if tensor.external_data]
    expected = {
        f"{path}.{WEIGHTS[precision]}" for path in ("embedding.table", "layers.0.attention.qkv", "layers.2.mlp.down")
    }
    assert expected <= {tensor.name for tensor in outside}
    locations = {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}
    assert locations == {"model.onnx.data"}
    inline_bytes = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    assert inline_bytes < 16 * 1024
    assert graph.file.stat().st_size < min(96 * 1024, data.stat().st_size)
    weights = [tensor for tensor in outside if tensor.name.endswith(WEIGHTS[precision])]
    parameters = sum(int(np.prod(tensor.dims)) for tensor in weights)
    size = WEIGHT_BYTES[precision]
    assert parameters * size <= data.stat().st_size <= parameters * size * 1.5


def test_head_stays_in_fp32(proto: onnx.ModelProto) -> None:
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    assert kinds["head.norm.gain"] == onnx.TensorProto.FLOAT


def test_memory_is_linear_in_the_length_of_a_text(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(max_positions=2048))
    file = write_graph(source, tmp_path / "out", max_tokens=2048).file
    largest = [_largest_output(file, tokens, tmp_path) for tokens in (512, 1024, 2048)]
    assert largest[1] <= 2.01 * largest[0]
    assert largest[2] <= 2.01 * largest[1]


def _largest_output(file: Path, tokens: int, folder: Path) -> int:
    """Return the bytes of the largest output of any node for one text."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    session.run(None, batch_inputs([[token % 200 for token in range(tokens)]]))
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return max(int(event["args"]["output_size"]) for event in events if event["name"].endswith("_kernel_time"))
