"""Sources of a model's tokenizer: an explicit path, a local repository, the server, or the origin in the manifest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import InvalidInputError, ManifestError
from .manifest import ModelFolder
from .manifest.input_files import describe_error, read_whole
from .manifest.packed_tokenizer import unpack_tokenizer

_FILE = "tokenizer.json"
_PASS_TOKENIZER = "pass the tokenizer.json next to the model's config.pbtxt as tokenizer="
_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?")


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """A `tokenizer.json` whose hash has not been checked yet."""

    name: str
    """Path of the file, or another name for error messages."""
    content: bytes

    @classmethod
    def read(cls, file: Path, argument: str = "tokenizer") -> TokenizerFile:
        """Read `file`; raise InvalidInputError, which names the caller's `argument`, if that fails."""
        if not file.exists():
            raise InvalidInputError(f"{argument}: {file} does not exist")
        try:
            return cls(str(file), read_whole(file))
        except OSError as exc:
            raise InvalidInputError(f"{argument}: cannot read {file}: {describe_error(exc)}") from exc


def find_tokenizer(
    model: str,
    origin: str,
    packed: str | None = None,
    *,
    tokenizer: Path | str | None = None,
    repository: Path | str | None = None,
) -> TokenizerFile:
    """Return the model's `tokenizer.json`; the caller must check its hash.

    The first source that is given is used, without falling back to the others: `tokenizer`, `repository`, `packed`,
    `origin` as a local directory, `origin` as a hub id. Only the last one accesses the network.

    Args:
        model: Name of the model.
        origin: The manifest's origin of the tokenizer: `owner/name[@revision]` on the hub, or the name of a directory,
            which manifests of earlier exports have with its path.
        packed: The tokenizer in the model's configuration; None if it is not there.
        tokenizer: The file, or the directory that contains it.
        repository: Local model repository.

    Raises:
        InvalidInputError: There is no tokenizer at the given path.
        ManifestError: `packed` is malformed, or the tokenizer cannot be loaded from `origin`.
    """
    if tokenizer is not None:
        path = Path(tokenizer)
        return TokenizerFile.read(path / _FILE if path.is_dir() else path, "tokenizer=")
    if repository is not None:
        return TokenizerFile.read(ModelFolder(Path(repository) / model).tokenizer, "repository=")
    if packed is not None:
        return TokenizerFile(f"the tokenizer that the server has for model {model!r}", unpack_tokenizer(packed))
    local = Path(origin)
    if local.is_absolute() and (local / _FILE).exists():
        return TokenizerFile.read(local / _FILE)
    matched = _HUB_ID.fullmatch(origin)
    if matched is None:
        raise ManifestError(
            f"the tokenizer of model {model!r} came from {origin!r}, which is neither a directory on this machine "
            f"nor a hub id: {_PASS_TOKENIZER}"
        )
    return TokenizerFile.read(_download(matched["repository"], matched["revision"]))


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
