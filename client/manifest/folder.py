"""Where a deployed model's files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """Paths of one deployed model: `<repository>/<name>/`."""

    path: Path

    @property
    def config(self) -> Path:
        """Triton's configuration."""
        return self.path / "config.pbtxt"

    @property
    def manifest(self) -> Path:
        """The manifest, as JSON."""
        return self.path / "manifest.json"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that the manifest names by hash."""
        return self.path / "tokenizer.json"

    def graph(self, version: int) -> Path:
        """The ONNX file of a version; its weights lie beside it in `model.onnx.data`."""
        return self.path / str(version) / "model.onnx"

    def batch_strategy(self, version: int) -> Path:
        """The library that bounds the batches of a version by tokens."""
        return self.path / str(version) / "batchstrategy.so"

    def versions(self) -> list[int]:
        """Version numbers present, ascending; empty where the folder does not exist."""
        if not self.path.is_dir():
            return []
        names = (entry.name for entry in self.path.iterdir() if entry.is_dir())
        return sorted(int(name) for name in names if name.isdigit() and not name.startswith("0"))
