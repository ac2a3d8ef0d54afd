"""The client that an adapter uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ..embedding import EmbeddingClient
from ..errors import InvalidInputError
from ..rerank import RerankClient

ClientT = TypeVar("ClientT", EmbeddingClient, RerankClient)
Url = str | Sequence[str]
"""`HOST:PORT` of Triton's gRPC port, or a list of servers with the same model."""
Connect = Callable[[Url, str], ClientT]
"""Creates a client from a URL and the name of a model; picklable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin(Generic[ClientT]):
    """How an adapter created its client."""

    connect: Connect[ClientT]
    url: Url
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldClient(Generic[ClientT]):
    """A client, and whether its adapter created it. A copy, also in another process, has a connection of its own."""

    client: ClientT
    origin: Origin[ClientT] | None
    """None if the caller created the client."""

    def close(self) -> None:
        """Close the client, unless the caller created it. Idempotent."""
        if self.origin is not None:
            self.client.close()

    def require_origin(self) -> Origin[ClientT]:
        """Return how the adapter created the client; raise TypeError, as pickle does, if it did not."""
        if self.origin is None:
            raise TypeError(
                "an adapter of an existing client cannot be pickled or deep-copied: create it from a URL and a model"
            )
        return self.origin

    def __reduce__(self) -> tuple[Any, ...]:
        origin = self.require_origin()
        return hold_client, (origin.connect, None, origin.url, origin.model)


class ClientHolder:
    """Base of the adapters: the lifetime of the client."""

    # not generic, because pydantic warns of generic classes before its own
    _held: HeldClient[Any]

    def close(self) -> None:
        """Close the connection, unless the adapter was created with an existing client. Idempotent."""
        self._held.close()

    def __getstate__(self) -> Any:
        self._held.require_origin()
        return super().__getstate__()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def hold_client(
    connect: Connect[ClientT], client: ClientT | None, url: Url | None, model: str | None
) -> HeldClient[ClientT]:
    """Return `client`, or one that `connect` creates from `url` and `model`.

    Raises:
        InvalidInputError: Neither or both are given.
        ServerError: The server is unreachable or returned an error; see the subclasses.
        ManifestError: The client cannot use the model.
    """
    if client is not None:
        if url is not None or model is not None:
            raise InvalidInputError("a client and a URL or model are given: pass one or the other")
        return HeldClient(client=client, origin=None)
    if url is None or model is None:
        raise InvalidInputError("neither a client nor a URL and a model are given")
    return HeldClient(client=connect(url, model), origin=Origin(connect=connect, url=url, model=model))
