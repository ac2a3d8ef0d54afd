"""What the machine gives matrix products of the model's shapes, and how much of it an answer needs."""

from __future__ import annotations

import json

from .contenders.contender import Bench
from .contenders.worker import Worker
from .model_shape import ModelShape
from .rows import Rows

KINDS = ("onnxruntime fp32", "torch fp32", "torch bf16", "onnxruntime int8", "torch int8")
"""Library and precision."""


def layer_flops(shape: ModelShape, tokens: int) -> int:
    """Multiplications and additions of one layer's products over `tokens` rows."""
    return sum(2 * tokens * inner * columns for inner, columns in shape.products().values())


def needed_flops(shape: ModelShape, rows: Rows) -> int:
    """Multiplications and additions of the products without which there is no answer.

    In the last layer only keys and values of every token; the rest for each row's last token alone.
    """
    tokens, key = sum(map(len, rows)), shape.kv_heads * shape.head_dim
    last = 2 * tokens * shape.hidden * 2 * key
    query = layer_flops(shape, len(rows)) - 2 * len(rows) * shape.hidden * 2 * key
    return (shape.layers - 1) * layer_flops(shape, tokens) + last + query


def gauge(kind: str, shape: ModelShape, bench: Bench) -> Worker:
    """Multiplies random rows with every matrix of one layer; raises CannotRun."""
    options = {"kind": kind, "threads": str(bench.threads), "products": json.dumps(shape.products())}
    return Worker.started(bench, "products", options)
