"""Paths of the files of an exported model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """The folder of one model in a repository: `<repository>/<name>/`."""

    path: Path

    @property
    def config(self) -> Path:
        """Triton's model configuration."""
        return self.path / "config.pbtxt"

    @property
    def manifest(self) -> Path:
        """The manifest and the reports of the export, as JSON."""
        return self.path / "manifest.json"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer whose hash is in the manifest."""
        return self.path / "tokenizer.json"

    def graph(self, version: int) -> Path:
        """Return the path of a version's ONNX graph; its weights are next to it in `model.onnx.data`."""
        return self.path / str(version) / "model.onnx"

    def batch_strategy(self, version: int) -> Path:
        """Return the path of the library that limits the tokens of a version's batches."""
        return self.path / str(version) / "batchstrategy.so"

    def versions(self) -> list[int]:
        """Return the version numbers in the folder, ascending; empty if the folder does not exist."""
        if not self.path.is_dir():
            return []
        names = (entry.name for entry in self.path.iterdir() if entry.is_dir())
        return sorted(int(name) for name in names if name.isdigit() and not name.startswith("0"))
