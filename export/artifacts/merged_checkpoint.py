"""Writes a merged checkpoint that transformers loads as if it had been trained in one piece."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..errors import AdapterMismatchError
from ..options import MergeOptions
from ..passes.merge import merge_adapters
from ..progress import Progress, SilentProgress
from ..sources.adapter import open_adapter
from ..sources.checkpoint import Checkpoint, open_checkpoint
from ..sources.weights import LazyTensor
from .staging import refuse_existing, staged_folder

SHARD_BYTES = 4 << 30
"""Most bytes of one file; also what is held in memory at a time."""

_NOT_COPIED = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".index.json",
    ".onnx",
    ".gguf",
    ".h5",
    ".msgpack",
)


def write_merged_checkpoint(options: MergeOptions, progress: Progress | None = None) -> Path:
    """Writes the merged checkpoint in the base's dtype and layout; appears whole or not at all.

    The sum is taken in fp32 and rounded once. Raises AdapterMismatchError where rounding leaves nothing of
    the adapters.
    """
    progress = progress or SilentProgress()
    refuse_existing(options.output, overwrite=options.overwrite)
    progress.stage(f"reading {options.model}")
    base = open_checkpoint(options.model)
    adapters = [open_adapter(reference) for reference in options.adapters]
    merged = base.with_weights(merge_adapters(base.weights, adapters))
    progress.stage(f"writing {options.output}")
    with staged_folder(options.output, overwrite=options.overwrite) as content:
        _copy_companions(base.directory, content)
        _write_shards(base, merged, content, progress)
    return options.output


def _copy_companions(source: Path, content: Path) -> None:
    """Config, tokenizer and sentence-transformers files; no weights, nothing hidden."""
    for entry in source.iterdir():
        if entry.name.startswith(".") or entry.name.endswith(_NOT_COPIED):
            continue
        if entry.is_file():
            shutil.copyfile(entry, content / entry.name)
        elif entry.is_dir() and (entry / "config.json").exists():
            shutil.copytree(entry, content / entry.name)
        elif entry.is_dir() and not any(entry.iterdir()):
            (content / entry.name).mkdir()


def _write_shards(base: Checkpoint, merged: Checkpoint, content: Path, progress: Progress) -> None:
    shards = _plan_shards(base)
    files, changed, done = {}, False, 0
    for index, names in enumerate(shards):
        file = _shard_name(index, len(shards))
        tensors = {}
        for name in names:
            tensor = _rounded(base.weights[name], merged.weights[name])
            changed = changed or _differs(base.weights[name], merged.weights[name], tensor)
            tensors[base.stored_name(name)] = tensor
            files[base.stored_name(name)] = file
            done += 1
            progress.step(done, len(base.weights))
        save_file(tensors, content / file, metadata={"format": "pt"})
    if not changed:
        raise AdapterMismatchError("the merged weights equal the base after rounding to its dtype; nothing was written")
    if len(shards) > 1:
        index_file = content / "model.safetensors.index.json"
        total = sum(_bytes(tensor) for tensor in base.weights.values())
        index_file.write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": files}, indent=2), encoding="utf-8"
        )


def _plan_shards(base: Checkpoint) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    room = SHARD_BYTES
    for name, tensor in base.weights.items():
        if _bytes(tensor) > room and shards[-1]:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(name)
        room -= _bytes(tensor)
    return shards


def _bytes(tensor: LazyTensor) -> int:
    return tensor.dtype.itemsize * int(torch.Size(tensor.shape).numel())


def _shard_name(index: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{index + 1:05d}-of-{count:05d}.safetensors"


def _rounded(base: LazyTensor, merged: LazyTensor) -> torch.Tensor:
    return merged.load().to(base.dtype).contiguous()


def _differs(base: LazyTensor, merged: LazyTensor, rounded: torch.Tensor) -> bool:
    return merged is not base and not torch.equal(base.load(), rounded)
