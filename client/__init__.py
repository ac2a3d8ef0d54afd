"""Text to vector: the client of an exported model; needs numpy, tokenizers and tritonclient[grpc] alone."""

from typing import TYPE_CHECKING

from .contract import Contract, ParityReport, Precision, Prompts, SourceIdentity, Task, TokenizerIdentity
from .errors import (
    BadInput,
    ClientError,
    ContractMismatch,
    ServerError,
    ServerOverloaded,
    ServerTimeout,
    ServerUnavailable,
)

if TYPE_CHECKING:
    from .embedding import EmbeddingClient

__all__ = [
    "BadInput",
    "ClientError",
    "Contract",
    "ContractMismatch",
    "EmbeddingClient",
    "ParityReport",
    "Precision",
    "Prompts",
    "ServerError",
    "ServerOverloaded",
    "ServerTimeout",
    "ServerUnavailable",
    "SourceIdentity",
    "Task",
    "TokenizerIdentity",
]


def __getattr__(name: str) -> object:
    # contract and errors are read by every command, which need not wait 0.5 s for gRPC
    if name == "EmbeddingClient":
        from .embedding import EmbeddingClient

        return EmbeddingClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
