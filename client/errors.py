"""Exceptions of the client.

ClientError
├── ManifestError               the model's manifest is missing, malformed or newer, or of another task or tokenizer
├── InvalidInputError           a text, instruction or dimension cannot be sent; the message says which and why
└── ServerError                 the server could not be reached, or did not answer a valid request
    ├── ServerUnavailableError  server unreachable, or model not loaded; worth a retry
    ├── ServerOverloadedError   queue full; worth a retry later
    └── ServerTimeoutError      no answer within `timeout_s`
"""


class ClientError(Exception):
    """Base class of all exceptions that the client raises."""


class ManifestError(ClientError):
    """The manifest of a model cannot be used by this client."""


class InvalidInputError(ClientError, ValueError):
    """An argument cannot be sent; the message names it and says why."""


class ServerError(ClientError):
    """The server did not answer a valid request."""


class ServerUnavailableError(ServerError):
    """The server is unreachable, or the model is not loaded."""


class ServerOverloadedError(ServerError):
    """The server rejected the request because its queue is full."""


class ServerTimeoutError(ServerError):
    """The server did not answer within `timeout_s`."""
