"""silu(gate) · up in 16 bits: arithmetic of the GPU kernels, simulated, and how graphs use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from tiny_checkpoint import TinyCheckpoint, stored_tensors, write_checkpoint
from written_graph import min_cosine, official_vectors, random_rows, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.export import CudaAttention, RuntimeVersion
from qwen3_triton.export.graph import CudaProfile

LAYERS = 2
TINY = TinyCheckpoint(layers=LAYERS, dtype=torch.bfloat16)
OLD, NEW = RuntimeVersion(1, 23, 2), RuntimeVersion(1, 31, 1)
SIGN_BIT = np.uint16(0x8000)
WIDTH = 512

Activation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("gate") / "tiny", TINY)


# --- silu from exp


def gate_by_quick_gelu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Compute QuickGelu(gate) · up like ONNX Runtime's CUDA kernels, which round each operation to the type."""
    positive, negative = 1 / (1 + torch.exp(-gate)), 1 - 1 / (1 + torch.exp(gate))
    return gate * torch.where(gate >= 0, positive, negative) * up


def gate_by_exp(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Compute n · m / (1 + exp(n)) with n = -gate and m = -up, each operation rounded to the type."""
    negated_gate, negated_up = -gate, -up
    return negated_gate * negated_up / (1 + torch.exp(negated_gate))


def gate_exactly(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gate.double()) * up.double()


def relative_error(activation: Activation, gate: torch.Tensor, up: torch.Tensor) -> float:
    """Return ‖error‖ / ‖exact result‖."""
    exact = gate_exactly(gate, up)
    return float((activation(gate, up).double() - exact).norm() / exact.norm())


def bf16_gates() -> torch.Tensor:
    """Return gates from N(-3, 1.5), as they are in trained models."""
    return (torch.randn(256, 1024, generator=torch.Generator().manual_seed(1)) * 1.5 - 3).bfloat16()


def test_silu_by_exp_is_more_exact_in_bf16_than_quick_gelu() -> None:
    gates = bf16_gates()
    ones = torch.ones_like(gates)
    assert relative_error(gate_by_quick_gelu, gates, ones) == pytest.approx(4.2e-2, rel=0.1)
    assert relative_error(gate_by_exp, gates, ones) == pytest.approx(2.6e-3, rel=0.1)


def test_product_with_up_stays_exact_in_bf16() -> None:
    gates = bf16_gates()
    up = torch.randn(gates.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    assert relative_error(gate_by_quick_gelu, gates, up) > 2e-2
    assert relative_error(gate_by_exp, gates, up) < 5e-3


def test_quick_gelu_cancels_in_bf16() -> None:
    gate, one = torch.tensor([-6.0]).bfloat16(), torch.ones(1).bfloat16()
    assert gate_by_quick_gelu(gate, one).item() == 0
    assert gate_by_exp(gate, one).item() == pytest.approx(-0.0148, rel=5e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32 twin"])
def test_exp_may_overflow_and_underflow(dtype: torch.dtype) -> None:
    gates = torch.tensor([-1e30, -200.0, -90.0, 0.0, 90.0, 200.0, 1e30]).to(dtype)
    up = torch.full_like(gates, -3.0)
    result = gate_by_exp(gates, up)
    assert torch.isinf(torch.exp(-gates[:2])).all()
    assert result[:4].abs().max() < 1e-30
    torch.testing.assert_close(result[4:], gates[4:] * -3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp:
    """The nodes of a layer's feed-forward network by name, and the graph's initializers."""

    nodes: dict[str, ir.Node]
    initializers: dict[str, NDArray[np.generic]]

    def inputs(self, name: str) -> list[str | None]:
        return [None if value is None else value.name for value in self.nodes[name].inputs]

    def bits(self, name: str) -> NDArray[np.uint16]:
        """Return the bit patterns of a 16-bit initializer."""
        return self.initializers[name].view(np.uint16)


def load_mlp(file: Path, layer: int) -> Mlp:
    graph = ir.load(file).graph
    prefix = f"layers.{layer}.mlp."
    initializers = {
        name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value is not None
    }
    nodes = {node.name.removeprefix(prefix): node for node in graph if node.name and node.name.startswith(prefix)}
    return Mlp(nodes=nodes, initializers=initializers)


def checkpoint_bits(layer: int, part: str) -> NDArray[np.uint16]:
    """Return the bit patterns of a bf16 matrix of the checkpoint: [in, out]."""
    matrix = stored_tensors(TINY)[f"layers.{layer}.mlp.{part}_proj.weight"]
    assert matrix.dtype == torch.bfloat16
    bits: NDArray[np.uint16] = matrix.T.contiguous().view(torch.int16).numpy().view(np.uint16)
    return bits


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("attention", CudaAttention)
def test_bf16_graph_computes_silu_by_exp(tmp_path: Path, source: Path, attention: CudaAttention, layer: int) -> None:
    profile = CudaProfile(runtime=OLD, attention=attention)
    mlp = load_mlp(write_graph(source, tmp_path / "out", Precision.BF16, cuda=profile).file, layer)
    prefix = f"layers.{layer}.mlp"
    operators = {name: node.op_type for name, node in mlp.nodes.items()}
    assert operators == {
        "norm": "SkipSimplifiedLayerNormalization",
        "gate": "MatMul",
        "up": "MatMul",
        "exp": "Exp",
        "denominator": "Add",
        "gate_times_up": "Mul",
        "gated": "Div",
        "down": "MatMul",
    }
    assert mlp.inputs("exp") == [f"{prefix}.gate"]
    numerator, one = mlp.inputs("denominator")
    assert numerator == f"{prefix}.exp"
    assert one is not None
    assert mlp.initializers[one].astype(np.float32).tolist() == 1.0
    assert mlp.inputs("gate_times_up") == [f"{prefix}.gate", f"{prefix}.up"]
    assert mlp.inputs("gated") == [f"{prefix}.gate_times_up", f"{prefix}.denominator"]
    assert mlp.inputs("down") == [f"{prefix}.gated", f"{prefix}.down.weight"]
    for part in ("gate", "up"):
        assert mlp.inputs(part) == [f"{prefix}.norm.0", f"{prefix}.{part}.weight"]
        np.testing.assert_array_equal(mlp.bits(f"{prefix}.{part}.weight"), checkpoint_bits(layer, part) ^ SIGN_BIT)
    np.testing.assert_array_equal(mlp.bits(f"{prefix}.down.weight"), checkpoint_bits(layer, "down"))


def test_joint_product_of_a_bf16_graph_is_negated(tmp_path: Path, source: Path) -> None:
    profile = CudaProfile(runtime=OLD, joint_gate_up=True)
    mlp = load_mlp(write_graph(source, tmp_path / "out", Precision.BF16, cuda=profile).file, 0)
    joint = np.concatenate([checkpoint_bits(0, "gate"), checkpoint_bits(0, "up")], axis=1)
    np.testing.assert_array_equal(mlp.bits("layers.0.mlp.gate_up.weight"), joint ^ SIGN_BIT)
    assert mlp.inputs("exp") == ["layers.0.mlp.halves.0"]
    assert mlp.inputs("gate_times_up") == ["layers.0.mlp.halves.0", "layers.0.mlp.halves.1"]


def test_weights_are_not_negated_for_a_fused_gate(tmp_path: Path, source: Path) -> None:
    profile = CudaProfile(runtime=NEW)
    mlp = load_mlp(write_graph(source, tmp_path / "out", Precision.BF16, cuda=profile).file, 0)
    for part in ("gate", "up"):
        np.testing.assert_array_equal(mlp.bits(f"layers.0.mlp.{part}.weight"), checkpoint_bits(0, part))


@pytest.mark.parametrize(
    "profile",
    [
        CudaProfile(cpu_twin=True),
        CudaProfile(cpu_twin=True, runtime=NEW),
        CudaProfile(cpu_twin=True, joint_gate_up=True),
    ],
    ids=["default release", "newer release", "joint gate and up"],
)
def test_fp32_twin_of_a_bf16_graph_equals_transformers(tmp_path: Path, source: Path, profile: CudaProfile) -> None:
    rows = random_rows([1, 2, 7, 33, 64])
    written = write_graph(source, tmp_path / "out", Precision.BF16, cuda=profile)
    operators = {node.op_type for node in load_mlp(written.file, 0).nodes.values()}
    assert {"Exp", "Div"} <= operators
    assert not operators & {"QuickGelu", "GatedRMSNorm"}
    assert min_cosine(written.session.run(rows), official_vectors(source, rows)) >= 0.999999


# --- GatedRMSNorm


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedNorm:
    """GatedRMSNorm with the gain and epsilon of a graph, computed in fp32 like ONNX Runtime's CUDA kernel."""

    dtype: torch.dtype
    gain: float
    eps: float

    def __call__(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return self.unrounded(gate, up).to(self.dtype)

    def unrounded(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        x, z = up.float(), gate.float()
        factor = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)
        return x * factor * self.gain * (z * torch.sigmoid(z))


def gated_norm_of_graph(source: Path, folder: Path, precision: Precision) -> GatedNorm:
    """Return the operator with the attributes and the gain of a graph for `NEW`."""
    mlp = load_mlp(write_graph(source, folder, precision, cuda=CudaProfile(runtime=NEW)).file, 0)
    attributes = mlp.nodes["gated"].attributes
    assert attributes["activation"].as_string() == "silu"
    table = mlp.inputs("gated")[1]
    assert table is not None
    [gain] = set(mlp.initializers[table].astype(np.float64).tolist())
    dtype = torch.bfloat16 if precision is Precision.BF16 else torch.float16
    return GatedNorm(dtype=dtype, gain=gain, eps=attributes["epsilon"].as_float())


@pytest.fixture(scope="module")
def fp16_norm(source: Path, tmp_path_factory: pytest.TempPathFactory) -> GatedNorm:
    return gated_norm_of_graph(source, tmp_path_factory.mktemp("gate") / "out", Precision.FP16)


@pytest.fixture(scope="module")
def bf16_norm(source: Path, tmp_path_factory: pytest.TempPathFactory) -> GatedNorm:
    return gated_norm_of_graph(source, tmp_path_factory.mktemp("gate") / "out", Precision.BF16)


def ordinals(values: torch.Tensor) -> torch.Tensor:
    """Number 16-bit floats in ascending order: neighbors differ by 1."""
    bits = values.view(torch.int16).int()
    return torch.where(bits >= 0, bits, -(bits & 0x7FFF))


def ulps(norm: GatedNorm, gate: torch.Tensor, up: torch.Tensor) -> int:
    """Return the largest distance from the exact result, rounded to the type, in units in the last place."""
    exact = gate_exactly(gate, up).to(norm.dtype)
    assert torch.isfinite(exact).all()
    return int((ordinals(norm(gate, up)) - ordinals(exact)).abs().max())


def random_gates(dtype: torch.dtype) -> torch.Tensor:
    return (torch.randn(2000, WIDTH, generator=torch.Generator().manual_seed(3)) * 4 - 2).to(dtype)


def random_signs(shape: torch.Size) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4)).sign()


def test_gain_is_the_root_of_epsilon(fp16_norm: GatedNorm, bf16_norm: GatedNorm) -> None:
    assert (fp16_norm.gain, fp16_norm.eps) == (2.0**15, 2.0**30)
    assert bf16_norm.gain**2 == bf16_norm.eps == 2.0**80


@pytest.mark.parametrize("size", [1e-4, 1.0, 30.0, 1000.0])
def test_gated_norm_is_silu_times_up_within_one_ulp_in_fp16(fp16_norm: GatedNorm, size: float) -> None:
    """Every |u| is `size`, the largest mean(u²) at which no |u| is larger."""
    gates = random_gates(torch.float16)
    assert ulps(fp16_norm, gates, (random_signs(gates.shape) * size).half()) <= 1
    spread = torch.rand(gates.shape, generator=torch.Generator().manual_seed(5)) * size * random_signs(gates.shape)
    assert ulps(fp16_norm, gates, spread.half()) <= 1


@pytest.mark.parametrize("size", [1e-4, 1.0, 1000.0, 1e6, 1e9])
def test_gated_norm_is_silu_times_up_within_one_ulp_in_bf16(bf16_norm: GatedNorm, size: float) -> None:
    gates = random_gates(torch.bfloat16)
    up = (torch.randn(gates.shape, generator=torch.Generator().manual_seed(6)) * size).bfloat16()
    assert ulps(bf16_norm, gates, up) <= 1


@pytest.mark.parametrize("size", [256.0, 1024.0, 4096.0, 8192.0])
def test_large_values_shrink_by_their_mean_square_in_fp16(fp16_norm: GatedNorm, size: float) -> None:
    """The relative change is mean(u²) / 2^31 as long as that is small: 3e-5 at 256, 5e-4 at 1024, 3e-2 at 8192."""
    gates = random_gates(torch.float16)
    up = (random_signs(gates.shape) * size).half()
    exact = gate_exactly(gates, up)
    change = 1 - fp16_norm.unrounded(gates, up).double() / exact
    assert change.median().item() == pytest.approx(size**2 / 2**31, rel=0.06)


def test_one_large_value_in_a_row_hardly_changes_the_others(fp16_norm: GatedNorm) -> None:
    """Large values of trained models are few: mean(u²) is that of the whole row."""
    gates = random_gates(torch.float16)
    up = random_signs(gates.shape).half()
    up[:, 7] = 16384.0
    gates[:, 7] = 1.0
    # 16384² / 512 / 2^31 is half a unit in the last place
    assert ulps(fp16_norm, gates, up) <= 1
