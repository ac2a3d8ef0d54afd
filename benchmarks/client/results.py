"""Raw samples of the part client; its single texts are loads, like those of the part serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTurns:
    """CPU seconds of all threads of a client's process in one repetition."""

    calls_s: tuple[float, ...]
    """Of each call."""
    tokenizations_s: tuple[float, ...]
    """Of tokenizing the texts of each call with the client's tokenizer, in turns with the calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCost:
    """Processor time of a client's calls."""

    client: str
    texts: int
    """Texts of a call, all different."""
    tokens: int
    """Tokens of the measured calls of one repetition."""
    calls: int
    """Calls during all repetitions, with those that are not measured."""
    requests: int
    """Requests in which the server got them."""
    repetitions: tuple[CpuTurns, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCount:
    """How often the server computed a batch of this size."""

    rows: int
    batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTimes:
    """Triton's statistics of a model during one repetition."""

    requests: int
    batches: tuple[BatchCount, ...]
    queue_s: float
    """Time in the queue, the sum of all requests."""
    input_s: float
    """Time in which the backend got the inputs of its batches, the sum of all batches."""
    infer_s: float
    """Time in which it computed them."""
    output_s: float
    """Time in which it returned the outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRepetition:
    """One call of `EmbeddingClient.embed_documents`, then the same batches in a session without a server."""

    client_wall_s: float
    client_cpu_s: float
    """Of all threads of the client's process."""
    tokenization_wall_s: float
    """Time of tokenizing the same texts alone, before the call."""
    server: ServerTimes
    """During the call."""
    session_wall_s: float
    session_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkSpeed:
    """Many texts in one call, and in a session with the same number of threads as the server."""

    threads: int
    texts: int
    tokens: int
    repetitions: tuple[BulkRepetition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportTime:
    """Time of new processes with an import, in turns with processes that do nothing."""

    statement: str
    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    empty_wall_s: tuple[float, ...]
    empty_cpu_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientMeasurements:
    """Measurements of the clients, apart from single texts."""

    precision: str
    shape: Mapping[str, int]
    """Layers, hidden size and vocabulary of the served model."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Packages that the clients use."""
    costs: tuple[CallCost, ...] = ()
    bulk: tuple[BulkSpeed, ...] = ()
    imported: ImportTime | None = None
