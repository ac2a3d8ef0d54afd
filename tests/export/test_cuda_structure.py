"""Structure of graphs for GPUs: every operator has a CUDA kernel, and layers do not synchronize with the host."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from graph_branches import CHOICE, Branch, all_nodes, nodes_of, plain_name
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from written_graph import write_graph

from qwen3_triton.client import Precision
from qwen3_triton.export import CudaAttention, ExportError, RuntimeVersion, TritonRelease
from qwen3_triton.export.graph import CudaProfile
from qwen3_triton.export.graph.cuda_kernels import CUDA_KERNELS, missing_kernels, require_cuda_kernels

LAYERS = 3
DTYPES = {
    Precision.FP32: ir.DataType.FLOAT,
    Precision.FP16: ir.DataType.FLOAT16,
    Precision.BF16: ir.DataType.BFLOAT16,
    Precision.INT8: ir.DataType.FLOAT16,
}
OLD, ROWS_NORMED, GATED, NEW = (
    RuntimeVersion(1, 23, 2),
    RuntimeVersion(1, 28),
    RuntimeVersion(1, 29),
    RuntimeVersion(1, 31, 1),
)
CHANGES = [OLD, ROWS_NORMED, GATED, NEW]
"""Releases with which graphs change."""
RUNTIMES = list(dict.fromkeys([*(release.runtime for release in TritonRelease), *CHANGES]))
HALVES = [Precision.FP16, Precision.BF16, Precision.INT8]
ROWS, PAGES = CudaAttention
DENSE, PACKED = Branch

DENSE_KERNELS = {
    Precision.FP32: {OLD: 18, ROWS_NORMED: 18, GATED: 18, NEW: 18},
    Precision.FP16: {OLD: 14, ROWS_NORMED: 12, GATED: 12, NEW: 12},
    Precision.BF16: {OLD: 16, ROWS_NORMED: 14, GATED: 11, NEW: 11},
    Precision.INT8: {OLD: 14, ROWS_NORMED: 12, GATED: 12, NEW: 12},
}
"""Number of kernels in a layer of the dense branch by release. Reshape is none: it does not copy."""
PACKED_KERNELS = {
    (Precision.FP32, ROWS): {OLD: 22, ROWS_NORMED: 22, GATED: 22, NEW: 22},
    (Precision.FP32, PAGES): {OLD: 22, ROWS_NORMED: 22, GATED: 22, NEW: 22},
    (Precision.FP16, ROWS): {OLD: 19, ROWS_NORMED: 17, GATED: 17, NEW: 16},
    (Precision.FP16, PAGES): {OLD: 16, ROWS_NORMED: 16, GATED: 16, NEW: 16},
    (Precision.BF16, ROWS): {OLD: 20, ROWS_NORMED: 18, GATED: 15, NEW: 15},
    (Precision.BF16, PAGES): {OLD: 18, ROWS_NORMED: 18, GATED: 15, NEW: 15},
    (Precision.INT8, ROWS): {OLD: 19, ROWS_NORMED: 17, GATED: 17, NEW: 16},
    (Precision.INT8, PAGES): {OLD: 16, ROWS_NORMED: 16, GATED: 16, NEW: 16},
}
"""The same of the packed branch."""
COPIES_AND_WAITS = {
    "Cast",
    "Loop",
    "If",
    "Scan",
    "Transpose",
    "Shape",
    "Size",
    "Compress",
    "NonZero",
    "Concat",
    "Expand",
}
MOVES = {"Gather", "GatherElements", "GatherND", "RestorePadding", "ScatterElements", "ScatterND", "Slice", "Split"}
READ_ON_HOST = {
    "Range": {0, 1, 2},
    "Expand": {1},
    "Reshape": {1},
    "Slice": {1, 2, 3, 4},
    "ConstantOfShape": {0},
    "TopK": {1},
    "CumSum": {1},
    "Squeeze": {1},
    "Unsqueeze": {1},
}
"""Indices of the inputs that CUDA kernels read from host memory."""


@dataclass(frozen=True, slots=True)
class Graphs:
    """Graphs of one checkpoint, each written once."""

    source: Path
    folder: Path
    files: dict[tuple[Precision, CudaProfile], Path] = field(default_factory=dict)

    def file(self, precision: Precision, profile: CudaProfile) -> Path:
        key = (precision, profile)
        if key not in self.files:
            folder = self.folder / str(len(self.files))
            self.files[key] = write_graph(self.source, folder, precision, cuda=profile).file
        return self.files[key]

    def load(self, precision: Precision, profile: CudaProfile) -> onnx.GraphProto:
        graph: onnx.GraphProto = onnx.load(self.file(precision, profile), load_external_data=False).graph
        return graph


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    folder = tmp_path_factory.mktemp("structure")
    return Graphs(write_checkpoint(folder / "tiny", TinyCheckpoint(layers=LAYERS)), folder)


def profiles() -> Iterator[CudaProfile]:
    """Iterate over a profile of each layout of attention and each release with which graphs change."""
    for runtime, attention in itertools.product(CHANGES, CudaAttention):
        yield CudaProfile(runtime=runtime, attention=attention)


def kinds_in_layer(nodes: list[onnx.NodeProto], index: int = 1) -> Counter[str]:
    """Return the operators of a layer and their numbers."""
    return Counter(node.op_type for node in nodes if node.name.startswith(f"layers.{index}."))


def weight_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all initializers but constants."""
    return {tensor.name for tensor in graph.initializer if not tensor.name.startswith("constant.")}


# --- kernels


@pytest.mark.parametrize("attention", CudaAttention)
@pytest.mark.parametrize("precision", Precision)
def test_every_release_has_a_cuda_kernel_for_every_node(
    graphs: Graphs, precision: Precision, attention: CudaAttention
) -> None:
    for runtime, dense_batches in itertools.product(RUNTIMES, (True, False)):
        profile = CudaProfile(runtime=runtime, attention=attention, dense_batches=dense_batches)
        require_cuda_kernels(ir.load(graphs.file(precision, profile)), DTYPES[precision], runtime)


@pytest.mark.parametrize("branch", Branch)
@pytest.mark.parametrize("operator", ["Softplus", "Cast"], ids=["no kernel", "forbidden in layers"])
def test_node_of_a_branch_without_a_kernel_is_reported(graphs: Graphs, branch: Branch, operator: str) -> None:
    model = ir.load(graphs.file(Precision.FP16, CudaProfile()))
    [choice] = [node for node in model.graph if node.name == CHOICE]
    body = choice.attributes[branch].as_graph()
    body.append(ir.Node("", operator, [body.outputs[0]], name="layers.1.mlp.planted"))
    with pytest.raises(ExportError, match=rf"no CUDA kernel for layers\.1\.mlp\.planted \({operator}-"):
        require_cuda_kernels(model, ir.DataType.FLOAT16, OLD)


@pytest.mark.parametrize("attention", CudaAttention)
@pytest.mark.parametrize("precision", Precision)
def test_number_of_kernels_in_a_layer(graphs: Graphs, precision: Precision, attention: CudaAttention) -> None:
    for runtime in CHANGES:
        graph = graphs.load(precision, CudaProfile(runtime=runtime, attention=attention))
        limits = {
            DENSE: DENSE_KERNELS[precision][runtime],
            PACKED: PACKED_KERNELS[precision, attention][runtime],
        }
        for branch, expected in limits.items():
            kinds = kinds_in_layer(nodes_of(graph, branch))
            assert kinds["MatMulNBits" if precision is Precision.INT8 else "MatMul"] == 7
            assert kinds.total() - kinds["Reshape"] == expected, (runtime, branch)


@pytest.mark.parametrize("precision", Precision)
def test_layers_neither_convert_nor_wait_for_the_host(graphs: Graphs, precision: Precision) -> None:
    for profile, branch in itertools.product(profiles(), Branch):
        nodes = nodes_of(graphs.load(precision, profile), branch)
        for index in range(LAYERS):
            assert not kinds_in_layer(nodes, index).keys() & COPIES_AND_WAITS


@pytest.mark.parametrize("precision", Precision)
def test_layers_of_dense_batches_move_nothing(graphs: Graphs, precision: Precision) -> None:
    for profile in profiles():
        kinds = kinds_in_layer(nodes_of(graphs.load(precision, profile), DENSE))
        moves = Counter({kind: count for kind, count in kinds.items() if kind in MOVES})
        if precision is Precision.FP32:
            # repeat_kv, because attention in fp32 has as many heads of keys as of queries
            assert moves == Counter({"Gather": 2})
            assert kinds["Reshape"] == 8
        else:
            assert not moves
            # to heads and back, unless attention norms queries and keys
            assert kinds["Reshape"] == (0 if profile.norms_heads else 4)


@pytest.mark.parametrize("precision", HALVES)
def test_layers_of_packed_tokens_move_q_k_and_v_to_rows_and_the_context_back(
    graphs: Graphs, precision: Precision
) -> None:
    for profile in profiles():
        kinds = kinds_in_layer(nodes_of(graphs.load(precision, profile), PACKED))
        moves = Counter({kind: count for kind, count in kinds.items() if kind in MOVES})
        if profile.attention is PAGES:
            assert not moves
        elif precision is Precision.BF16 or profile.runtime >= NEW:
            assert moves == Counter({"Gather": 4})
        else:
            # the context comes back with the cells of padding at its end
            assert moves == Counter({"RestorePadding": 4, "Slice": 1})


@pytest.mark.parametrize("precision", Precision)
def test_a_batch_runs_few_casts(graphs: Graphs, precision: Precision) -> None:
    for profile, branch in itertools.product(profiles(), Branch):
        graph = graphs.load(precision, profile)
        casts = [node for node in (*graph.node, *nodes_of(graph, branch)) if node.op_type == "Cast"]
        assert all(node.name.startswith(("rows.", "embedding.", "head.")) for node in casts)
        assert len(casts) <= 13


def test_graphs_have_the_newest_opset_with_kernels_in_all_releases(graphs: Graphs) -> None:
    for precision, profile in itertools.product(Precision, profiles()):
        model = onnx.load(graphs.file(precision, profile), load_external_data=False)
        assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18, "com.microsoft": 1}


# --- branches


@pytest.mark.parametrize("attention", CudaAttention)
@pytest.mark.parametrize("precision", Precision)
def test_branches_share_all_weights(graphs: Graphs, precision: Precision, attention: CudaAttention) -> None:
    for runtime in CHANGES:
        profile = CudaProfile(runtime=runtime, attention=attention)
        graph = graphs.load(precision, profile)
        weights = weight_names(graph) - {"constant.nan", "constant.lost"}
        for branch in Branch:
            assert weights == {name for node in nodes_of(graph, branch) for name in node.input} & weights
        # subgraphs have no initializers of their own
        for node in all_nodes(graph):
            assert all(not attribute.g.initializer for attribute in node.attribute)

        only_packed = CudaProfile(runtime=runtime, attention=attention, dense_batches=False)
        assert weights == weight_names(graphs.load(precision, only_packed))
        both, one = (graphs.file(precision, each).with_name("model.onnx.data") for each in (profile, only_packed))
        assert both.stat().st_size == one.stat().st_size


def test_weights_are_stored_once(graphs: Graphs) -> None:
    """The data of the file is hardly larger than a checkpoint of tied embeddings and three layers."""
    layer = 40 * (64 + 32 + 32) + 64 * 40 + 3 * 40 * 56
    data = graphs.file(Precision.FP16, CudaProfile()).with_name("model.onnx.data").stat().st_size
    assert data == pytest.approx(2 * (300 * 40 + LAYERS * layer), rel=0.1)


def test_graph_without_dense_batches_has_no_branches(graphs: Graphs) -> None:
    for precision, attention in itertools.product(Precision, CudaAttention):
        profile = CudaProfile(attention=attention, dense_batches=False)
        graph = graphs.load(precision, profile)
        assert not any(node.op_type == "If" for node in graph.node)
        packed = nodes_of(graphs.load(precision, CudaProfile(attention=attention)), PACKED)
        assert kinds_in_layer(list(graph.node)) == kinds_in_layer(packed)


@pytest.mark.parametrize("branch", Branch)
@pytest.mark.parametrize("precision", Precision)
def test_product_names_and_shapes(graphs: Graphs, precision: Precision, branch: Branch) -> None:
    widths = {"attention.q": 4 * 16, "attention.k": 2 * 16, "attention.v": 2 * 16, "attention.output": 40}
    widths |= {"mlp.gate": 56, "mlp.up": 56, "mlp.down": 40}
    expected = {f"layers.{index}.{name}": width for index in range(LAYERS) for name, width in widths.items()}
    kind, suffix = ("MatMulNBits", "codes") if precision is Precision.INT8 else ("MatMul", "weight")
    # codes are [out, blocks, block], float weights [in, out]
    out_axis = 0 if precision is Precision.INT8 else 1
    for profile in profiles():
        graph = graphs.load(precision, profile)
        shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        products = [node for node in nodes_of(graph, branch) if node.op_type == kind]
        assert {plain_name(node.name): shapes[node.input[1]][out_axis] for node in products} == expected
        assert [node.input[1] for node in products] == [f"{plain_name(node.name)}.{suffix}" for node in products]


@pytest.mark.parametrize("precision", Precision)
def test_last_layer_computes_only_the_last_tokens(graphs: Graphs, precision: Precision) -> None:
    last = f"layers.{LAYERS - 1}"
    for profile in profiles():
        graph = graphs.load(precision, profile)
        pages = profile.attention_for(DTYPES[precision]) is PAGES
        # attention over rows returns cells, from which the last ones are gathered directly
        sources = {
            DENSE: ("rows.last_cells", "rows.last_cells"),
            PACKED: ("rows.last" if pages else "rows.last_places", "rows.last"),
        }
        for branch, (context, residual) in sources.items():
            nodes = {plain_name(node.name): node for node in nodes_of(graph, branch)}
            for name, indices in ((f"{last}.attention.context", context), (f"{last}.residual", residual)):
                assert (nodes[name].op_type, nodes[name].input[1]) == ("Gather", indices)
            assert plain_name(nodes[f"{last}.attention.output"].input[0]) == f"{last}.attention.context"
            assert plain_name(nodes[f"{last}.mlp.norm"].input[0]) == f"{last}.residual"


@pytest.mark.parametrize("precision", HALVES)
def test_only_head_tensors_are_fp32(graphs: Graphs, precision: Precision) -> None:
    for profile in profiles():
        graph = graphs.load(precision, profile)
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        full = {name for name in weight_names(graph) if types[name] == onnx.TensorProto.FLOAT}
        assert full == {"head.norm.gain", "head.unit.gain"}


# --- operators of newer releases


@pytest.mark.parametrize("precision", HALVES)
def test_newer_inputs_of_attention_are_used_from_their_first_release(graphs: Graphs, precision: Precision) -> None:
    def inputs(runtime: RuntimeVersion, attention: CudaAttention, branch: Branch) -> tuple[str, int]:
        nodes = nodes_of(graphs.load(precision, CudaProfile(runtime=runtime, attention=attention)), branch)
        [node] = [node for node in nodes if plain_name(node.name) == "layers.0.attention.attention"]
        assert all(node.input[:3]), "q, k and v are separate inputs"
        names = {attribute.name for attribute in node.attribute}
        in_operator = "qk_norm_epsilon" in names
        assert ("do_rotary" in names) == (node.op_type == "GroupQueryAttention")
        norms = sum(node.op_type == "SimplifiedLayerNormalization" and "attention" in node.name for node in nodes)
        # if the operator norms q and k, the only other norms are those on the residual stream
        assert norms == (1 if in_operator else 1 + 2 * LAYERS)
        return node.op_type, len(node.input)

    for attention in CudaAttention:
        assert inputs(RuntimeVersion(1, 27), attention, DENSE) == ("GroupQueryAttention", 9)
        assert inputs(ROWS_NORMED, attention, DENSE) == ("GroupQueryAttention", 16)
    assert inputs(RuntimeVersion(1, 27), ROWS, PACKED) == ("GroupQueryAttention", 9)
    assert inputs(ROWS_NORMED, ROWS, PACKED) == ("GroupQueryAttention", 16)
    assert inputs(ROWS_NORMED, PAGES, PACKED) == ("PagedAttention", 8)
    assert inputs(GATED, PAGES, PACKED) == ("PagedAttention", 17)


@pytest.mark.parametrize("branch", Branch)
def test_one_operator_applies_the_gate_in_bf16_from_its_first_release(graphs: Graphs, branch: Branch) -> None:
    for profile in profiles():
        graph = graphs.load(Precision.BF16, profile)
        tables = {tensor.name: tensor for tensor in graph.initializer if "mlp.gain" in tensor.name}
        nodes = nodes_of(graph, branch)
        gates = [node for node in nodes if node.op_type == "GatedRMSNorm"]
        elementwise = {node.op_type for node in nodes if ".mlp." in node.name} & {"Exp", "Add", "Mul", "Div"}
        if profile.runtime < GATED:
            assert not gates
            assert not tables
            assert elementwise == {"Exp", "Add", "Mul", "Div"}
            continue
        assert not elementwise
        [(name, table)] = tables.items()
        assert (table.data_type, list(table.dims)) == (onnx.TensorProto.BFLOAT16, [56])
        for index, node in enumerate(gates):
            prefix = f"layers.{index}.mlp"
            assert (node.domain, plain_name(node.name)) == ("com.microsoft", f"{prefix}.gated")
            assert [plain_name(value) for value in node.input] == [f"{prefix}.up", name, f"{prefix}.gate"]
        assert len(gates) == LAYERS


@pytest.mark.parametrize("branch", Branch)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_other_graphs_apply_the_gate_by_quick_gelu(graphs: Graphs, precision: Precision, branch: Branch) -> None:
    for profile in profiles():
        graph = graphs.load(precision, profile)
        assert not any("mlp.gain" in tensor.name for tensor in graph.initializer)
        kinds = Counter(node.op_type for node in nodes_of(graph, branch) if ".mlp." in node.name)
        assert kinds["QuickGelu"] == kinds["Mul"] == LAYERS
        assert not kinds.keys() & {"GatedRMSNorm", "Exp"}


@pytest.mark.parametrize("dense_batches", [True, False], ids=["branches", "packed only"])
@pytest.mark.parametrize("attention", CudaAttention)
def test_installed_runtime_accepts_types_and_shapes_of_bf16_graphs(
    graphs: Graphs, attention: CudaAttention, dense_batches: bool
) -> None:
    """ONNX Runtime checks schemas before it looks for kernels, which the CPU does not have for bf16."""
    file = graphs.file(Precision.BF16, CudaProfile(attention=attention, dense_batches=dense_batches))
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented):
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


# --- bookkeeping


@dataclass(frozen=True)
class Placement:
    """The nodes outside the branches that ONNX Runtime places on the GPU, and the values that it copies there."""

    on_gpu: set[str]
    copied: set[str]


def place_nodes(graph: onnx.GraphProto, prefix: str) -> Placement:
    """Place the nodes whose names begin with `prefix`, by the rule of GetCpuPreferredNodes.

    A node moves to the CPU if all its inputs are graph inputs, small initializers or values in host memory, at least
    one is the latter, and the CUDA kernel reads none of those from host memory anyway. The rule is in
    onnxruntime/core/framework/fallback_cpu_capability.cc.
    """
    free = {value.name for value in graph.input}
    free |= {tensor.name for tensor in graph.initializer if math.prod(tensor.dims) <= 100}
    host: set[str] = set()
    placement = Placement(set(), set())
    for node in graph.node:
        found = [index for index, name in enumerate(node.input) if name in host]
        moves = found and all(name in host | free for name in node.input)
        read_on_host = READ_ON_HOST.get(node.op_type, set())
        if node.name == CHOICE:
            continue
        if node.op_type == "Shape" or (moves and not read_on_host & set(found)):
            host |= set(node.output)
        elif node.name.startswith(prefix):
            placement.on_gpu.add(node.name)
            placement.copied.update(node.input[index] for index in found if index not in read_on_host)
    return placement


@pytest.mark.parametrize("precision", Precision)
def test_bookkeeping_before_the_branches_is_on_the_host(graphs: Graphs, precision: Precision) -> None:
    for profile in profiles():
        graph = graphs.load(precision, profile)
        # the only tensor on the GPU; its shape is the length of the longest row
        assert place_nodes(graph, "rows.").on_gpu == {"rows.columns"}


def test_rows_are_restored_and_reported_by_five_kernels(graphs: Graphs) -> None:
    for precision, profile in itertools.product(Precision, profiles()):
        if profile.dense_batches:
            placement = place_nodes(graphs.load(precision, profile), "head.")
            names = ("results_of_rows", "restored", "row_sum", "is_nan", "status")
            assert placement.on_gpu == {f"head.{name}" for name in names}
            assert placement.copied == {"rows.rank_of_row", "head.good", "head.nan", "head.nan_status"}


def test_inputs_are_read_by_the_bookkeeping_through_values_in_host_memory(graphs: Graphs) -> None:
    for precision, profile in itertools.product(Precision, profiles()):
        graph = graphs.load(precision, profile)
        inputs = {value.name for value in graph.input}
        readers = {(node.op_type, name) for node in all_nodes(graph) for name in node.input if name in inputs}
        assert readers == {("Shape", "input_ids"), *(("Add", name) for name in inputs)}
        # the shape that Expand reads would keep it on the GPU
        assert not any(node.op_type == "Expand" for node in all_nodes(graph))


def test_bookkeeping_would_be_on_the_gpu_without_the_zero(graphs: Graphs) -> None:
    graph = graphs.load(Precision.FP16, CudaProfile())
    adds = [node for node in graph.node if node.name.startswith("rows.host_") and node.op_type == "Add"]
    renamed = {node.output[0]: node.input[0] for node in adds}
    assert renamed.keys() == {"rows.host_ids", "rows.host_row_lengths", "rows.host_request_lengths"}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    assert len(place_nodes(graph, "rows.").on_gpu) > 25


# --- the table of kernels


def test_kernels_are_distinguished_by_opset_type_and_release() -> None:
    x, y = ir.Value(name="x"), ir.Value(name="y")

    def missing(operator: str, opset: int, dtype: ir.DataType, runtime: RuntimeVersion, domain: str = "") -> bool:
        node = ir.Node(domain, operator, [x, y], name="layers.0.mlp.node")
        return bool(missing_kernels([node], {"": opset, "com.microsoft": 1}, dtype, runtime))

    old, half, full = RuntimeVersion(1, 23, 2), ir.DataType.FLOAT16, ir.DataType.FLOAT
    assert not missing("MatMul", 18, half, old)
    assert not missing("Reshape", 18, half, old)
    # a graph of opset 21 would not run on the GPU in the default image
    assert missing("Reshape", 21, half, old)
    assert not missing("Reshape", 21, half, RuntimeVersion(1, 24, 1))
    assert missing("GroupQueryAttention", 18, full, old, "com.microsoft")
    assert missing("LpNormalization", 18, half, RuntimeVersion(1, 24, 4))
    assert missing("Loop", 18, half, old)
    assert missing("Cast", 18, half, old)
    assert missing("Softplus", 18, half, old)
    assert not missing("Exp", 18, ir.DataType.BFLOAT16, old)
    assert missing("GatedRMSNorm", 18, half, RuntimeVersion(1, 28), "com.microsoft")
    assert not missing("GatedRMSNorm", 18, half, RuntimeVersion(1, 29), "com.microsoft")


def test_error_names_nodes_release_and_a_remedy(tmp_path: Path, graphs: Graphs) -> None:
    model = ir.load(write_graph(graphs.source, tmp_path / "out", Precision.FP16).file)
    with pytest.raises(ExportError, match=r"ONNX Runtime 1\.23\.2 has no CUDA kernel for .*; choose a newer Triton"):
        require_cuda_kernels(model, ir.DataType.FLOAT16, RuntimeVersion(1, 23, 2))


def test_kernel_table_has_no_duplicates_or_unknown_operators() -> None:
    keys = [(kernel.domain, kernel.operator, kernel.since_version) for kernel in CUDA_KERNELS]
    assert len(set(keys)) == len(keys)
    for domain, operator, since in keys:
        if domain == "" and operator != "SimplifiedLayerNormalization":
            assert onnx.defs.get_schema(operator, since, domain).since_version == since
