"""Which folder's files apply when a checkpoint and its adapters are opened together."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UnsupportedCheckpointError
from .adapter import CONFIG_FILE as ADAPTER_CONFIG
from .adapter import Adapter
from .checkpoint import Checkpoint
from .setting_files import SettingFiles


def setting_files(checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> SettingFiles:
    """Return the setting files that apply: those of the adapters before those of the checkpoint."""
    folders = dict.fromkeys(folder for adapter in adapters for folder in (adapter.root, adapter.directory))
    return SettingFiles(adapters=tuple(folders), base=tuple(dict.fromkeys((checkpoint.root, checkpoint.directory))))


def reject_adapter_beside_weights(checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> None:
    """Raise UnsupportedCheckpointError if the checkpoint's folder has an adapter that is not merged explicitly."""
    beside = checkpoint.directory / ADAPTER_CONFIG
    if beside.exists() and checkpoint.directory.resolve() not in {adapter.directory.resolve() for adapter in adapters}:
        raise UnsupportedCheckpointError(
            f"{beside}: transformers would apply this adapter to the weights beside it; pass the folder as an adapter "
            "as well to merge it, or remove the adapter's files if they do not belong there"
        )
