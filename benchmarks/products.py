"""What the machine gives matrix products of the model's shapes, and how much of it an answer needs."""

from __future__ import annotations

import json

from .contenders.contender import Bench
from .contenders.worker import Worker
from .model_shape import ModelShape
from .rows import Rows

KINDS = ("onnxruntime fp32", "torch fp32", "torch bf16", "onnxruntime int8", "torch int8")
"""Library and precision."""
GPU_KINDS = ("torch bf16", "torch fp16")
"""On GPUs 8-bit weights are turned back to fp16 and multiplied as such."""
COPY = "torch copy"
"""Memory to memory on the device."""
COPIED_BYTES = 1 << 28
"""More than any cache holds."""


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
    """Multiplies random rows with every matrix of `gauged_layers`; raises CannotRun."""
    options = {
        "kind": kind,
        "threads": str(bench.threads),
        "products": json.dumps(shape.products()),
        "layers": str(gauged_layers(shape, bench)),
        "device": bench.device,
        "copied_bytes": str(COPIED_BYTES),
    }
    return Worker.started(bench, "products", options)


def gauged_layers(shape: ModelShape, bench: Bench) -> int:
    """Layers that a sample multiplies: all of them on a GPU, where one takes less than the wait for its end."""
    return shape.layers if bench.device == "cuda" else 1
