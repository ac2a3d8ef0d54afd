"""Checkpoint → graph → file, the same for every device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..graph import GraphOptions, build_model
from ..graph.cuda_kernels import require_cuda_kernels
from ..graph.rope import compute_rope_tables
from ..sources.checkpoint import Checkpoint
from .onnx_file import write_onnx


def write_graph(
    checkpoint: Checkpoint, file: Path, options: GraphOptions, on_tensor: Callable[[int, int], None]
) -> None:
    """Writes `file`, whose folder is made, and its weights beside it.

    The weights must have been rescaled by `options.rescale`. `on_tensor` hears how many of how many tensors are
    written. Raises ExportError where a graph for GPUs has operators that its runtime runs on the CPU.
    """
    rope = compute_rope_tables(checkpoint, options.max_tokens)
    model = build_model(checkpoint.config, checkpoint.weights, rope, options)
    if options.cuda is not None and not options.cuda.cpu_twin:
        require_cuda_kernels(model, options.format.activations, options.cuda.runtime)
    file.parent.mkdir(parents=True)
    write_onnx(model, file, on_tensor)
