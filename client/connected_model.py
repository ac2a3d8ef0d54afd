"""Transport-independent state of a connected client: its options, the model, and the interface of a call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray
from tokenizers import Tokenizer

from .call_deadline import CallDeadline
from .dispatch import CallLimits
from .errors import InvalidInputError
from .messages import ManifestT, ServedModel, read_served_model
from .model_outputs import ModelOutput
from .pacing import Pace
from .replies import RowResults
from .requests import RowRequest, limit_requests
from .texts import Texts
from .tokenization import load_tokenizer
from .tokenizer_source import find_tokenizer

DEFAULT_TIMEOUT_S = 60.0
DEFAULT_RETRY_TIMEOUT_S = 30.0
DEFAULT_MAX_IN_FLIGHT = 8
_LONGEST_TIMEOUT_S = 1e9

ResultT_co = TypeVar("ResultT_co", covariant=True)


class Call(Protocol[ResultT_co]):
    """One client call: the requests to send, where their results are collected, and what the caller gets of them."""

    @property
    def texts(self) -> Texts:
        """The texts, or the documents of pairs."""

    @property
    def requests(self) -> Iterator[RowRequest]:
        """The requests to send, packed lazily; empty if there is nothing to compute."""

    @property
    def output(self) -> ModelOutput:
        """The output tensor that every reply must have."""

    def new_results(self) -> RowResults:
        """Return where the replies are collected."""

    def finish(self, results: NDArray[Any]) -> ResultT_co:
        """Return the caller's result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Options of a client, documented at `ModelClient`."""

    tokenizer: Path | str | None = None
    repository: Path | str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    call_timeout_s: float | None = None
    retry_timeout_s: float = DEFAULT_RETRY_TIMEOUT_S
    max_rows_per_request: int | None = None
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    truncate: bool = True

    def __post_init__(self) -> None:
        for name, timeout_s in (("timeout_s", self.timeout_s), ("call_timeout_s", self.call_timeout_s)):
            if timeout_s is not None and not 0 < timeout_s <= _LONGEST_TIMEOUT_S:
                raise InvalidInputError(f"{name} is {timeout_s}; it must be above 0 and at most {_LONGEST_TIMEOUT_S:g}")
        if not 0 <= self.retry_timeout_s <= _LONGEST_TIMEOUT_S:
            raise InvalidInputError(
                f"retry_timeout_s is {self.retry_timeout_s}; it must be at least 0 and at most {_LONGEST_TIMEOUT_S:g}"
            )
        if self.max_in_flight < 1:
            raise InvalidInputError(f"max_in_flight is {self.max_in_flight}; it must be at least 1")

    def call_limits(self, deadline: CallDeadline) -> CallLimits:
        """Return the limits of a call that ends at `deadline`."""
        return CallLimits(
            timeout_s=self.timeout_s,
            retry_timeout_s=self.retry_timeout_s,
            max_in_flight=self.max_in_flight,
            deadline=deadline,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedModel(Generic[ManifestT]):
    """A served model, its tokenizer and the pace of requests. Nothing here depends on the transport."""

    manifest: ManifestT
    tokenizer: Tokenizer
    version: str
    """Version that requests ask for; empty for the newest one."""
    pace: Pace
    truncate: bool


def connect_model(
    config: Any,
    manifest_type: type[ManifestT],
    options: ClientOptions,
    servers: int,
    before: ConnectedModel[ManifestT] | None,
) -> ConnectedModel[ManifestT]:
    """Load what a client needs to use the model that `config`, a ModelConfig message, describes.

    Args:
        config: The message.
        manifest_type: Type of the manifest that the client can use.
        options: Options of the client.
        servers: Number of servers that share the client's requests.
        before: The version that the client used before, whose tokenizer is used again if it is the same.

    Raises:
        ManifestError: The manifest is missing, newer or not a `manifest_type`, or the tokenizer is unavailable.
        InvalidInputError: An option is invalid.
    """
    served = read_served_model(config, manifest_type)
    limits = limit_requests(served.max_batch_rows, options.max_rows_per_request, served.max_batch_tokens)
    return ConnectedModel(
        manifest=served.manifest,
        tokenizer=_load_tokenizer(served, options, before),
        version=served.version,
        pace=Pace(limits, served.manifest.load, servers=servers),
        truncate=options.truncate,
    )


def _load_tokenizer(
    served: ServedModel[ManifestT], options: ClientOptions, before: ConnectedModel[ManifestT] | None
) -> Tokenizer:
    identity = served.manifest.tokenizer
    if before is not None and before.manifest.tokenizer.sha256 == identity.sha256:
        return before.tokenizer
    file = find_tokenizer(
        served.name,
        identity.origin,
        served.packed_tokenizer,
        tokenizer=options.tokenizer,
        repository=options.repository,
    )
    return load_tokenizer(file, identity)
