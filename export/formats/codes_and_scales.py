"""Codes and scales of a quantized tensor, computed together and written one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..onnx_builder import GraphBuilder


class Quantized(NamedTuple):
    """Consecutive rows of a quantized tensor."""

    codes: NDArray[np.generic]
    scales: NDArray[np.generic]


class CodesAndScales:
    """Two initializers of one tensor, whose values are computed once.

    Scales are few: they are written behind the codes of all tensors, and kept until then. If they are read earlier,
    they are computed again.
    """

    def __init__(self, quantize: Callable[[], Iterator[Quantized]]) -> None:
        self._quantize = quantize
        self._kept: list[NDArray[np.generic]] | None = None

    def codes(
        self,
        g: GraphBuilder,
        name: str,
        shape: Sequence[int],
        dtype: ir.DataType,
        join: Callable[[Iterator[NDArray[np.generic]]], NDArray[np.generic]] | None = None,
    ) -> ir.Value:
        """Return the initializer of the codes, written part by part, or as `join` joins the parts."""

        def parts() -> Iterator[NDArray[np.generic]]:
            return self._codes() if join is None else iter([join(self._codes())])

        return g.weight_in_parts(name, shape, dtype, parts)

    def scales(self, g: GraphBuilder, name: str, shape: Sequence[int], dtype: ir.DataType) -> ir.Value:
        """Return the initializer of the scales."""
        return g.weight_in_parts(name, shape, dtype, self._scales, written_last=True)

    def _codes(self) -> Iterator[NDArray[np.generic]]:
        kept = []
        for part in self._quantize():
            kept.append(part.scales)
            yield part.codes
        self._kept = kept

    def _scales(self) -> Iterator[NDArray[np.generic]]:
        kept, self._kept = self._kept, None
        return iter(kept) if kept is not None else (part.scales for part in self._quantize())
