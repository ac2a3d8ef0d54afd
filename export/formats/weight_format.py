"""What a precision decides: how weights are stored, how products are computed, and how exact the result must be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ...client.manifest import Precision
from ..architectures import DecoderConfig
from ..onnx_builder import GraphBuilder
from ..sources.weights import LazyTensor
from .lowering import LoweredWeights, LoweringInputs
from .operands import Codes, Operand, ScaledRows, float_rows

FP32 = ir.DataType.FLOAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Largest deviations that an export may show; see `verification.parity` for how they are measured."""

    cosine: float
    """1 - cosine between an embedding and the fp32 reference."""
    score: float
    """Difference between a reranker's score and the fp32 reference."""
    batched_cosine: float = 1e-5
    """1 - cosine between a row's embedding alone and in a batch."""
    batched_score: float = 1e-3
    """Difference between a row's score alone and in a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormat(ABC):
    """One way to store weights and compute with them; `table` maps `(precision, device)` to one."""

    precision: Precision
    tolerance: Tolerance
    activations: ir.DataType = FP32
    """Type of activations between products, and of the weights that stay floats."""

    @property
    def activation_bytes(self) -> int:
        """Bytes of one activation."""
        return int(self.activations.itemsize)

    # --- what the graph computes

    @abstractmethod
    def project(self, g: GraphBuilder, name: str, operand: Operand, weights: Sequence[LazyTensor]) -> ScaledRows:
        """Multiply the operand [·, in] by the transposes of `weights` [out, in], side by side: [·, Σ out]."""

    @abstractmethod
    def gather_rows(self, g: GraphBuilder, name: str, table: LazyTensor, indices: ir.Value) -> ir.Value:
        """Look up rows of a table [n, width] at INT64 [T] `indices`: [T, width] of type `activations`."""

    def prepare(self, g: GraphBuilder, rows: ScaledRows, width: int, products: Sequence[str]) -> Operand:  # noqa: ARG002
        """Return `rows` [·, width] as the operand of the named `products` of this scope."""
        return Operand(rows, None)

    def prepare_normed(self, g: GraphBuilder, normed: ir.Value, width: int, products: Sequence[str]) -> Operand:
        """Return the output [·, width] of an RMSNorm as the operand of the named `products` of this scope."""
        return self.prepare(g, ScaledRows(normed), width, products)

    def fuses_norm(self, g: GraphBuilder, products: Sequence[str]) -> bool:  # noqa: ARG002
        """Whether `norm_to_codes` can replace an RMSNorm without gain that only the named `products` read."""
        return False

    def norm_to_codes(self, g: GraphBuilder, rows: ir.Value, width: int, eps: float) -> Codes:
        """Return the RMSNorm, without gain, of `rows` [·, width] as codes. Only where `fuses_norm` holds."""
        raise NotImplementedError(f"{type(self).__name__} does not quantise norm outputs")

    def fp32_paths(self) -> frozenset[str]:
        """Paths of the products that this format was told to compute in floats, `layers.2.mlp.down` for example."""
        return frozenset()

    # --- what it stores

    @abstractmethod
    def weight_bytes(self, config: DecoderConfig) -> int:
        """Bytes of the matrices and the embedding table of a decoder."""

    def workspace_bytes(self, config: DecoderConfig) -> int:  # noqa: ARG002
        """Bytes of memory that products take on a GPU beside activations."""
        return 0

    # --- how it is reached and checked

    @property
    def needs_calibration(self) -> bool:
        """Whether `lower` measures activations over texts."""
        return False

    @abstractmethod
    def lower(self, inputs: LoweringInputs) -> LoweredWeights:
        """Apply the weight passes that this format needs. Function-preserving; nothing is rounded yet."""

    @property
    def runs_on_cpu(self) -> bool:
        """Whether ONNX Runtime's CPU provider has kernels for the products, whatever the format is meant for."""
        return True

    @abstractmethod
    def fp32_twin(self) -> WeightFormat:
        """Return the format with the same stored weights and fp32 activations, which a CPU can run."""

    def round_as_stored(self, tensor: LazyTensor) -> LazyTensor:
        """Return `tensor` with the values that a graph in this format's float type holds."""
        return tensor

    # --- shared by the formats

    def load_float(
        self,
        g: GraphBuilder,
        name: str,
        weights: Sequence[LazyTensor],
        *,
        transpose: bool = True,
        dtype: ir.DataType | None = None,
    ) -> ir.Value:
        """Add the tensors, side by side, as one float initializer: matrices [in, Σ out], or [Σ out, ...] untransposed.

        `dtype` defaults to the type of activations.
        """
        joined = sum(weight.shape[0] for weight in weights)
        shape = [weights[0].shape[1], joined] if transpose else [joined, *weights[0].shape[1:]]
        return g.weight(
            name,
            shape,
            self.activations if dtype is None else dtype,
            lambda: join_tensors(weights).T if transpose else join_tensors(weights),
        )

    def _project_float(self, g: GraphBuilder, name: str, operand: Operand, weights: Sequence[LazyTensor]) -> ScaledRows:
        weight = self.load_float(g, f"{name}.weight", weights)
        return ScaledRows(g.op("MatMul", float_rows(g, operand), weight, name=name))

    def _gather_float(self, g: GraphBuilder, name: str, table: LazyTensor, indices: ir.Value) -> ir.Value:
        weight = self.load_float(g, f"{name}.weight", [table], transpose=False)
        return g.op("Gather", weight, indices, axis=0, name="tokens")


def join_tensors(tensors: Sequence[LazyTensor]) -> NDArray[np.float32]:
    """Return float32 [Σ out, in] from tensors [out, in], one after the other."""
    joined: NDArray[np.float32] = torch.cat([tensor.fp32() for tensor in tensors]).numpy()
    return joined


def matrix_elements(config: DecoderConfig) -> int:
    """Number of weights in the matrices of all layers."""
    attended = config.query_width + 2 * config.kv_width
    return config.layers * config.hidden * (attended + config.query_width + 3 * config.intermediate)
