"""Checkpoint → graph → file, for every device."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from ..graph import GraphOptions, build_model
from ..graph.cuda_kernels import require_cuda_kernels
from ..graph.rope import compute_rope_tables
from ..progress import Progress
from ..sources.checkpoint import Checkpoint
from .onnx_file import write_onnx
from .prefix_tables import fill_tables


def write_graph(checkpoint: Checkpoint, file: Path, options: GraphOptions, progress: Progress) -> None:
    """Build the ONNX graph of a checkpoint and write it with its weights, and with the states of its prefixes.

    Args:
        checkpoint: Weights to write, already rescaled by `options.rescale`.
        file: The .onnx file; its folder is created. Weights are written to `<file>.data`.
        options: What to build.
        progress: Receives a step after each tensor, and the stage of the prefixes.

    Raises:
        ExportError: A GPU graph has an operator without a CUDA kernel in its runtime, or a path in the format's
            `fp32_layers` is not a product of the graph.
        FileExistsError: The folder of `file` exists.
    """
    model = assemble_graph(checkpoint, options)
    file.parent.mkdir(parents=True)
    write_onnx(model, file, progress.step)
    if options.prefixes.prefixes:
        progress.stage(f"computing the states of {options.prefixes.tokens} tokens that prompts begin with")
        fill_tables(checkpoint, file, options, progress.step)


def assemble_graph(checkpoint: Checkpoint, options: GraphOptions) -> ir.Model:
    """Return the graph of a checkpoint, whose weights are read when it is written.

    Raises:
        ExportError: As in `write_graph`.
    """
    rope = compute_rope_tables(checkpoint, options.max_tokens)
    model = build_model(checkpoint.config, checkpoint.weights, rope, options)
    if options.cuda is not None and not options.cuda.cpu_twin:
        require_cuda_kernels(model, options.format.activations, options.cuda.runtime)
    return model
