"""Models in one repository that differ only in their configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from qwen3_triton.client.manifest import ModelFolder


def link_model(
    source: ModelFolder, repository: Path, name: str, change: Callable[[model_config_pb2.ModelConfig], None]
) -> None:
    """Add a model with a changed configuration to a repository; all other files are links to those of `source`.

    Args:
        source: the model.
        repository: folder of the repository.
        name: name of the model to add.
        change: changes the parsed `config.pbtxt`.
    """
    folder = ModelFolder(repository / name)
    folder.path.mkdir()
    for entry in source.path.iterdir():
        if entry != source.config:
            (folder.path / entry.name).symlink_to(entry.resolve())
    config = text_format.Parse(source.config.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    config.name = name
    change(config)
    folder.config.write_text(text_format.MessageToString(config, as_utf8=True), encoding="utf-8")
