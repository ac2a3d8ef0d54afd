"""Write the fusion of several checkpoints as one that transformers and sentence-transformers load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..architectures import EMBEDDINGS, HEADS, LM_HEAD
from ..errors import FusionError
from ..options import FuseOptions, FusionMethod
from ..passes.fuse import fuse_tensors, squared_norm
from ..passes.task_vectors import add_task_vectors, add_ties
from ..progress import Progress, SilentProgress
from ..sources.checkpoint import Checkpoint, open_checkpoint
from ..sources.precedence import reject_adapter_beside_weights
from ..sources.same_model import base_differences, differences, missing_files
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
        FusionError: The checkpoints are not versions of one model, or an option has an invalid value.
        ModelExistsError: The output folder exists and `options.overwrite` is not set.
        StagingError: The output folder cannot be written.
    """
    progress = progress or SilentProgress()
    refuse_existing(options.output, overwrite=options.overwrite)
    _check_options(options)
    references = [weighted.source for weighted in options.checkpoints] + ([options.base] if options.base else [])
    progress.stage(f"reading {len(references)} checkpoints")
    checkpoints = [open_checkpoint(reference) for reference in references]
    for checkpoint in checkpoints:
        reject_adapter_beside_weights(checkpoint, [])
        dequantization = checkpoint.describe_dequantization()
        if dequantization is not None:
            progress.note(f"{checkpoint.source}: {dequantization}")
    base = checkpoints.pop() if options.base else None
    _require_same_model(checkpoints, base, progress)
    first, count = checkpoints[0], len(checkpoints)
    opened = [*checkpoints, base] if base else checkpoints
    sources = {name: [_open(checkpoint, name) for checkpoint in opened] for name in first.weights}
    tensors = [
        ShardTensor(
            name=name if name in HEADS else first.prefix + name,
            values=_fuse(options, sources[name][:count], sources[name][-1]),
            dtype=first.written_dtype(name),
        )
        for name in sources
    ]
    measured = _Distances(dict(zip((tensor.name for tensor in tensors), sources.values(), strict=True)), len(opened))
    progress.stage(f"writing {options.output}")
    with staged_folder(options.output, overwrite=options.overwrite) as content:
        write_shards(tensors, copy_companions(first, content), progress, measured.add)
    for source, distance in zip(_describe_sources(options), measured.relative(), strict=True):
        progress.note(f"the result differs from {source} by {distance:.3g} of its norm")
    return options.output


def _check_options(options: FuseOptions) -> None:
    method = options.method
    if method.needs_base and options.base is None:
        raise FusionError(f"{method} needs a base")
    if options.base and not method.needs_base:
        raise FusionError(f"{method} has no use for a base")
    if len(options.checkpoints) < 2 and not method.needs_base:
        raise FusionError(f"{method} needs two or more checkpoints")
    for weighted in options.checkpoints:
        if not math.isfinite(weighted.weight) or weighted.weight == 0:
            raise FusionError(f"checkpoint '{weighted}': the weight must be a finite number other than 0")
        if weighted.weight < 0 and method is not FusionMethod.TASK_ARITHMETIC:
            raise FusionError(f"checkpoint '{weighted}': {method} takes no negative weights")
    if not 0 < options.density <= 1:
        raise FusionError(f"density {options.density:g}: must be above 0 and at most 1")
    if not math.isfinite(options.scale) or options.scale == 0:
        raise FusionError(f"scale {options.scale:g}: must be a finite number other than 0")


def _fuse(options: FuseOptions, tensors: Sequence[LazyTensor], base: LazyTensor) -> LazyTensor:
    weights = [weighted.weight for weighted in options.checkpoints]
    match options.method:
        case FusionMethod.TASK_ARITHMETIC:
            return add_task_vectors(base, tensors, weights, options.scale)
        case FusionMethod.TIES:
            return add_ties(base, tensors, weights, options.density, options.scale)
        case method:
            return fuse_tensors(tensors, weights, method)


def _describe_sources(options: FuseOptions) -> list[str]:
    """Return the checkpoints and the base, each with its part in the fusion."""
    if options.base:
        return [f"{one.source} (weight {one.weight:.3g})" for one in options.checkpoints] + [f"{options.base} (base)"]
    total = math.fsum(one.weight for one in options.checkpoints)
    return [f"{one.source} (share {one.weight / total:.3g})" for one in options.checkpoints]


def _require_same_model(checkpoints: Sequence[Checkpoint], base: Checkpoint | None, progress: Progress) -> None:
    first = checkpoints[0]
    found = {str(other.source): differences(first, other) for other in checkpoints[1:]}
    if base:
        found[f"the base {base.source}"] = base_differences(first, base)
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
    """How far the result is from each checkpoint and the base, over all tensors together."""

    sources: dict[str, list[LazyTensor]]
    """Stored name → the tensor of each checkpoint."""
    count: int
    """Number of checkpoints, with the base."""
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
