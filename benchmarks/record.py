"""One run as data: raw samples, with the machine, versions and workloads that produced them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, with_config

from qwen3_triton.client.manifest import Task

from .client.results import ClientMeasurements
from .environment import CodeState, Environment

SCHEMA_VERSION = 3
"""Version of the files, which only `record_file` reads and writes."""


def _require_current(version: int) -> int:
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema {version} is not supported, this version reads schema {SCHEMA_VERSION}")
    return version


class ScalingVariable(StrEnum):
    """What grows along a scaling curve; the values are those stored in records."""

    ROWS = "rows of 64 tokens"
    TOKENS = "tokens of one text"
    MATMULS = "GFLOP of products a token"

    @property
    def label(self) -> str:
        """Text for tables and axes."""
        return _SCALING_LABELS[self]


_SCALING_LABELS = {
    ScalingVariable.ROWS: "rows of 64 tokens",
    ScalingVariable.TOKENS: "tokens in one text",
    ScalingVariable.MATMULS: "matmul GFLOP per token",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Time of one pass over the workload, in seconds."""

    wall_s: float
    cpu_s: float
    """CPU time of all threads; less sensitive to other processes than wall time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Samples of one setting from the scan that selects the fastest one."""

    setting: str
    samples: tuple[Sample, ...]
    rejected: str = ""
    """Why the setting was not selected although it was faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Raw samples of one contender, in the order of the repetitions."""

    program: str
    setting: str
    versions: Mapping[str, str]
    arithmetic: str = "fp32"
    """Precision of its matrix multiplications: fp32, fp16, bf16 or int8."""
    min_cosine: float | None = None
    """Smallest cosine of its embeddings to the reference, measured before timing; None for rerankers."""
    batched_cosine: float | None = None
    """Smallest cosine between a row's embedding computed alone and in its batch; None if not measured."""
    max_score_error: float | None = None
    """Largest difference of its scores from the reference; None for embedding models."""
    batched_score_error: float | None = None
    """Largest difference between a row's score computed alone and in its batch; None if not measured."""
    warmups: tuple[Sample, ...]
    samples: tuple[Sample, ...]
    """The workload's `passes` consecutive samples of each repetition."""
    scan: tuple[Scan, ...] = ()
    """Every setting tried, including the selected one."""
    untried: Mapping[str, str] = field(default_factory=dict)
    """Setting, or options of a contender with all its batch sizes → why it was not tried, or failed."""

    @property
    def walls_s(self) -> list[float]:
        """Wall time of each pass, in seconds."""
        return [sample.wall_s for sample in self.samples]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatmulProbe:
    """Samples of one layer's matrix multiplications alone, interleaved with the contenders."""

    program: str = "onnxruntime fp32"
    """Library and precision."""
    flops: int
    """Additions and multiplications per sample."""
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyProbe:
    """Samples of a memory copy on the device, interleaved with the contenders."""

    program: str
    bytes: int
    """Bytes read plus bytes written per sample."""
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadInfo:
    """The workload as it was run."""

    name: str
    seed: int
    texts: int
    tokens: int
    shortest: int
    longest: int
    shape: Mapping[str, int]
    passes: int = 1
    """Passes over the texts in each repetition."""
    needed_flops: int | None = None
    """Fewest matmul FLOPs that produce the outputs; None in old records."""
    task: Task = Task.EMBED
    """Embedding of texts, or reranking of passages for one query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All contenders on one workload, measured side by side."""

    workload: WorkloadInfo
    entries: tuple[Entry, ...]
    not_measured: Mapping[str, str]
    """Program → reason."""
    matmuls: tuple[MatmulProbe, ...]
    profile_us: Mapping[str, Mapping[str, int]]
    """Program → operator → microseconds per pass."""
    load_average: tuple[float, ...]
    """One-minute load average at the start of each repetition."""
    memory_copies: tuple[CopyProbe, ...] = ()
    scanned_texts: int | None = None
    """Texts on whose times settings were ranked; None in old records: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request under load; times in seconds."""

    start_s: float
    """Time since the start of the load at which it was sent or, in an open loop, scheduled."""
    latency_s: float
    text_index: int | None
    """Index of the workload's text that it contained; None if the driver does not report it."""
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Columns of requests, in the order of their start times."""

    start_s: tuple[float, ...]
    latency_s: tuple[float, ...]
    text_index: tuple[int | None, ...]
    error: tuple[str | None, ...]

    @classmethod
    def of(cls, requests: Sequence[Request]) -> Requests:
        """Transpose `requests` into columns."""
        return cls(
            start_s=tuple(each.start_s for each in requests),
            latency_s=tuple(each.latency_s for each in requests),
            text_index=tuple(each.text_index for each in requests),
            error=tuple(each.error for each in requests),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One served model under one load."""

    program: str
    driver: str
    workload: str
    tokens: tuple[int, ...]
    """Token count of each of the workload's texts; a request contains one text."""
    loop: Literal["closed", "open"]
    in_flight: int | None
    """Concurrent requests in a closed loop."""
    rate_per_s: float | None
    """Arrival rate in an open loop."""
    warmups: Requests
    repetitions: tuple[Requests, ...]
    rows: int
    """Rows that the server computed, including warm-ups."""
    executions: int
    """Batches in which it computed them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCase:
    """Single texts to a served model under one load, with one setting of the server or of its other clients."""

    setting: str
    load: str
    """The first case with a load is the baseline of all cases with it."""
    repetitions: tuple[Requests, ...]
    bulk_texts_per_s: tuple[float, ...] = ()
    """Speed of the bulk job beside the single texts, by repetition; empty if there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySample:
    """Resident memory that processes have allocated or share, without pages of mapped files, in MB."""

    elapsed_s: float
    server_mb: float
    """Of `tritonserver`."""
    backend_mb: float
    """Of the processes that compute the models."""
    clients_mb: float
    """Of the process with all clients, which is the benchmark itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """A mixed load on a served model for a long time."""

    precision: str
    duration_s: float
    outcomes: Mapping[str, int]
    """Kind of request and outcome → number."""
    memory: tuple[MemorySample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportStage:
    """One stage of an export."""

    name: str
    wall_s: float
    forward: bool
    """Whether it is spent on forward passes: of the reference, of the survey of activations, or of calibration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCost:
    """Time and memory of one export in a process of its own, beside copies of its checkpoint on the same disk.

    Files were written out and dropped from the page cache before each copy and before the export.
    """

    setting: str
    checkpoint_bytes: int
    written_bytes: int
    copies_s: tuple[float, ...]
    """Time of `cp` of the checkpoint until the copy is on disk, before and after the export."""
    stages: tuple[ExportStage, ...]
    cpu_s: float
    """CPU time of all threads."""
    peak_mb: float
    """Largest resident memory, with pages of mapped files."""
    peak_allocated_mb: float
    """Largest resident memory without pages of mapped files, from samples."""
    load_average: tuple[float, float]
    """One-minute load average before and after."""
    disk_read_bytes: int | None = None
    """Bytes that the export read from disk, those of libraries included; None in older records."""

    @property
    def wall_s(self) -> float:
        """Time of the export without forward passes."""
        return sum(stage.wall_s for stage in self.stages if not stage.forward)

    @property
    def forward_s(self) -> float:
        """Time of the stages with forward passes."""
        return sum(stage.wall_s for stage in self.stages if stage.forward)

    @property
    def ratio(self) -> float:
        """Time without forward passes, relative to the mean of the copies."""
        return self.wall_s / (sum(self.copies_s) / len(self.copies_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerInfo:
    """The tokenizer of the served model."""

    sha256: str
    """SHA-256 of its `tokenizer.json`."""
    vocabulary: int
    """Highest token id plus one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityScore:
    """Quality of one model at one embedding dimension on one retrieval task."""

    model: str
    precision: str
    task: str
    dimension: int
    ndcg_at_10: float
    queries: int
    documents: int
    min_cosine: float
    """Smallest cosine of the truncated embeddings to those of transformers fp32."""
    mean_cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPoint:
    """Raw samples at one size."""

    size: float
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingCurve:
    """Cost of a program as one variable grows."""

    program: str
    variable: ScalingVariable
    points: tuple[ScalingPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """When an interrupted run was resumed, and the code that resumed it."""

    started: str
    """UTC, ISO 8601."""
    code: CodeState


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run."""

    schema_version: Annotated[int, AfterValidator(_require_current)] = SCHEMA_VERSION
    started: str
    """UTC, ISO 8601."""
    command: str = ""
    code: CodeState
    resumed: tuple[Resumption, ...] = ()
    environment: Environment
    comparisons: tuple[Comparison, ...] = ()
    served_tokenizer: TokenizerInfo | None = None
    """Tokenizer of the parts with a server; None is the byte-level tokenizer of the benchmark checkpoint."""
    loads: tuple[Load, ...] = ()
    overload: tuple[LatencyCase, ...] = ()
    batching: tuple[LatencyCase, ...] = ()
    client: ClientMeasurements | None = None
    client_loads: tuple[Load, ...] = ()
    """Single texts of the part client."""
    soak: Soak | None = None
    exports: tuple[ExportCost, ...] = ()
    quality: tuple[QualityScore, ...] = ()
    scaling: tuple[ScalingCurve, ...] = ()
    not_measured: Mapping[str, str] = field(default_factory=dict)
    """Part of the run → reason."""
