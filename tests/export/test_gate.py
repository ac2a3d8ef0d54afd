"""silu(gate) · up in 16 bits: arithmetic of the GPU kernels, simulated, and how graphs use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from graph_branches import Branch, branch_taken, nodes_of, plain_name
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


def gates_of(dtype: torch.dtype) -> torch.Tensor:
    """Return gates from N(-3, 1.5), as they are in trained models."""
    return (torch.randn(256, 1024, generator=torch.Generator().manual_seed(1)) * 1.5 - 3).to(dtype)


def test_silu_by_exp_is_more_exact_in_bf16_than_quick_gelu() -> None:
    gates = gates_of(torch.bfloat16)
    ones = torch.ones_like(gates)
    assert relative_error(gate_by_quick_gelu, gates, ones) == pytest.approx(4.2e-2, rel=0.1)
    assert relative_error(gate_by_exp, gates, ones) == pytest.approx(2.6e-3, rel=0.1)


def test_product_with_up_stays_exact_in_bf16() -> None:
    gates = gates_of(torch.bfloat16)
    up = torch.randn(gates.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    assert relative_error(gate_by_quick_gelu, gates, up) > 2e-2
    assert relative_error(gate_by_exp, gates, up) < 5e-3


def test_quick_gelu_is_eight_times_as_exact_in_fp16() -> None:
    """fp16 has three more bits than bf16. This is the known error of silu in fp16 and int8 graphs."""
    gates = gates_of(torch.float16)
    ones = torch.ones_like(gates)
    assert relative_error(gate_by_quick_gelu, gates, ones) == pytest.approx(5.3e-3, rel=0.1)
    assert relative_error(gate_by_exp, gates, ones) < 5e-4
    up = torch.randn(gates.shape, generator=torch.Generator().manual_seed(2)).half()
    assert relative_error(gate_by_quick_gelu, gates, up) == pytest.approx(5.3e-3, rel=0.1)


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
    """The nodes of a layer's feed-forward network in one branch by plain name, and the graph's initializers."""

    nodes: dict[str, onnx.NodeProto]
    initializers: dict[str, onnx.TensorProto]

    @property
    def operators(self) -> dict[str, str]:
        """The operator of each node."""
        return {name: node.op_type for name, node in self.nodes.items()}

    def inputs(self, name: str) -> list[str]:
        """Return the plain names of a node's inputs."""
        return [value if value in self.initializers else plain_name(value) for value in self.nodes[name].input]

    def values(self, name: str) -> NDArray[np.float64]:
        """Return the values of an initializer."""
        return onnx.numpy_helper.to_array(self.initializers[name]).astype(np.float64)

    def bits(self, name: str) -> NDArray[np.uint16]:
        """Return the bit patterns of a 16-bit initializer."""
        return onnx.numpy_helper.to_array(self.initializers[name]).view(np.uint16)


def load_mlp(file: Path, layer: int, branch: Branch) -> Mlp:
    graph = onnx.load(file).graph
    prefix = f"layers.{layer}.mlp."
    nodes = [node for node in nodes_of(graph, branch) if node.name.startswith(prefix)]
    return Mlp(
        nodes={plain_name(node.name).removeprefix(prefix): node for node in nodes},
        initializers={tensor.name: tensor for tensor in graph.initializer},
    )


def checkpoint_bits(layer: int, part: str) -> NDArray[np.uint16]:
    """Return the bit patterns of a bf16 matrix of the checkpoint: [in, out]."""
    matrix = stored_tensors(TINY)[f"layers.{layer}.mlp.{part}_proj.weight"]
    assert matrix.dtype == torch.bfloat16
    bits: NDArray[np.uint16] = matrix.T.contiguous().view(torch.int16).numpy().view(np.uint16)
    return bits


@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("branch", Branch)
@pytest.mark.parametrize("attention", CudaAttention)
def test_bf16_graph_computes_silu_by_exp(
    tmp_path: Path, source: Path, attention: CudaAttention, branch: Branch, layer: int
) -> None:
    profile = CudaProfile(runtime=OLD, attention=attention)
    mlp = load_mlp(write_graph(source, tmp_path / "out", Precision.BF16, cuda=profile).file, layer, branch)
    prefix = f"layers.{layer}.mlp"
    assert mlp.operators == {
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
    assert mlp.values(one).tolist() == 1.0
    assert mlp.inputs("gate_times_up") == [f"{prefix}.gate", f"{prefix}.up"]
    assert mlp.inputs("gated") == [f"{prefix}.gate_times_up", f"{prefix}.denominator"]
    assert mlp.inputs("down") == [f"{prefix}.gated", f"{prefix}.down.weight"]
    for part in ("gate", "up"):
        assert mlp.inputs(part) == [f"{prefix}.norm.0", f"{prefix}.{part}.weight"]
        np.testing.assert_array_equal(mlp.bits(f"{prefix}.{part}.weight"), checkpoint_bits(layer, part) ^ SIGN_BIT)
    np.testing.assert_array_equal(mlp.bits(f"{prefix}.down.weight"), checkpoint_bits(layer, "down"))


@pytest.mark.parametrize("branch", Branch)
@pytest.mark.parametrize("runtime", [OLD, NEW], ids=str)
def test_fp16_graph_computes_silu_by_quick_gelu(
    tmp_path: Path, source: Path, runtime: RuntimeVersion, branch: Branch
) -> None:
    written = write_graph(source, tmp_path / "out", Precision.FP16, cuda=CudaProfile(runtime=runtime))
    mlp = load_mlp(written.file, 0, branch)
    assert mlp.operators == {
        "norm": "SkipSimplifiedLayerNormalization",
        "gate": "MatMul",
        "up": "MatMul",
        "silu": "QuickGelu",
        "Mul": "Mul",
        "down": "MatMul",
    }
    assert {attribute.name: attribute.f for attribute in mlp.nodes["silu"].attribute} == {"alpha": 1.0}
    prefix = "layers.0.mlp"
    assert mlp.inputs("silu") == [f"{prefix}.gate"]
    assert mlp.inputs("Mul") == [f"{prefix}.silu", f"{prefix}.up"]
    for part in ("gate", "up"):
        bf16 = torch.from_numpy(checkpoint_bits(0, part).view(np.int16)).view(torch.bfloat16)
        np.testing.assert_array_equal(mlp.values(f"{prefix}.{part}.weight"), bf16.half().double().numpy())


@pytest.mark.parametrize("branch", Branch)
def test_weights_are_not_negated_for_a_fused_gate(tmp_path: Path, source: Path, branch: Branch) -> None:
    profile = CudaProfile(runtime=NEW)
    mlp = load_mlp(write_graph(source, tmp_path / "out", Precision.BF16, cuda=profile).file, 0, branch)
    for part in ("gate", "up"):
        assert mlp.inputs(part)[1] == f"layers.0.mlp.{part}.weight"
        np.testing.assert_array_equal(mlp.bits(f"layers.0.mlp.{part}.weight"), checkpoint_bits(0, part))


@pytest.mark.parametrize("runtime", [OLD, NEW], ids=str)
def test_fp32_twin_of_a_bf16_graph_equals_transformers(tmp_path: Path, source: Path, runtime: RuntimeVersion) -> None:
    profile = CudaProfile(cpu_twin=True, runtime=runtime)
    written = write_graph(source, tmp_path / "out", Precision.BF16, cuda=profile)
    for branch, lengths in ((Branch.PACKED, [1, 2, 7, 33, 64]), (Branch.DENSE, [12, 11, 12])):
        operators = set(load_mlp(written.file, 0, branch).operators.values())
        assert {"Exp", "Div"} <= operators
        assert not operators & {"QuickGelu", "GatedRMSNorm"}
        rows = random_rows(lengths)
        assert branch_taken(written.file, rows) is branch
        assert min_cosine(written.session.run(rows), official_vectors(source, rows)) >= 0.999999


# --- GatedRMSNorm


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedNorm:
    """GatedRMSNorm with the gain and epsilon of a graph, computed in fp32 like ONNX Runtime's CUDA kernel."""

    gain: float
    eps: float

    def __call__(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        x, z = up.float(), gate.float()
        factor = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)
        return (x * factor * self.gain * (z * torch.sigmoid(z))).bfloat16()


@pytest.fixture(scope="module")
def norm(source: Path, tmp_path_factory: pytest.TempPathFactory) -> GatedNorm:
    """The operator with the attributes and the gain of a graph for `NEW`."""
    folder = tmp_path_factory.mktemp("gate") / "out"
    written = write_graph(source, folder, Precision.BF16, cuda=CudaProfile(runtime=NEW))
    found = set()
    for branch in Branch:
        mlp = load_mlp(written.file, 0, branch)
        attributes = {attribute.name: attribute for attribute in mlp.nodes["gated"].attribute}
        assert attributes["activation"].s == b"silu"
        [gain] = set(mlp.values(mlp.inputs("gated")[1]).tolist())
        found.add(GatedNorm(gain=gain, eps=attributes["epsilon"].f))
    [norm] = found
    return norm


def ordinals(values: torch.Tensor) -> torch.Tensor:
    """Number 16-bit floats in ascending order: neighbors differ by 1."""
    bits = values.view(torch.int16).int()
    return torch.where(bits >= 0, bits, -(bits & 0x7FFF))


def ulps(norm: GatedNorm, gate: torch.Tensor, up: torch.Tensor) -> int:
    """Return the largest distance from the exact result, rounded to bf16, in units in the last place."""
    exact = gate_exactly(gate, up).bfloat16()
    assert torch.isfinite(exact).all()
    return int((ordinals(norm(gate, up)) - ordinals(exact)).abs().max())


def random_gates() -> torch.Tensor:
    return (torch.randn(2000, WIDTH, generator=torch.Generator().manual_seed(3)) * 4 - 2).bfloat16()


def test_gain_is_the_root_of_epsilon(norm: GatedNorm) -> None:
    assert norm.gain**2 == norm.eps == 2.0**80


@pytest.mark.parametrize("size", [1e-4, 1.0, 1000.0, 1e6, 1e9])
def test_gated_norm_is_silu_times_up_within_one_ulp(norm: GatedNorm, size: float) -> None:
    gates = random_gates()
    up = (torch.randn(gates.shape, generator=torch.Generator().manual_seed(6)) * size).bfloat16()
    assert ulps(norm, gates, up) <= 1


def test_one_large_value_in_a_row_does_not_change_the_others(norm: GatedNorm) -> None:
    """The mean of squares is that of the whole row."""
    gates = random_gates()
    up = torch.randn(gates.shape, generator=torch.Generator().manual_seed(6)).bfloat16()
    up[:, 7] = 1e9
    assert ulps(norm, gates, up) <= 1
