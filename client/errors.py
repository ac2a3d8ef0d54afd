"""Exceptions of the client.

ClientError
├── ContractMismatch       the model's contract is missing, malformed or newer, or of another task or tokenizer
├── BadInput               a text, instruction or dimension that cannot be sent; the message names it and says why
└── ServerError            the server could not be reached, or did not answer a valid request
    ├── ServerUnavailable  server unreachable, or model not loaded; worth a retry
    ├── ServerOverloaded   queue full; worth a retry later
    └── ServerTimeout      no answer within `timeout_s`
"""


class ClientError(Exception):
    """Base class of all exceptions that the client raises."""


class ContractMismatch(ClientError):
    """The contract or manifest of a model cannot be used by this client."""


class BadInput(ClientError, ValueError):
    """An argument cannot be sent; the message names it and says why."""


class ServerError(ClientError):
    """The server did not answer a valid request."""


class ServerUnavailable(ServerError):
    """The server is unreachable, or the model is not loaded."""


class ServerOverloaded(ServerError):
    """The server rejected the request because its queue is full."""


class ServerTimeout(ServerError):
    """The server did not answer within `timeout_s`."""
