"""The version of a model that a client uses, and its change after a redeploy. Performs no I/O.

Requests name the version that they were prepared for, because another version may have other prompts or another
tokenizer. When the server no longer serves that version, the client reads the new manifest, and prepares the call
again.
"""

from __future__ import annotations

import logging
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

from .connected_model import ConnectedModel
from .errors import ClientError, InvalidInputError, ModelChangedError, ModelNotLoadedError

PreparationT = TypeVar("PreparationT", bound="Preparation")

OnNewVersion = Literal["follow", "refuse"]
"""What a redeploy does: the client uses the new version, or calls raise ModelChangedError."""

READS = 8
WAIT_S = 0.1
"""While versions are exchanged, the configuration may name the old one for a moment: read it so often, so far apart."""
MOST_VERSIONS = 3
"""How many versions a call may be computed with before it fails."""

_log = logging.getLogger(__name__)


class Preparation(Protocol):
    """What prepares the calls of one version of a model."""

    @property
    def model(self) -> ConnectedModel[Any]:
        """The version that the calls are prepared for."""


class VersionReplacedError(ClientError):
    """The client uses another version now, so the call must be prepared again; never leaves the client."""


class CurrentModel(Generic[PreparationT]):
    """What prepares calls for the version that the server serves."""

    def __init__(self, preparation: PreparationT, where: str, model: str, on_new_version: OnNewVersion) -> None:
        """Begin with a version.

        Args:
            preparation: What prepares calls of this version.
            where: The server's address, for messages.
            model: Name of the model.
            on_new_version: What a redeploy does.
        """
        self.preparation = preparation
        self._where = where
        self._model = model
        self._refuses = on_new_version == "refuse"

    def replace(self, used: PreparationT, found: PreparationT, error: ModelNotLoadedError) -> bool:
        """Use `found` instead of `used`, and return True, if it is another version.

        Raises:
            ModelChangedError: The client refuses new versions.
        """
        before, after = used.model.version, found.model.version
        if before == after:
            return False
        if self._refuses:
            raise ModelChangedError(
                f"{self._where}: model {self._model!r} was changed from version {before} to {after}: create a new "
                "client to use it"
            ) from error
        _log.warning(
            "%s: model %r was changed from version %s to %s; its manifest was read again",
            self._where,
            self._model,
            before,
            after,
        )
        self.preparation = found
        return True

    def changed_too_often(self) -> ModelChangedError:
        """Return the error for a call that was prepared for MOST_VERSIONS versions in vain."""
        return ModelChangedError(
            f"{self._where}: model {self._model!r} was changed {MOST_VERSIONS} times during one call: call again when "
            "all servers have the same version"
        )


def check_on_new_version(on_new_version: str) -> None:
    """Raise InvalidInputError unless `on_new_version` is a choice."""
    if on_new_version not in get_args(OnNewVersion):
        raise InvalidInputError(f"on_new_version is {on_new_version!r}; it must be 'follow' or 'refuse'")


def changed_iterator(version: str) -> ModelChangedError:
    """Return the error for an iterator that began with a version that is no longer served."""
    return ModelChangedError(
        f"another version of the model was deployed while version {version} computed an iterator's vectors: compute "
        "all of them again, so that they are of one version"
    )
