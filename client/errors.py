"""What the client raises.

ClientError
├── ContractMismatch       the contract is absent, newer than this client, or of another task or tokenizer
├── BadInput               a text, instruction or dimension that cannot be sent; names which text and why
└── ServerError            the call reached for a server and failed
    ├── ServerUnavailable  nobody answers, or the model is not loaded; worth another try
    ├── ServerOverloaded   the server refused for want of room; worth another try later
    └── ServerTimeout      no answer within `timeout_s`
"""


class ClientError(Exception):
    """Root of every error that the client raises."""


class ContractMismatch(ClientError):
    """The contract of the model and this client do not fit together."""


class BadInput(ClientError, ValueError):
    """An argument that cannot be sent; the message names it and says why."""


class ServerError(ClientError):
    """The server did not answer a well-formed call."""


class ServerUnavailable(ServerError):
    """Nobody answers at the address, or the model is not loaded there."""


class ServerOverloaded(ServerError):
    """The server refused the call for want of room."""


class ServerTimeout(ServerError):
    """No answer came within `timeout_s`."""
