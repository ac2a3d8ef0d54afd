"""Exceptions of the client.

ClientError
├── ManifestError               the manifest is missing, malformed or too new, or for another task or tokenizer
├── InvalidInputError           an argument is invalid, or the server returned NaN for a text
└── ServerError                 the server could not be reached, or failed to process a valid request
    ├── ServerUnavailableError  server unreachable; retry
    │   └── ModelNotLoadedError the server does not have the model, or not (any longer) this version; retry
    ├── ModelChangedError       another version of the model was deployed
    ├── ServerOverloadedError   queue full, or too long a wait in it; retry later
    ├── ServerOutOfMemoryError  the server had not enough memory for a request
    └── ServerTimeoutError      no reply within `timeout_s`, or the call would take longer than `call_timeout_s`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .partial_results import PartialResults


class ClientError(Exception):
    """Base class of all client exceptions."""


class ManifestError(ClientError):
    """The manifest is missing or malformed, or describes a model that this client cannot use."""


class InvalidInputError(ClientError, ValueError):
    """An argument is invalid, or the server returned NaN for a text; the message names the argument and the reason."""


class ServerError(ClientError):
    """The server could not be reached, or failed to process a valid request."""

    partial: PartialResults | None = None
    """The results that arrived before a call failed; None if the client could not connect."""


class ServerUnavailableError(ServerError):
    """The server is unreachable, or the model is not loaded. Retrying may help."""


class ModelNotLoadedError(ServerUnavailableError):
    """The server does not have the model, or does not serve the version that the client asked for."""


class ModelChangedError(ServerError):
    """Another version of the model was deployed, and its results must not be mixed with earlier ones.

    The client raises it if it refuses new versions, and for an iterator that had begun with the old one.
    """


class ServerOverloadedError(ServerError):
    """The server rejected the request because its queue is full, or because the request waited too long in it. The
    request was not computed. Retry later."""


class ServerOutOfMemoryError(ServerError):
    """The server had not enough memory to compute a request, even with a single text."""


class ServerTimeoutError(ServerError):
    """The server did not reply within `timeout_s`, or the call would have taken longer than `call_timeout_s`."""


UNAVAILABLE = (ServerUnavailableError, ServerOverloadedError, ServerTimeoutError)
"""Errors of a server that cannot compute requests now, and may do so later."""
