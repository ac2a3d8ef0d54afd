"""The change of one tensor by one adapter.

T(W) = S or W, the tensor that the adapter was trained on or has whole
T(W) += s · B·A for each pair (arXiv:2106.09685), or + s · b for a bias
T(W)  = m · T(W) / ‖T(W)‖ for DoRA (arXiv:2402.09353)
rows of T(W) = trained tokens
ΔW    = weight · (T(W) − W)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..sources.weights import LazyTensor

_MAGNITUDE_ROUNDING = 2.0**-8
"""Relative error of a norm that is stored in bf16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankPair:
    """s · B·A, or its transpose."""

    down: LazyTensor
    """A [r, in]"""
    up: LazyTensor
    """B [out, r]"""
    scaling: float
    transposed: bool = False
    """Whether B·A is [hidden, vocabulary], the transpose of the embedding table."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor that the pair changes."""
        shape = (self.up.shape[0], self.down.shape[1])
        return shape[::-1] if self.transposed else shape

    def product(self, rows: Sequence[int] | None) -> torch.Tensor:
        """Return s · B·A as float32, or some rows of it."""
        down, up = self.down.fp32(), self.up
        if self.transposed:
            return (up.fp32() @ (down if rows is None else down[:, list(rows)])).mul_(self.scaling).T
        return (_values(up, rows) @ down).mul_(self.scaling)

    def norm(self) -> float:
        """Return the Frobenius norm of s · B·A, without the product: ‖BA‖² is the sum of (BᵀB) ∘ (AAᵀ)."""
        down, up = self.down.fp32().double(), self.up.fp32().double()
        square = float(((up.T @ up) * (down @ down.T)).sum())
        return abs(self.scaling) * math.sqrt(max(square, 0.0)) if math.isfinite(square) else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRows:
    """Rows of the embeddings after training."""

    rows: Sequence[int]
    values: LazyTensor
    """[rows, hidden]"""

    def put_into(self, table: torch.Tensor, rows: Sequence[int] | None) -> torch.Tensor:
        """Return `table`, all rows of the embeddings or only `rows`, with the trained ones replaced."""
        trained = {row: index for index, row in enumerate(self.rows)}
        if rows is not None:
            trained = {place: trained[row] for place, row in enumerate(rows) if row in trained}
        places = torch.tensor(list(trained), dtype=torch.int64)
        return table.index_copy(0, places, self.values.fp32()[list(trained.values())])


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorChange:
    """The change of one tensor by one adapter."""

    target: str
    weight: float
    """Factor of the adapter."""
    start: LazyTensor | None = None
    """S; None starts at the base."""
    pairs: tuple[LowRankPair, ...] = ()
    bias: LazyTensor | None = None
    """b [out] of `lora_bias`."""
    bias_scaling: float = 1.0
    magnitude: LazyTensor | None = None
    """m: norms of the rows; of the embeddings, norms of the columns."""
    tokens: TrainedRows | None = None

    def delta(self, base: LazyTensor, rows: Sequence[int] | None = None) -> torch.Tensor:
        """Return a new float32 tensor: ΔW, or some rows of it; `base` is W, the tensor before any adapter."""
        if rows is not None and self.needs_all_rows:
            return self.delta(base)[list(rows)]
        additions = [pair.product(rows) for pair in self.pairs]
        if self.bias is not None:
            additions.append(self.bias_scaling * _values(self.bias, rows))
        if self._is_product:
            return sum(additions[1:], additions[0]).mul_(self.weight)
        before = _values(base, rows)
        trained = before.clone() if self.start is None else _values(self.start, rows)
        for addition in additions:
            trained = trained + addition
        if self.magnitude is not None:
            trained = self._with_magnitude(self.magnitude, trained, rows)
        if self.tokens is not None:
            trained = self.tokens.put_into(trained, rows)
        return (trained - before).mul_(self.weight)

    def norm(self, base: LazyTensor) -> float:
        """Return the Frobenius norm of ΔW."""
        if len(self.pairs) == 1 and self._is_product:
            return abs(self.weight) * self.pairs[0].norm()
        return float(torch.linalg.vector_norm(self.delta(base)))

    def is_rounding(self, relative: float) -> bool:
        """Whether a relative change is only that of rounding m, because DoRA's B·A is zero."""
        products = (pair.up.fp32().any() and pair.down.fp32().any() for pair in self.pairs)
        return self.magnitude is not None and relative < _MAGNITUDE_ROUNDING and not any(products)

    @property
    def _is_product(self) -> bool:
        """Whether ΔW does not depend on W."""
        return self.start is None and self.magnitude is None and self.tokens is None

    @property
    def needs_all_rows(self) -> bool:
        """Whether a row of ΔW depends on other rows: DoRA's norms of columns."""
        return self.magnitude is not None and any(pair.transposed for pair in self.pairs)

    def _with_magnitude(self, magnitude: LazyTensor, values: torch.Tensor, rows: Sequence[int] | None) -> torch.Tensor:
        if self.needs_all_rows:
            return torch.mul(values, magnitude.fp32() / torch.linalg.norm(values, dim=0))
        return torch.mul(values, (_values(magnitude, rows) / torch.linalg.norm(values, dim=1))[:, None])


def _values(tensor: LazyTensor, rows: Sequence[int] | None) -> torch.Tensor:
    return tensor.fp32() if rows is None else tensor.fp32_rows(rows)
