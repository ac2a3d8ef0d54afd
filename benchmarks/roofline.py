"""Matmul FLOPs that a workload needs, and probes that measure the machine's peak rates."""

from __future__ import annotations

import json

from .contenders.contender import RunContext
from .contenders.worker import Worker
from .model_shape import ModelShape
from .rows import Rows

CPU_PROBES = ("onnxruntime fp32", "torch fp32", "torch bf16", "onnxruntime int8", "torch int8")
"""Matmul probes on CPUs: library and precision."""
GPU_PROBES = ("torch bf16", "torch fp16")
"""Matmul probes on GPUs, where 8-bit weights are dequantized to fp16."""
COPY_PROBE = "torch copy"
"""Probe of the device's memory bandwidth."""
COPIED_BYTES = 1 << 28
"""Size of a copy, larger than any cache."""


def layer_flops(shape: ModelShape, tokens: int) -> int:
    """Return the additions and multiplications of one layer's matmuls over `tokens` rows."""
    return sum(2 * tokens * inputs * outputs for inputs, outputs in shape.matmul_shapes().values())


def needed_flops(shape: ModelShape, rows: Rows) -> int:
    """Return the fewest matmul additions and multiplications that produce the outputs of `rows`.

    In the last layer every token needs its keys and values, and only each row's last token needs the rest.
    """
    tokens, key = sum(map(len, rows)), shape.kv_heads * shape.head_dim
    last = 2 * tokens * shape.hidden * 2 * key
    query = layer_flops(shape, len(rows)) - 2 * len(rows) * shape.hidden * 2 * key
    return (shape.layers - 1) * layer_flops(shape, tokens) + last + query


def start_probe(kind: str, shape: ModelShape, context: RunContext) -> Worker:
    """Start a worker that multiplies random rows with the weights of `probed_layers` layers, or copies memory.

    Raises:
        ContenderUnavailableError: if it does not start.
    """
    options = {
        "kind": kind,
        "threads": str(context.threads),
        "shapes": json.dumps(shape.matmul_shapes()),
        "layers": str(probed_layers(shape, context)),
        "device": context.device,
        "copied_bytes": str(COPIED_BYTES),
    }
    return Worker.started(context, "roofline", options)


def probed_layers(shape: ModelShape, context: RunContext) -> int:
    """Return the layers per sample: one on a CPU, all on a GPU, where one takes less time than synchronising."""
    return shape.layers if context.device == "cuda" else 1
