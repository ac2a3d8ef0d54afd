"""Write the fusion of several checkpoints as one that transformers and sentence-transformers load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..architectures import EMBEDDINGS, HEADS, LM_HEAD
from ..errors import FusionError
from ..options import FuseOptions
from ..passes.fuse import fuse_tensors, squared_norm
from ..progress import Progress, SilentProgress
from ..sources.checkpoint import Checkpoint, open_checkpoint
from ..sources.precedence import reject_adapter_beside_weights
from ..sources.references import WeightedCheckpoint
from ..sources.same_model import differences, missing_files
from ..sources.weights import LazyTensor
from .companion_files import copy_companions
from .staging import refuse_existing, staged_folder
from .weight_shards import ShardTensor, write_shards


def write_fused_checkpoint(options: FuseOptions, progress: Progress | None = None) -> Path:
    """Fuse checkpoints of one model, and write the result with the files and in the dtypes of the first.

    The output folder is created atomically. Tensors are fused one at a time, in fp32, and rounded once. A note for each
    checkpoint says how far the result is from it.

    Args:
        options: What to fuse and how, and the output folder.
        progress: Receives stages and steps; None reports nothing.

    Returns:
        The output folder.

    Raises:
        SourceError: A checkpoint does not exist or cannot be read.
        UnsupportedCheckpointError: A checkpoint has a setting that is not supported.
        FusionError: The checkpoints are not versions of one model, or a weight is not above 0.
        ModelExistsError: The output folder exists and `options.overwrite` is not set.
        StagingError: The output folder cannot be written.
    """
    progress = progress or SilentProgress()
    refuse_existing(options.output, overwrite=options.overwrite)
    _check_weights(options.checkpoints)
    progress.stage(f"reading {len(options.checkpoints)} checkpoints")
    checkpoints = [open_checkpoint(weighted.source) for weighted in options.checkpoints]
    for checkpoint in checkpoints:
        reject_adapter_beside_weights(checkpoint, [])
        dequantization = checkpoint.describe_dequantization()
        if dequantization is not None:
            progress.note(f"{checkpoint.source}: {dequantization}")
    _require_same_model(checkpoints, progress)
    first = checkpoints[0]
    sources = {name: [_open(checkpoint, name) for checkpoint in checkpoints] for name in first.weights}
    weights = [weighted.weight for weighted in options.checkpoints]
    tensors = [
        ShardTensor(
            name=name if name in HEADS else first.prefix + name,
            values=fuse_tensors(sources[name], weights, options.method),
            dtype=first.written_dtype(name),
        )
        for name in sources
    ]
    measured = _Distances(dict(zip((tensor.name for tensor in tensors), sources.values(), strict=True)), len(weights))
    progress.stage(f"writing {options.output}")
    with staged_folder(options.output, overwrite=options.overwrite) as content:
        write_shards(tensors, copy_companions(first, content), progress, measured.add)
    for weighted, distance in zip(options.checkpoints, measured.relative(), strict=True):
        share = weighted.weight / math.fsum(weights)
        progress.note(f"the result differs from {weighted.source} (share {share:.3g}) by {distance:.3g} of its norm")
    return options.output


def _check_weights(checkpoints: Sequence[WeightedCheckpoint]) -> None:
    if len(checkpoints) < 2:
        raise FusionError("a fusion needs two or more checkpoints")
    for weighted in checkpoints:
        if not 0 < weighted.weight < math.inf:
            raise FusionError(f"checkpoint '{weighted}': the weight must be a finite number above 0")


def _require_same_model(checkpoints: Sequence[Checkpoint], progress: Progress) -> None:
    first = checkpoints[0]
    found = {str(other.source): differences(first, other) for other in checkpoints[1:]}
    others = [f"{other} ({'; '.join(listed)})" for other, listed in found.items() if listed]
    if others:
        raise FusionError(
            f"checkpoints of different models cannot be fused: compared with {first.source}, {', '.join(others)}"
        )
    for other in checkpoints[1:]:
        missing = missing_files(first, other)
        if missing:
            progress.note(f"{other.source} has no {', '.join(missing)}; those of {first.source} apply")


def _open(checkpoint: Checkpoint, name: str) -> LazyTensor:
    """Return the tensor `name`; the embeddings for a tied LM head that is not stored."""
    return checkpoint.weights[EMBEDDINGS if name == LM_HEAD and name not in checkpoint.weights else name]


@dataclass(slots=True)
class _Distances:
    """How far the result is from each checkpoint, over all tensors together."""

    sources: dict[str, list[LazyTensor]]
    """Stored name → the tensor of each checkpoint."""
    count: int
    """Number of checkpoints."""
    _squared: list[float] = field(init=False)
    _norms: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self._squared, self._norms = [0.0] * self.count, [0.0] * self.count

    def add(self, tensor: ShardTensor, rounded: torch.Tensor) -> None:
        """Add a tensor of the result; raise FusionError if it is not finite."""
        for index, source in enumerate(self.sources[tensor.name]):
            values = source.fp32()
            squared = squared_norm(rounded.to(torch.float32) - values)
            if not math.isfinite(squared):
                raise FusionError(
                    f"{tensor.name}: the fused values do not fit into {tensor.dtype}, or a checkpoint has values that "
                    "are not finite"
                )
            self._squared[index] += squared
            self._norms[index] += squared_norm(values)

    def relative(self) -> list[float]:
        """Return ‖result − checkpoint‖ / ‖checkpoint‖ for each checkpoint."""
        return [math.sqrt(squared / (norm or 1.0)) for squared, norm in zip(self._squared, self._norms, strict=True)]
