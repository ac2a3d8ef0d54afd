"""Says what a folder is that is neither a checkpoint nor an adapter, and what to give instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...client.manifest.input_files import read_json_file

_ADAPTER_CONFIG = "adapter_config.json"
_CHECKPOINTS = "checkpoint-*"


def explain_model(path: Path) -> str | None:
    """Return why `path` cannot be a checkpoint and what to give instead; None if it has a config.json."""
    if not path.is_dir():
        return _explain_file(path, "checkpoint")
    if (path / "config.json").exists():
        return None
    if (path / _ADAPTER_CONFIG).exists():
        base = _base_name(path)
        return (
            f"{path} is an adapter{f' of {base}' if base else ''}, not a model; give the base as the model, and this "
            "folder as an adapter"
        )
    runs = [run for run in _checkpoints(path) if (run / "config.json").is_file() or (run / _ADAPTER_CONFIG).is_file()]
    if runs:
        return f"{path} is the folder of a training run; give one of its checkpoints: {_names(runs)}"
    return _explain_content(path, "config.json")


def explain_adapter(path: Path) -> str | None:
    """Return why `path` cannot be an adapter and what to give instead; None if it has an adapter_config.json."""
    if not path.is_dir():
        return _explain_file(path, "adapter")
    if (path / _ADAPTER_CONFIG).exists():
        return None
    runs = [run for run in _checkpoints(path) if (run / _ADAPTER_CONFIG).is_file()]
    if runs:
        return f"{path} is the folder of a training run; give one of its checkpoints: {_names(runs)}"
    inner = sorted(entry for entry in path.iterdir() if entry.is_dir() and (entry / _ADAPTER_CONFIG).is_file())
    if inner:
        return f"{path} has its adapter in a subfolder; give {' or '.join(map(str, inner))}"
    if (path / "config.json").is_file() and any(path.glob("*.safetensors")):
        return f"{path} is a whole model, not an adapter; give it as the model, without this adapter"
    return _explain_content(path, _ADAPTER_CONFIG)


def _explain_file(path: Path, wanted: str) -> str:
    if path.suffix == ".gguf":
        return f"{path} is a GGUF file of llama.cpp; give the folder of the original {wanted} in safetensors"
    return f"{path} is a file; give the folder that it is in: {path.parent}"


def _explain_content(path: Path, missing: str) -> str:
    files = sorted(entry.name for entry in path.iterdir())
    if not files:
        return f"{path} is empty; is the download complete?"
    if any(name.endswith(".gguf") for name in files):
        return f"{path} has GGUF files of llama.cpp; give the folder of the original checkpoint in safetensors"
    if any(name.endswith(".onnx") for name in files):
        return f"{path} has an ONNX graph; give the folder of the checkpoint that it was exported from"
    shown = ", ".join(files[:6]) + (f" and {len(files) - 6} more" if len(files) > 6 else "")
    return f"{path} has no {missing}; it has {shown}"


def _checkpoints(path: Path) -> list[Path]:
    runs = [run for run in path.glob(_CHECKPOINTS) if run.is_dir()]
    return sorted(runs, key=lambda run: (len(run.name), run.name))


def _names(folders: list[Path]) -> str:
    shown = [str(folder) for folder in folders[-3:]]
    return ", ".join(shown) + (f" and {len(folders) - 3} more" if len(folders) > 3 else "")


def _base_name(path: Path) -> str | None:
    try:
        fields: Any = read_json_file(path / _ADAPTER_CONFIG)
        name = fields.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return None
    return str(name) if name else None
