"""Where the tokenizer of a model lies: a path given, a local repository, or the origin of the manifest."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import InvalidInputError, ManifestError
from .manifest import ModelFolder

_FILE = "tokenizer.json"
_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?")


def find_tokenizer(
    model: str, origin: str, *, tokenizer: Path | str | None = None, repository: Path | str | None = None
) -> Path:
    """Path of the model's `tokenizer.json`; its hash is still to be checked.

    The first that is given counts, and no other is tried: `tokenizer` (the file or its directory),
    `repository` (a model repository on this machine), `origin` of the manifest as a directory that exists
    here, `origin` as a hub id `owner/name[@revision]`. Only the last reaches for the network.
    Raises InvalidInputError where a path given holds no tokenizer, ManifestError where the origin does not.
    """
    if tokenizer is not None:
        given = Path(tokenizer)
        return _existing(given / _FILE if given.is_dir() else given, "tokenizer=")
    if repository is not None:
        return _existing(ModelFolder(Path(repository) / model).tokenizer, "repository=")
    local = Path(origin)
    if (local / _FILE).is_file():
        return local / _FILE
    matched = _HUB_ID.fullmatch(origin)
    if matched is None:
        raise ManifestError(
            f"the tokenizer of model {model!r} came from {origin!r}, which is neither a directory here "
            "nor a hub id: pass tokenizer= the tokenizer.json beside the model's config.pbtxt"
        )
    return _download(matched["repository"], matched["revision"])


def _existing(file: Path, argument: str) -> Path:
    if not file.is_file():
        raise InvalidInputError(f"{argument}: {file} does not exist")
    return file


def _download(repository: str, revision: str | None) -> Path:
    """Path of the file in the hub's cache, fetched where it is not there yet."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as exc:
        raise ManifestError(
            f"the tokenizer is {repository!r} on the hub: pip install huggingface-hub, "
            "or pass tokenizer= the tokenizer.json beside the model's config.pbtxt"
        ) from exc
    try:
        return Path(huggingface_hub.hf_hub_download(repository, _FILE, revision=revision))
    except (HfHubHTTPError, OSError, ValueError) as exc:
        raise ManifestError(
            f"the tokenizer {repository!r} cannot be had from the hub ({exc}): "
            "pass tokenizer= the tokenizer.json beside the model's config.pbtxt"
        ) from exc
