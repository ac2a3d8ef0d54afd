"""Paths of the files of an exported model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import ManifestError
from .input_files import describe_error, read_whole


@dataclass(frozen=True, slots=True)
class VersionDescription:
    """The three files that describe one version of a model, and are exchanged together when another one is served."""

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

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """All three."""
        return self.config, self.manifest, self.tokenizer

    def read_manifest(self) -> str:
        """Return the text of `manifest.json`; raise ManifestError if it cannot be read."""
        try:
            return read_whole(self.manifest).decode("utf-8")
        except (OSError, ValueError) as exc:
            raise ManifestError(
                f"{self.manifest}: not readable ({describe_error(exc)}); export the model again"
            ) from exc


@dataclass(frozen=True, slots=True)
class ModelFolder(VersionDescription):
    """The folder of one model in a repository: `<repository>/<name>/`. Its description is of the version in use."""

    def graph(self, version: int) -> Path:
        """Return the path of a version's ONNX graph; its weights are next to it in `model.onnx.data`."""
        return self.version(version).path / "model.onnx"

    def batch_strategy(self, version: int) -> Path:
        """Return the path of the library that limits the tokens of a version's batches."""
        return self.version(version).path / "batchstrategy.so"

    def version(self, version: int) -> VersionDescription:
        """Return the description that a version's folder keeps for a rollback."""
        return VersionDescription(self.path / str(version))

    def versions(self) -> list[int]:
        """Return the version numbers in the folder, ascending; empty if the folder does not exist."""
        if not self.path.is_dir():
            return []
        names = (entry.name for entry in self.path.iterdir() if entry.is_dir())
        return sorted(int(name) for name in names if name.isdigit() and not name.startswith("0"))
