"""The provenance of a model: tool and package versions, options, and hashes of its files."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from datetime import UTC, datetime

from ... import __version__
from ...client.manifest import ModelFolder, Provenance
from ...client.manifest.integrity import hash_model_files
from ..options import ExportOptions

_PACKAGES = ("numpy", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "safetensors", "tokenizers", "torch", "transformers")


def record_provenance(options: ExportOptions, written: ModelFolder) -> Provenance:
    """Return the provenance of the model in `written`, whose files except the manifest are complete."""
    # paths and references become text, enum members their values
    plain = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    return Provenance(
        tool_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        packages={"python": platform.python_version()} | _installed_versions(),
        options=plain | {"model": str(options.model), "adapters": [str(adapter) for adapter in options.adapters]},
        files=hash_model_files(written),
    )


def _installed_versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
