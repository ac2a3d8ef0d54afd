"""Locating a model's tokenizer: an explicit path, a local repository, or the origin in the manifest."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import InvalidInputError, ManifestError
from .manifest import ModelFolder

_FILE = "tokenizer.json"
_PASS_TOKENIZER = "pass the tokenizer.json next to the model's config.pbtxt as tokenizer="
_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?")


def find_tokenizer(
    model: str, origin: str, *, tokenizer: Path | str | None = None, repository: Path | str | None = None
) -> Path:
    """Return the path of the model's `tokenizer.json`; the caller must check its hash.

    The first source that is given is used, without falling back to the others: `tokenizer`, `repository`, `origin` as a
    local directory, `origin` as a hub id. Only the last one accesses the network.

    Args:
        model: Name of the model.
        origin: The manifest's origin of the tokenizer: a directory or `owner/name[@revision]`.
        tokenizer: The file, or the directory that contains it.
        repository: Local model repository.

    Raises:
        InvalidInputError: There is no tokenizer at the given path.
        ManifestError: The tokenizer cannot be loaded from `origin`.
    """
    if tokenizer is not None:
        path = Path(tokenizer)
        return _existing(path / _FILE if path.is_dir() else path, "tokenizer=")
    if repository is not None:
        return _existing(ModelFolder(Path(repository) / model).tokenizer, "repository=")
    local = Path(origin)
    if (local / _FILE).exists():
        return local / _FILE
    matched = _HUB_ID.fullmatch(origin)
    if matched is None:
        raise ManifestError(
            f"the tokenizer of model {model!r} came from {origin!r}, which is neither a directory on this machine "
            f"nor a hub id: {_PASS_TOKENIZER}"
        )
    return _download(matched["repository"], matched["revision"])


def _existing(file: Path, argument: str) -> Path:
    if not file.exists():
        raise InvalidInputError(f"{argument}: {file} does not exist")
    return file


def _download(repository: str, revision: str | None) -> Path:
    """Return the path in the hub's cache; download the file if it is missing."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as exc:
        raise ManifestError(
            f"the tokenizer must be downloaded from {repository!r} on the hub: pip install huggingface-hub, "
            f"or {_PASS_TOKENIZER}"
        ) from exc
    try:
        return Path(huggingface_hub.hf_hub_download(repository, _FILE, revision=revision))
    except (HfHubHTTPError, OSError, ValueError) as exc:
        raise ManifestError(
            f"the tokenizer of {repository!r} could not be downloaded from the hub ({exc}): {_PASS_TOKENIZER}"
        ) from exc
