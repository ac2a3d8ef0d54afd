"""What a client knows once it is connected, and the calls that it makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tokenizers import Tokenizer

from .errors import InvalidInputError
from .lost_rows import ExpectedOutput
from .messages import ManifestT, read_served_model
from .replies import RowReply
from .requests import RequestLimits, RowRequest, limit_requests
from .tokenization import load_tokenizer
from .tokenizer_source import find_tokenizer

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_MAX_IN_FLIGHT = 8

AnswerT_co = TypeVar("AnswerT_co", covariant=True)


class Call(Protocol[AnswerT_co]):
    """One call on its way: what to send, and what to make of the replies."""

    @property
    def requests(self) -> Iterator[RowRequest]:
        """Packed as they are taken; empty where there is nothing to ask."""

    @property
    def output(self) -> ExpectedOutput:
        """Where the answers are in a reply."""

    def finish(self, replies: Iterable[RowReply]) -> AnswerT_co:
        """The caller's answer from every reply, in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """What a caller may choose; `ModelClient` says what each means."""

    tokenizer: Path | str | None = None
    repository: Path | str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    max_rows_per_request: int | None = None
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    truncate: bool = True

    def __post_init__(self) -> None:
        if self.max_in_flight < 1:
            raise InvalidInputError(f"max_in_flight is {self.max_in_flight}, it must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedModel(Generic[ManifestT]):
    """A served model with its tokenizer and the limits of a request; pure from here on, whatever the transport."""

    manifest: ManifestT
    tokenizer: Tokenizer
    limits: RequestLimits
    truncate: bool


def connect_model(config: Any, kind: type[ManifestT], options: ClientOptions) -> ConnectedModel[ManifestT]:
    """The model that a ModelConfig message describes.

    Raises ManifestError where it is not of `kind` or its tokenizer is not to be had, InvalidInputError.
    """
    served = read_served_model(config, kind)
    identity = served.manifest.tokenizer
    file = find_tokenizer(served.name, identity.origin, tokenizer=options.tokenizer, repository=options.repository)
    return ConnectedModel(
        manifest=served.manifest,
        tokenizer=load_tokenizer(file, identity),
        limits=limit_requests(served.max_batch_rows, options.max_rows_per_request, served.max_batch_tokens),
        truncate=options.truncate,
    )
