"""The weight files of a checkpoint: one safetensors file, or several with an index."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..progress import Progress
from ..sources.shard_index import INDEX_FILE
from ..sources.weights import LazyTensor

SHARD_BYTES = 4 << 30
"""Maximum size of one file, which is also held in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTensor:
    """A tensor as it is stored."""

    name: str
    """Name in the file."""
    values: LazyTensor
    dtype: torch.dtype

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return self.dtype.itemsize * math.prod(self.values.shape)


def write_shards(
    tensors: Sequence[ShardTensor],
    folder: Path,
    progress: Progress,
    check: Callable[[ShardTensor, torch.Tensor], None],
) -> None:
    """Write `tensors` to `folder` in their order, in files of at most SHARD_BYTES. A larger tensor has its own file.

    Args:
        tensors: The tensors, computed and rounded one at a time.
        folder: Existing folder.
        progress: Receives one step per tensor.
        check: Gets each tensor with its rounded values before it is written; may raise.
    """
    shards = _plan_shards(tensors)
    files, done, total = {}, 0, 0
    for index, shard in enumerate(shards):
        file = _shard_name(index, len(shards))
        rounded = {}
        for tensor in shard:
            values = tensor.values.load().to(tensor.dtype).contiguous()
            check(tensor, values)
            rounded[tensor.name] = values
            files[tensor.name] = file
            done, total = done + 1, total + values.nbytes
            progress.step(done, len(tensors))
        save_file(rounded, folder / file, metadata={"format": "pt"})
    if len(shards) > 1:
        (folder / INDEX_FILE).write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": files}, indent=2), encoding="utf-8"
        )


def _plan_shards(tensors: Sequence[ShardTensor]) -> list[list[ShardTensor]]:
    shards: list[list[ShardTensor]] = [[]]
    free_bytes = SHARD_BYTES
    for tensor in tensors:
        if tensor.size_bytes > free_bytes and shards[-1]:
            shards.append([])
            free_bytes = SHARD_BYTES
        shards[-1].append(tensor)
        free_bytes -= tensor.size_bytes
    return shards


def _shard_name(index: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{index + 1:05d}-of-{count:05d}.safetensors"
