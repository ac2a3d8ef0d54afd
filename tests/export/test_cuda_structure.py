"""Structure of graphs for GPUs: every operator has a CUDA kernel, and layers do not synchronise with the host."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime
import pytest
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
NEWER = [ROWS_NORMED, GATED, NEW]
RUNTIMES = [*dict.fromkeys(release.runtime for release in TritonRelease), *NEWER]
CASES = list(itertools.product(Precision, CudaAttention))
HALVES = [Precision.FP16, Precision.BF16, Precision.INT8]
LAYER_KERNELS = {
    (Precision.FP32, CudaAttention.ROWS): {OLD: 22, ROWS_NORMED: 22, GATED: 22},
    (Precision.FP32, CudaAttention.PAGES): {OLD: 22, ROWS_NORMED: 22, GATED: 22},
    (Precision.FP16, CudaAttention.ROWS): {OLD: 18, ROWS_NORMED: 12, GATED: 11},
    (Precision.FP16, CudaAttention.PAGES): {OLD: 16, ROWS_NORMED: 16, GATED: 9},
    (Precision.BF16, CudaAttention.ROWS): {OLD: 20, ROWS_NORMED: 14, GATED: 11},
    (Precision.BF16, CudaAttention.PAGES): {OLD: 18, ROWS_NORMED: 18, GATED: 9},
    (Precision.INT8, CudaAttention.ROWS): {OLD: 18, ROWS_NORMED: 12, GATED: 11},
    (Precision.INT8, CudaAttention.PAGES): {OLD: 16, ROWS_NORMED: 16, GATED: 9},
}
"""Largest number of kernels in a layer by ONNX Runtime release."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("structure") / "tiny", TinyCheckpoint(layers=LAYERS))


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def case(request: pytest.FixtureRequest) -> tuple[Precision, CudaAttention]:
    chosen: tuple[Precision, CudaAttention] = request.param
    return chosen


def written(source: Path, folder: Path, precision: Precision, profile: CudaProfile) -> Path:
    return write_graph(source, folder, precision, cuda=profile).file


def norms_heads(precision: Precision, attention: CudaAttention, runtime: RuntimeVersion) -> bool:
    """Whether attention takes q, k and v in one tensor."""
    first = ROWS_NORMED if attention is CudaAttention.ROWS else GATED
    return precision is not Precision.FP32 and runtime >= first


def test_every_release_has_a_cuda_kernel_for_every_node(
    tmp_path: Path, source: Path, case: tuple[Precision, CudaAttention]
) -> None:
    precision, attention = case
    for runtime in RUNTIMES:
        file = written(source, tmp_path / str(runtime), precision, CudaProfile(runtime=runtime, attention=attention))
        require_cuda_kernels(ir.load(file), DTYPES[precision], runtime)


def test_layer_has_few_kernels_and_no_copies(
    tmp_path: Path, source: Path, case: tuple[Precision, CudaAttention]
) -> None:
    precision, attention = case
    for runtime, limit in LAYER_KERNELS[case].items():
        profile = CudaProfile(runtime=runtime, attention=attention)
        model = onnx.load(written(source, tmp_path / str(runtime), precision, profile))
        kinds = Counter(node.op_type for node in model.graph.node if node.name.startswith("layers.1."))
        assert not kinds.keys() & {"Cast", "Loop", "If", "Scan", "Transpose", "Shape", "Size", "Compress", "NonZero"}
        joint = norms_heads(precision, attention, runtime)
        assert kinds["MatMulNBits" if precision is Precision.INT8 else "MatMul"] == (5 if joint else 7)
        if precision is Precision.FP32:
            assert kinds["Gather"] == 6
        elif attention is CudaAttention.ROWS:
            # to rows and back
            assert kinds["Gather"] == (2 if joint else 4)
        else:
            assert kinds["Gather"] == 0
        aliases = kinds["Reshape"] + kinds["Unsqueeze"]
        assert kinds.total() - aliases <= limit
        casts = sum(node.op_type == "Cast" for node in model.graph.node)
        # that of the longest row's length, which attention over pages reads if it norms the heads
        assert casts <= (13 if joint and attention is CudaAttention.PAGES else 12)
        assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18, "com.microsoft": 1}


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
def test_product_names_and_shapes(
    tmp_path: Path, source: Path, case: tuple[Precision, CudaAttention], runtime: RuntimeVersion
) -> None:
    precision, attention = case
    model = onnx.load(
        written(source, tmp_path / "out", precision, CudaProfile(runtime=runtime, attention=attention)),
        load_external_data=False,
    )
    heads = {"q": 4 * 16, "k": 2 * 16, "v": 2 * 16}
    if norms_heads(precision, attention, runtime):
        heads = {"qkv": sum(heads.values())}
    widths = {f"attention.{name}": width for name, width in heads.items()}
    widths |= {"attention.output": 40, "mlp.gate": 56, "mlp.up": 56, "mlp.down": 40}
    kind = "MatMulNBits" if precision is Precision.INT8 else "MatMul"
    weights = {node.name: node.input[1] for node in model.graph.node if node.op_type == kind}
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    # codes are [out, blocks, block], float weights [in, out]
    out_axis = 0 if precision is Precision.INT8 else 1
    assert {name: shapes[weight][out_axis] for name, weight in weights.items()} == {
        f"layers.{index}.{name}": width for index in range(LAYERS) for name, width in widths.items()
    }


def test_gate_and_up_are_one_product_on_request(tmp_path: Path, source: Path) -> None:
    profile = CudaProfile(runtime=NEW, joint_gate_up=True)
    model = onnx.load(written(source, tmp_path / "out", Precision.FP16, profile), load_external_data=False)
    products = {node.name for node in model.graph.node if node.op_type == "MatMul"}
    assert {name for name in products if name.startswith("layers.1.mlp.")} == {
        "layers.1.mlp.gate_up",
        "layers.1.mlp.down",
    }
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert shapes["layers.1.mlp.gate_up.weight"] == [40, 2 * 56]


def test_last_layer_computes_only_the_last_tokens(tmp_path: Path, source: Path) -> None:
    model = onnx.load(written(source, tmp_path / "out", Precision.FP16, CudaProfile()), load_external_data=False)
    producer = {out: node for node in model.graph.node for out in node.output}
    [output] = [node for node in model.graph.node if node.name == f"layers.{LAYERS - 1}.attention.output"]
    assert list(producer[output.input[0]].input)[1] == "rows.last_places"


@pytest.mark.parametrize("runtime", [OLD, NEW], ids=str)
@pytest.mark.parametrize("attention", CudaAttention)
@pytest.mark.parametrize("precision", HALVES)
def test_only_head_tensors_are_fp32(
    tmp_path: Path, source: Path, precision: Precision, attention: CudaAttention, runtime: RuntimeVersion
) -> None:
    profile = CudaProfile(runtime=runtime, attention=attention)
    model = onnx.load(written(source, tmp_path / "out", precision, profile), load_external_data=False)
    full = {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and not tensor.name.startswith("constant.")
    }
    assert full == {"head.norm.gain", "head.unit.gain"}


def test_newer_operators_are_used_from_their_first_release(tmp_path: Path, source: Path) -> None:
    def inputs(runtime: RuntimeVersion, attention: CudaAttention) -> int:
        folder = tmp_path / f"{attention}-{runtime}"
        model = onnx.load(written(source, folder, Precision.BF16, CudaProfile(runtime=runtime, attention=attention)))
        [node] = [node for node in model.graph.node if node.name == "layers.0.attention.attention"]
        norms = sum(
            node.op_type == "SimplifiedLayerNormalization" and "attention" in node.name for node in model.graph.node
        )
        # if the operator norms q and k, the only other norms are those on the residual stream
        assert norms == (1 if len(node.input) > 9 else 1 + 2 * LAYERS)
        return len(node.input)

    assert inputs(RuntimeVersion(1, 27), CudaAttention.ROWS) == 9
    assert inputs(RuntimeVersion(1, 28), CudaAttention.ROWS) == 16
    assert inputs(RuntimeVersion(1, 28), CudaAttention.PAGES) == 8
    assert inputs(RuntimeVersion(1, 29), CudaAttention.PAGES) == 17


@pytest.mark.parametrize("attention", CudaAttention)
@pytest.mark.parametrize("precision", HALVES)
def test_one_operator_applies_the_gate_from_its_first_release(
    tmp_path: Path, source: Path, precision: Precision, attention: CudaAttention
) -> None:
    def gates(profile: CudaProfile) -> list[onnx.NodeProto]:
        folder = tmp_path / f"{profile.runtime}-{profile.gated_norm}"
        model = onnx.load(written(source, folder, precision, profile), load_external_data=False)
        tables = {tensor.name: tensor for tensor in model.graph.initializer if "mlp.gain" in tensor.name}
        nodes = [node for node in model.graph.node if node.op_type == "GatedRMSNorm"]
        assert tables.keys() == {node.input[1] for node in nodes}
        for table in tables.values():
            assert (table.data_type, list(table.dims)) == (DTYPES[precision], [56])
        elementwise = {node.op_type for node in model.graph.node if node.name.startswith("layers.0.mlp.")}
        assert bool(nodes) != bool(elementwise & {"Exp", "Mul", "Div", "QuickGelu"})
        return nodes

    assert not gates(CudaProfile(runtime=ROWS_NORMED, attention=attention))
    assert not gates(CudaProfile(runtime=GATED, attention=attention, gated_norm=False))
    nodes = gates(CudaProfile(runtime=GATED, attention=attention))
    assert [node.name for node in nodes] == [f"layers.{index}.mlp.gated" for index in range(LAYERS)]
    [table] = {node.input[1] for node in nodes}
    for index, node in enumerate(nodes):
        assert list(node.input) == [f"layers.{index}.mlp.up", table, f"layers.{index}.mlp.gate"]
        assert node.domain == "com.microsoft"


def test_fp32_graphs_apply_the_gate_by_quick_gelu(tmp_path: Path, source: Path) -> None:
    file = written(source, tmp_path / "out", Precision.FP32, CudaProfile(runtime=NEW))
    model = onnx.load(file, load_external_data=False)
    kinds = Counter(node.op_type for node in model.graph.node if ".mlp." in node.name)
    assert kinds["QuickGelu"] == kinds["Mul"] == LAYERS
    assert not kinds.keys() & {"GatedRMSNorm", "Exp"}


@pytest.mark.parametrize("attention", CudaAttention)
def test_installed_runtime_accepts_types_and_shapes_of_bf16_graphs(
    tmp_path: Path, source: Path, attention: CudaAttention
) -> None:
    """ONNX Runtime checks schemas before it looks for kernels, which the CPU does not have for bf16."""
    file = written(source, tmp_path / "out", Precision.BF16, CudaProfile(attention=attention))
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented):
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


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


def test_error_names_nodes_release_and_a_remedy(tmp_path: Path, source: Path) -> None:
    model = ir.load(write_graph(source, tmp_path / "out", Precision.FP16).file)
    with pytest.raises(ExportError, match=r"ONNX Runtime 1\.23\.2 has no CUDA kernel for .*; choose a newer Triton"):
        require_cuda_kernels(model, ir.DataType.FLOAT16, RuntimeVersion(1, 23, 2))


def test_kernel_table_has_no_duplicates_or_unknown_operators() -> None:
    keys = [(kernel.domain, kernel.operator, kernel.since_version) for kernel in CUDA_KERNELS]
    assert len(set(keys)) == len(keys)
    for domain, operator, since in keys:
        if domain == "" and operator != "SimplifiedLayerNormalization":
            assert onnx.defs.get_schema(operator, since, domain).since_version == since
