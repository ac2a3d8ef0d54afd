"""Open a written graph for its parity check: on the GPU, on the CPU, or as its fp32 twin on the CPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from ..artifacts.cuda_options import cuda_provider_options
from ..artifacts.graph_file import write_graph
from ..formats import WeightFormat
from ..graph import CudaProfile, GraphOptions
from ..progress import Progress
from ..sources.checkpoint import Checkpoint
from .available_memory import available_memory
from .runtime import RUNTIME_NAME, WrittenModel, gpu_available


def open_for_check(
    file: Path, checkpoint: Checkpoint, options: GraphOptions, scratch: Path, progress: Progress
) -> WrittenModel:
    """Open the graph at `file`, which was written from `checkpoint` with `options`.

    A GPU graph runs on the GPU if there is one. Otherwise it runs on the CPU if the CPU provider has its operators, and
    if not, its fp32 twin is written to `scratch` and runs on the CPU. The model's description names the one that ran.
    """
    cuda = options.cuda
    if cuda is None:
        return _open_on_cpu(file, RUNTIME_NAME, progress)
    if gpu_available():
        model = WrittenModel(file, cuda=cuda_provider_options(options.format.precision, cuda.runtime))
        if model.on_gpu:
            model.description = f"{RUNTIME_NAME} on {torch.cuda.get_device_name()}"
            return model
    if cpu_can_run(options.format, cuda):
        progress.note("no GPU here: the graph is compared on the CPU, by kernels other than the GPU's")
        return _open_on_cpu(file, f"{RUNTIME_NAME} on a CPU, not on a GPU", progress)
    progress.note("no GPU here: the graph's fp32 twin is compared on the CPU, the graph itself has not run")
    twin = scratch / "twin" / file.name
    weights = {name: options.format.round_as_stored(tensor) for name, tensor in checkpoint.weights.items()}
    stored = checkpoint.with_weights(weights)
    twin_options = dataclasses.replace(
        options, format=options.format.fp32_twin(), cuda=dataclasses.replace(cuda, cpu_twin=True)
    )
    write_graph(stored, twin, twin_options, progress)
    return _open_on_cpu(twin, f"{RUNTIME_NAME} on a CPU, the graph's fp32 twin, not on a GPU", progress)


def _open_on_cpu(file: Path, description: str, progress: Progress) -> WrittenModel:
    """Open a graph; if it would take more than half of the available memory, with its weights in the file."""
    size = sum(part.stat().st_size for part in file.parent.iterdir())
    available = available_memory()
    if available is None or 2 * size <= available:
        return WrittenModel(file, description=description)
    progress.note(
        f"the written graph has {size / 1e9:.1f} GB, and {available / 1e9:.1f} GB of memory are available: ONNX "
        "Runtime runs it from the file, which takes longer"
    )
    return WrittenModel(file, description=description, maps_weights=True)


def needs_twin(format: WeightFormat, cuda: CudaProfile) -> bool:
    """Return whether a graph for GPUs is compared by its fp32 twin on this machine."""
    return not gpu_available() and not cpu_can_run(format, cuda)


def cpu_can_run(format: WeightFormat, cuda: CudaProfile) -> bool:
    """Return whether the CPU provider has all operators of the graph."""
    return format.runs_on_cpu and not cuda.needs_gpu(format.activations)
