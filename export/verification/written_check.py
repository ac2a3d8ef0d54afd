"""How a written graph is run for its check here: as it is, on the GPU where there is one, or as its twin on the CPU."""

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
from .runtime import RUNTIME_NAME, WrittenModel, gpu_available


def open_for_check(
    file: Path, checkpoint: Checkpoint, options: GraphOptions, scratch: Path, progress: Progress
) -> WrittenModel:
    """The model at `file`, written from `checkpoint` with `options`; its description says what ran where.

    A graph for GPUs runs on the GPU if there is one. Without, it runs on the CPU if that has its operators, else
    its fp32 twin does, which is written into `workshop`.
    """
    cuda = options.cuda
    if cuda is None:
        return WrittenModel(file)
    if gpu_available():
        model = WrittenModel(file, cuda=cuda_provider_options(options.format.precision, cuda.runtime))
        if model.on_gpu:
            model.description = f"{RUNTIME_NAME} on {torch.cuda.get_device_name()}"
            return model
    if cpu_can_run(options.format, cuda):
        progress.note("no GPU here: the graph is compared on the CPU, by kernels other than the GPU's")
        return WrittenModel(file, description=f"{RUNTIME_NAME} on a CPU, not on a GPU")
    progress.note("no GPU here: the graph's fp32 twin is compared on the CPU, the graph itself has not run")
    twin = scratch / "twin" / file.name
    weights = {name: options.format.round_as_stored(tensor) for name, tensor in checkpoint.weights.items()}
    stored = checkpoint.with_weights(weights)
    twin_options = dataclasses.replace(
        options, format=options.format.fp32_twin(), cuda=dataclasses.replace(cuda, cpu_twin=True)
    )
    write_graph(stored, twin, twin_options, progress.step)
    return WrittenModel(twin, description=f"{RUNTIME_NAME} on a CPU, the graph's fp32 twin, not on a GPU")


def cpu_can_run(format: WeightFormat, cuda: CudaProfile) -> bool:
    """Whether the CPU provider has every operator of the graph."""
    return format.runs_on_cpu and not cuda.needs_gpu(format.activations)
