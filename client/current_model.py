"""The version of a model that a client uses, and its change after a redeploy.

Requests name the version that they were prepared for, because another version may have other prompts or another
tokenizer. When the server no longer serves that version, the client reads the new manifest, and prepares the call
again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

from .channel import TritonChannel
from .connected_model import ConnectedModel
from .errors import InvalidInputError, ModelChangedError, ModelNotLoadedError

PreparationT = TypeVar("PreparationT", bound="Preparation")

OnNewVersion = Literal["follow", "refuse"]
"""What a redeploy does: the client uses the new version, or calls raise ModelChangedError."""

_READS = 8
_WAIT_S = 0.1
"""While versions are exchanged, the configuration may name the old one for a moment."""

_log = logging.getLogger(__name__)


class Preparation(Protocol):
    """What prepares the calls of one version of a model."""

    @property
    def model(self) -> ConnectedModel[Any]:
        """The version that the calls are prepared for."""


class CurrentModel(Generic[PreparationT]):
    """Prepares calls for the version that the server serves. Thread-safe."""

    def __init__(
        self,
        channel: TritonChannel,
        prepare: Callable[[Any, ConnectedModel[Any] | None], PreparationT],
        on_new_version: str,
    ) -> None:
        """Read the model's configuration from the server.

        Args:
            channel: Connection to the model.
            prepare: Returns what prepares calls of the model that a ModelConfig message describes; its second argument
                is the version that was used before.
            on_new_version: What a redeploy does.

        Raises:
            InvalidInputError: `on_new_version` is not a choice.
            ServerError: The server is unreachable, or does not serve the model.
            ManifestError: The client cannot use the model.
        """
        if on_new_version not in get_args(OnNewVersion):
            raise InvalidInputError(f"on_new_version is {on_new_version!r}; it must be 'follow' or 'refuse'")
        self._channel = channel
        self._prepare = prepare
        self._refuses = on_new_version == "refuse"
        self._lock = Lock()
        self.preparation = prepare(channel.model_config(), None)

    def refresh(self) -> PreparationT:
        """Return the preparation for the version that the server serves now; raises as `follow` does."""
        preparation = self.preparation
        try:
            self._channel.check_version(preparation.model.version)
        except ModelNotLoadedError as exc:
            self.follow(preparation, exc)
        return self.preparation

    def follow(self, used: PreparationT, error: ModelNotLoadedError) -> None:
        """Replace `used`, whose version is not served, which `error` says.

        Raises:
            ModelNotLoadedError: The server serves no other version; this is `error`, unless the server gave another.
            ModelChangedError: The client refuses new versions.
            ManifestError: The client cannot use the new version.
        """
        with self._lock:
            if self.preparation is not used:
                return
            preparation = self._read_other(used)
            if preparation is None:
                raise error
            before, after = used.model.version, preparation.model.version
            url, model = self._channel.url, self._channel.model
            if self._refuses:
                raise ModelChangedError(
                    f"{url}: model {model!r} was changed from version {before} to {after}: create a new client to use "
                    "it"
                ) from error
            _log.warning(
                "%s: model %r was changed from version %s to %s; its manifest was read again", url, model, before, after
            )
            self.preparation = preparation

    def _read_other(self, used: PreparationT) -> PreparationT | None:
        """Return the preparation of the version that the server's configuration names, None if that is `used`."""
        for attempt in range(_READS):
            if attempt:
                time.sleep(_WAIT_S)
            preparation = self._prepare(self._channel.model_config(), used.model)
            if preparation.model.version != used.model.version:
                return preparation
        return None
