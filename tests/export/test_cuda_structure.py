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
NEWER = [RuntimeVersion(1, 28), RuntimeVersion(1, 31, 1)]
RUNTIMES = [*dict.fromkeys(release.runtime for release in TritonRelease), *NEWER]
CASES = list(itertools.product(Precision, CudaAttention))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("structure") / "tiny", TinyCheckpoint(layers=LAYERS))


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def case(request: pytest.FixtureRequest) -> tuple[Precision, CudaAttention]:
    chosen: tuple[Precision, CudaAttention] = request.param
    return chosen


def written(source: Path, folder: Path, precision: Precision, profile: CudaProfile) -> Path:
    return write_graph(source, folder, precision, cuda=profile).file


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
    model = onnx.load(written(source, tmp_path / "out", precision, CudaProfile(attention=attention)))
    kinds = Counter(node.op_type for node in model.graph.node if node.name.startswith("layers.1."))
    assert not kinds.keys() & {"Cast", "Loop", "If", "Scan", "Transpose", "Shape", "Size", "Compress", "NonZero"}
    assert kinds["MatMulNBits" if precision is Precision.INT8 else "MatMul"] == 4
    pages = attention is CudaAttention.PAGES and precision is not Precision.FP32
    assert kinds["Gather"] == (0 if pages else 6 if precision is Precision.FP32 else 4)
    aliases = kinds["Reshape"] + kinds["Unsqueeze"]
    assert kinds.total() - aliases <= (21 if precision is Precision.FP32 else 17)
    casts = sum(node.op_type == "Cast" for node in model.graph.node)
    assert casts <= 12
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18, "com.microsoft": 1}


def test_products_of_one_operand_are_joined_and_compute_no_padding(tmp_path: Path, source: Path) -> None:
    model = onnx.load(written(source, tmp_path / "out", Precision.FP16, CudaProfile()))
    weights = {node.name: node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    assert sorted(weights) == sorted(
        f"layers.{index}.{name}"
        for index in range(LAYERS)
        for name in ("attention.qkv", "attention.output", "mlp.gate_up", "mlp.down")
    )
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert shapes["layers.0.attention.qkv.weight"] == [40, 4 * 16 + 2 * 16 + 2 * 16]
    assert shapes["layers.0.mlp.gate_up.weight"] == [40, 2 * 56]
    # after its attention, the last layer computes only each text's last token
    producer = {out: node for node in model.graph.node for out in node.output}
    [output] = [node for node in model.graph.node if node.name == f"layers.{LAYERS - 1}.attention.output"]
    assert list(producer[output.input[0]].input)[1] == "rows.last_places"


@pytest.mark.parametrize("attention", CudaAttention)
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16, Precision.INT8])
def test_only_head_tensors_are_fp32(
    tmp_path: Path, source: Path, precision: Precision, attention: CudaAttention
) -> None:
    model = onnx.load(written(source, tmp_path / "out", precision, CudaProfile(attention=attention)))
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
