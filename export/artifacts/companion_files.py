"""The files of a checkpoint beside its weights: config, tokenizer, and those of sentence-transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..sources.adapter import CONFIG_FILE as ADAPTER_CONFIG
from ..sources.checkpoint import Checkpoint

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
    # settings of a quantization
    "quantize_config.json",
    "quant_config.json",
)


def copy_companions(checkpoint: Checkpoint, content: Path) -> Path:
    """Copy the companion files to `content` in the same layout; return the folder there for config and weights.

    The copy of config.json does not state a quantization.
    """
    _copy_files(checkpoint.root, content, leave_out=checkpoint.directory)
    transformer = content / checkpoint.directory.relative_to(checkpoint.root)
    if transformer != content:
        transformer.mkdir(exist_ok=True)
        _copy_files(checkpoint.directory, transformer)
    if checkpoint.quantized_as is not None:
        config = json.dumps(checkpoint.raw_config, indent=2)
        (transformer / "config.json").write_text(config + "\n", encoding="utf-8")
    return transformer


def _copy_files(source: Path, content: Path, leave_out: Path | None = None) -> None:
    """Copy no weights, nothing hidden, and no adapter."""
    for entry in source.iterdir():
        if (
            entry.name.startswith(".")
            or entry.name.endswith(_NOT_COPIED)
            or entry.name == ADAPTER_CONFIG
            or entry == leave_out
        ):
            continue
        if entry.is_file():
            shutil.copyfile(entry, content / entry.name)
        elif entry.is_dir() and (entry / "config.json").exists():
            shutil.copytree(entry, content / entry.name)
        elif entry.is_dir() and not any(entry.iterdir()):
            (content / entry.name).mkdir()
