"""A precision as a type: how weights are stored, how products are computed, and the tolerance of the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ...client.manifest import Precision
from ..architectures import DecoderConfig
from ..onnx_builder import GraphBuilder
from ..sources.checkpoint import Checkpoint
from ..sources.weights import LazyTensor, parts_of
from .lowering import LoweredWeights, LoweringInputs
from .operands import Codes, Operand, ScaledRows, float_rows

FP32 = ir.DataType.FLOAT
_TORCH = {FP32: torch.float32, ir.DataType.FLOAT16: torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Largest deviations at which an export passes its parity checks."""

    cosine: float
    """1 - cosine between an embedding and the fp32 reference."""
    score: float
    """Absolute difference between a reranker's score and the fp32 reference."""
    batched_cosine: float = 1e-5
    """1 - cosine between a row's embeddings computed alone and in a batch."""
    batched_score: float = 1e-3
    """Absolute difference between a row's scores computed alone and in a batch."""


FusedNorm = Callable[[ir.Value, int, float], Codes]
"""Returns the RMSNorm with gain 1 of rows [·, width] as codes, from the rows, the width and epsilon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormat(ABC):
    """How a model stores weights and computes with them; `weight_format` returns the one of a precision and device."""

    precision: Precision
    """Name of the format."""
    tolerance: Tolerance
    """Largest deviations at which an export passes."""
    activations: ir.DataType = FP32
    """Type of activations, and of weights that are not quantized."""
    silu_by_exp: bool = False
    """Whether silu is computed from exp by separate operators, because the fused one is inexact in `activations`."""

    @property
    def activation_bytes(self) -> int:
        """Bytes of one activation."""
        return int(self.activations.itemsize)

    @property
    def may_overflow(self) -> bool:
        """Whether activations are fp16, whose range is small."""
        return self.activations == ir.DataType.FLOAT16

    # --- what the graph computes

    @abstractmethod
    def project(self, g: GraphBuilder, name: str, operand: Operand, weights: Sequence[LazyTensor]) -> ScaledRows:
        """Multiply the operand [·, in] by the concatenated transposes of `weights` [out, in]: [·, Σ out]."""

    @abstractmethod
    def gather_rows(self, g: GraphBuilder, name: str, table: LazyTensor, indices: ir.Value) -> ir.Value:
        """Gather rows of a table [n, width] at `indices` INT64 [T]: [T, width] of type `activations`."""

    def prepare(self, g: GraphBuilder, rows: ScaledRows, width: int, products: Sequence[str]) -> Operand:  # noqa: ARG002
        """Return `rows` [·, width] as the operand of `products`, names in the current scope."""
        return Operand(rows, None)

    def prepare_normed(self, g: GraphBuilder, normed: ir.Value, width: int, products: Sequence[str]) -> Operand:
        """Return an RMSNorm's output [·, width] as the operand of `products`, names in the current scope."""
        return self.prepare(g, ScaledRows(normed), width, products)

    def fused_norm(self, g: GraphBuilder, products: Sequence[str]) -> FusedNorm | None:  # noqa: ARG002
        """Return what replaces an RMSNorm of gain 1 that only `products` read, names in the current scope, if any."""
        return None

    def fp32_paths(self) -> frozenset[str]:
        """Return the paths of products that are computed in floats on request, such as `layers.2.mlp.down`."""
        return frozenset()

    # --- what it stores

    @abstractmethod
    def weight_bytes(self, config: DecoderConfig) -> int:
        """Return the bytes of a decoder's matrices and embedding table."""

    def workspace_bytes(self, config: DecoderConfig) -> int:  # noqa: ARG002
        """Return the bytes that products need on a GPU in addition to activations."""
        return 0

    # --- how weights are lowered to it and checked

    @property
    def needs_calibration(self) -> bool:
        """Whether `lower` needs calibration texts."""
        return False

    @abstractmethod
    def lower(self, inputs: LoweringInputs) -> LoweredWeights:
        """Apply the function-preserving weight passes of this format. Nothing is rounded yet."""

    def planned(self, checkpoint: Checkpoint) -> LoweredWeights:
        """Return weights of the shapes that `lower` returns if every product is stored in this format."""
        return LoweredWeights(checkpoint=checkpoint, format=self)

    @property
    def runs_on_cpu(self) -> bool:
        """Whether ONNX Runtime's CPU provider has kernels for the products."""
        return True

    @abstractmethod
    def fp32_twin(self) -> WeightFormat:
        """Return the format with the same quantized weights and fp32 activations, which a CPU can run."""

    def round_as_stored(self, tensor: LazyTensor) -> LazyTensor:
        """Return `tensor` with its values rounded to this format's float type."""
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
        """Add the concatenated tensors as one float initializer: [in, Σ out], or [Σ out, ...] if not transposed.

        `dtype` defaults to `activations`.
        """
        joined = sum(weight.shape[0] for weight in weights)
        shape = [weights[0].shape[1], joined] if transpose else [joined, *weights[0].shape[1:]]
        stored = self.activations if dtype is None else dtype
        if transpose:
            return g.weight(name, shape, stored, lambda: _transposed(weights, stored))
        return g.weight_in_parts(name, shape, stored, lambda: (as_type(part, stored) for part in parts_of(weights)))

    def _project_float(self, g: GraphBuilder, name: str, operand: Operand, weights: Sequence[LazyTensor]) -> ScaledRows:
        weight = self.load_float(g, f"{name}.weight", weights)
        return ScaledRows(g.op("MatMul", float_rows(g, operand), weight, name=name))

    def _gather_float(self, g: GraphBuilder, name: str, table: LazyTensor, indices: ir.Value) -> ir.Value:
        weight = self.load_float(g, f"{name}.weight", [table], transpose=False)
        return g.op("Gather", weight, indices, axis=0, name="tokens")


def as_type(values: torch.Tensor, dtype: ir.DataType) -> NDArray[np.generic]:
    """Return float32 `values` rounded to the float type `dtype`."""
    if dtype == ir.DataType.BFLOAT16:
        return values.to(torch.bfloat16).view(torch.int16).numpy().view(dtype.numpy())
    rounded: NDArray[np.generic] = values.to(_TORCH[dtype]).numpy()
    return rounded


def _transposed(weights: Sequence[LazyTensor], dtype: ir.DataType) -> NDArray[np.generic]:
    """Return tensors [out, in] as one matrix [in, Σ out], rounded to `dtype` before they are transposed."""
    rows = sum(weight.shape[0] for weight in weights)
    return transpose_parts((as_type(part, dtype) for part in parts_of(weights)), rows)


def transpose_parts(parts: Iterator[NDArray[np.generic]], rows: int) -> NDArray[np.generic]:
    """Return the matrix [n, rows] whose columns are the rows of `parts` [·, n]."""
    joined, first = None, 0
    for part in parts:
        if joined is None:
            # torch has no type for NumPy's bfloat16
            joined = np.empty((rows, part.shape[1]), f"i{part.itemsize}")
            dtype = part.dtype
        joined[first : first + len(part)] = part.view(joined.dtype)
        first += len(part)
    if joined is None:
        raise ValueError("there is no part to transpose")
    # NumPy's memory has large pages, and torch transposes block by block
    transposed = np.empty((joined.shape[1], rows), joined.dtype)
    torch.from_numpy(transposed).copy_(torch.from_numpy(joined).T)
    return transposed.view(dtype)


def matrix_elements(config: DecoderConfig) -> int:
    """Return the number of weights in the matrices of all layers."""
    qkv_width = config.query_width + 2 * config.kv_width
    return config.layers * config.hidden * (qkv_width + config.query_width + 3 * config.intermediate)
