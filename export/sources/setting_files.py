"""The files beside the weights: an adapter's where it has them, the base's otherwise.

An adapter folder is the latest statement about a model. Whole files take precedence, not single keys: a file of an
adapter replaces that of the base. Adapters that have the same file must agree on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...client.manifest.input_files import describe_error, read_json_file, read_whole
from ..errors import SourceError, UnsupportedCheckpointError

SETTING_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "config_sentence_transformers.json",
    "merges.txt",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
"""Files of a folder that say how its model is used; the weights and their config are not among them."""
_DIFFERENCES_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingFiles:
    """Folders that may have setting files, in order of precedence."""

    adapters: tuple[Path, ...] = ()
    base: tuple[Path, ...]
    """Folder of the model, and that of its transformer if it is another."""

    @staticmethod
    def of_folder(folder: Path) -> SettingFiles:
        """Return the files of a single folder."""
        return SettingFiles(base=(folder,))

    def find(self, name: str) -> Path | None:
        """Return the file `name` that applies; None if no folder has one.

        Raises:
            SourceError: The adapters' files cannot be read.
            UnsupportedCheckpointError: Two adapters have the file with different content.
        """
        stated = [folder / name for folder in self.adapters if (folder / name).exists()]
        for other in stated[1:]:
            _require_same(stated[0], other)
        found = [*stated, *(folder / name for folder in self.base if (folder / name).exists())]
        return found[0] if found else None


def _require_same(one: Path, other: Path) -> None:
    try:
        if read_whole(one) == read_whole(other):
            return
    except OSError as exc:
        raise SourceError(f"{exc.filename}: not readable ({describe_error(exc)})") from exc
    first, second = _parse(one), _parse(other)
    if first is not None and first == second:
        return
    raise UnsupportedCheckpointError(
        f"the adapters disagree about {one.name}: {_describe(one, first, other, second)}; "
        "keep the one that applies, and remove the file from the other folder"
    )


def _parse(file: Path) -> Any:
    try:
        return read_json_file(file)
    except (OSError, ValueError):
        return None


def _describe(one: Path, first: Any, other: Path, second: Any) -> str:
    if not isinstance(first, dict) or not isinstance(second, dict):
        return f"{one} and {other} differ"
    keys = [key for key in first | second if first.get(key) != second.get(key)]
    shown = [f"{key} is {first.get(key)!r} in {one} and {second.get(key)!r} in {other}" for key in sorted(keys)]
    more = len(shown) - _DIFFERENCES_SHOWN
    return "; ".join(shown[:_DIFFERENCES_SHOWN]) + (f"; and {more} more" if more > 0 else "")
