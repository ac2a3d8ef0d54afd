"""Tables with the states of stored prefixes, of each layer in the scope of its attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..onnx_builder import GraphBuilder
from .decoder import DecoderParts

PREFIX_KEYS, PREFIX_VALUES, PREFIX_STREAM = "prefix_keys", "prefix_values", "prefix_stream"
"""Names of the tables. The last layer stores the normed stream instead of values."""


@dataclass(frozen=True, slots=True)
class PrefixTable:
    """States of all stored sequences, concatenated; empty until the graph is written, see `fill_tables`."""

    states: ir.Value
    """[1, ..., tokens, width]"""
    axis: int
    """Axis of tokens, the second to last."""


def key_table(g: GraphBuilder, parts: DecoderParts) -> PrefixTable:
    """Return the keys [1, kv_heads, tokens, head_dim], normed and rotated."""
    config = parts.config
    return _declare(g, PREFIX_KEYS, [config.kv_heads, config.head_dim], parts.format.activations)


def value_table(g: GraphBuilder, parts: DecoderParts) -> PrefixTable:
    """Return the values [1, kv_heads, tokens, head_dim]."""
    config = parts.config
    return _declare(g, PREFIX_VALUES, [config.kv_heads, config.head_dim], parts.format.activations)


def stream_table(g: GraphBuilder, parts: DecoderParts) -> PrefixTable:
    """Return the normed stream [1, tokens, hidden] of the last layer."""
    return _declare(g, PREFIX_STREAM, [parts.config.hidden], parts.format.activations)


def _declare(g: GraphBuilder, name: str, states_shape: Sequence[int], dtype: ir.DataType) -> PrefixTable:
    """Declare the empty table `name` in the current scope; `states_shape` is [..., width] of one token."""
    *outer, width = states_shape
    empty = np.empty([1, *outer, 0, width], dtype.numpy())
    return PrefixTable(g.table(g.path(name), empty), len(outer) + 1)
