"""Random bf16 checkpoints in shards with an index, and LoRA adapters for them, written one tensor at a time.

Unlike `checkpoint`, which holds the whole model in memory, this writes models of any size.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from .checkpoint import write_companions
from .model_shape import ModelShape
from .staging import write_once

ADAPTER_RANK = 16
_FORMAT = 1
_SEED = 21
_STD = 0.02
_SHARD_BYTES = 2 << 30
_ADAPTED = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
"""Modules that the adapter changes in every layer."""


def cached_sharded_checkpoint(shape: ModelShape, cache: Path) -> Path:
    """Return the folder of the checkpoint, writing it unless it is in the cache."""
    return write_once(cache / "checkpoints" / f"bf16-{_key(shape)}", lambda folder: _write_checkpoint(shape, folder))


def cached_adapter(shape: ModelShape, cache: Path) -> Path:
    """Return the folder of a LoRA adapter for the checkpoint, writing it unless it is in the cache."""
    return write_once(cache / "checkpoints" / f"lora-{_key(shape)}", lambda folder: _write_adapter(shape, folder))


def _key(shape: ModelShape) -> str:
    identity = [_FORMAT, _SEED, dataclasses.asdict(shape)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]


def _write_checkpoint(shape: ModelShape, folder: Path) -> None:
    shards = list(_split_shards(shape.tensor_shapes()))
    files: dict[str, str] = {}
    rng = torch.Generator().manual_seed(_SEED)
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: _random(shape.tensor_shapes()[name], rng) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
    total = sum((folder / file).stat().st_size for file in set(files.values()))
    index = {"metadata": {"total_size": total}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    write_companions(shape, folder, dtype="bfloat16")


def _split_shards(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Yield the tensor names of each shard, which has at most _SHARD_BYTES unless one tensor is larger."""
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        tensor_bytes = 2 * torch.Size(shape).numel()
        if names and size + tensor_bytes > _SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor_bytes
    yield names


def _random(shape: tuple[int, ...], rng: torch.Generator) -> torch.Tensor:
    """Return a norm's gain of ones, or a matrix of normally distributed values."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0, _STD, generator=rng)


def _write_adapter(shape: ModelShape, folder: Path) -> None:
    rng = torch.Generator().manual_seed(_SEED)
    shapes, tensors = shape.tensor_shapes(), {}
    for layer in range(shape.layers):
        for module in _ADAPTED:
            rows, columns = shapes[f"layers.{layer}.{module}.weight"]
            prefix = f"base_model.model.layers.{layer}.{module}"
            tensors[f"{prefix}.lora_A.weight"] = _random((ADAPTER_RANK, columns), rng)
            tensors[f"{prefix}.lora_B.weight"] = _random((rows, ADAPTER_RANK), rng)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "r": ADAPTER_RANK,
        "lora_alpha": 2 * ADAPTER_RANK,
        "target_modules": [module.rpartition(".")[2] for module in _ADAPTED],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
