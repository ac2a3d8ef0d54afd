"""Build and run the graph of a checkpoint folder, and compute the reference with transformers."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from qwen3_triton.client import Precision
from qwen3_triton.client.manifest import CompactOutput, Task
from qwen3_triton.export import Device, SilentProgress, SourceReference
from qwen3_triton.export.architectures import DecoderConfig
from qwen3_triton.export.artifacts.graph_file import write_graph as write_model
from qwen3_triton.export.artifacts.onnx_file import write_onnx
from qwen3_triton.export.formats import WeightFormat, weight_format
from qwen3_triton.export.formats.w8a8 import W8A8Format
from qwen3_triton.export.graph import CudaProfile, GraphOptions, build_model
from qwen3_triton.export.graph.prefixes import store_prefixes
from qwen3_triton.export.graph.rope import compute_rope_tables
from qwen3_triton.export.passes.rescale import NO_RESCALE, Rescale, rescale_weights
from qwen3_triton.export.sources.checkpoint import Checkpoint, open_checkpoint
from qwen3_triton.export.sources.embedding_head import LAST_TOKEN_HEAD, EmbeddingHead
from qwen3_triton.export.sources.weights import Weights
from qwen3_triton.export.verification.parity import cosines
from qwen3_triton.export.verification.runtime import WrittenModel

Vectors = NDArray[np.float32]
BLOCK_BOUNDARY_LENGTHS = [1, 16, 17, 48, 64, 65, 127, 128, 129, 254, 255, 256, 257, 258, 383, 384, 385, 511, 512]
"""Lengths around those at which attention uses another block of queries, or other kernels."""


@dataclass(frozen=True)
class WrittenGraph:
    """A checkpoint and the file written from it."""

    checkpoint: Checkpoint
    file: Path

    @functools.cached_property
    def session(self) -> WrittenModel:
        """A session on the file, opened on first use, because the CPU provider may be unable to run it."""
        return WrittenModel(self.file, threads=2)


def write_graph(
    checkpoint_folder: Path,
    output: Path,
    precision: Precision = Precision.FP32,
    max_tokens: int = 64,
    rescale: Rescale = NO_RESCALE,
    fp32_layers: frozenset[str] = frozenset(),
    change: Callable[[Weights, DecoderConfig], Weights] = lambda weights, _: weights,
    cuda: CudaProfile | None = None,
    norm_output_scale: float | None = None,
    format: WeightFormat | None = None,
    task: Task = Task.EMBED,
    head: EmbeddingHead = LAST_TOKEN_HEAD,
    prefixes: Iterable[Sequence[int]] = (),
    shares_beginnings: bool = False,
    compact_outputs: Iterable[CompactOutput] = (),
) -> WrittenGraph:
    """Write `output`/model.onnx from the weights after `rescale` and `change`, in `format` or that of `precision`."""
    checkpoint = open_checkpoint(SourceReference(str(checkpoint_folder)))
    config = checkpoint.config
    checkpoint = checkpoint.with_weights(change(rescale_weights(checkpoint.weights, config, rescale), config))
    options = GraphOptions(
        task=task,
        format=format or graph_format(precision, cuda, fp32_layers, norm_output_scale),
        max_tokens=max_tokens,
        head=head,
        rescale=rescale,
        cuda=cuda,
        prefixes=store_prefixes(prefixes),
        shares_beginnings=shares_beginnings,
        compact_outputs=tuple(compact_outputs),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    file = output / "model.onnx"
    if cuda is None:
        write_model(checkpoint, file, options, SilentProgress())
    else:
        output.mkdir()
        rope = compute_rope_tables(checkpoint, max_tokens)
        write_onnx(build_model(checkpoint.config, checkpoint.weights, rope, options), file, lambda _done, _total: None)
    return WrittenGraph(checkpoint, file)


def graph_format(
    precision: Precision,
    cuda: CudaProfile | None = None,
    fp32_layers: frozenset[str] = frozenset(),
    norm_output_scale: float | None = None,
) -> WeightFormat:
    """Return the format of `precision`, in fp32 for a CPU twin, with given results of a calibration."""
    format = weight_format(precision, Device.CPU if cuda is None else Device.CUDA)
    if cuda is not None and cuda.cpu_twin:
        return format.fp32_twin()
    if isinstance(format, W8A8Format):
        return dataclasses.replace(format, fp32_layers=fp32_layers, norm_output_scale=norm_output_scale)
    return format


def official_vectors(folder: Path, rows: Sequence[Sequence[int]]) -> Vectors:
    """Return the embeddings of transformers in fp32, row by row, with the model loaded from `folder`."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    return model_vectors(model, rows)


def model_vectors(model: torch.nn.Module, rows: Sequence[Sequence[int]]) -> Vectors:
    """Return the normalized final state of each row's last token, row by row and unpadded."""
    model.train(False)
    vectors = []
    with torch.inference_mode():
        for row in rows:
            hidden = model(input_ids=torch.tensor([list(row)]), use_cache=False).last_hidden_state
            vectors.append(torch.nn.functional.normalize(hidden[0, -1].float(), dim=-1))
    stacked: Vectors = torch.stack(vectors).numpy()
    return stacked


def random_rows(lengths: Sequence[int], vocabulary: int = 300, seed: int = 7) -> list[list[int]]:
    """Return rows of random ids."""
    rng = random.Random(seed)
    return [[rng.randrange(vocabulary) for _ in range(length)] for length in lengths]


def min_cosine(a: Vectors, b: Vectors) -> float:
    """Return the smallest cosine between a row of `a` and the same row of `b`; NaN if a row has one."""
    assert a.shape == b.shape
    return float(cosines(a, b).min())
