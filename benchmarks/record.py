"""One run as data: raw samples with machine, versions and workloads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .environment import CodeState, Environment

SCHEMA_VERSION = 2
"""Of the files, of which record_file.py is the only reader and writer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One pass over the workload, seconds."""

    wall_s: float
    cpu_s: float
    """Processor time of all threads; less disturbed by other processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What one setting took when the best was looked for, before the timed rounds."""

    setting: str
    samples: tuple[Sample, ...]
    rejected: str = ""
    """Why it was not taken although nothing that was taken is faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One contender's raw samples, in the order of the repetitions."""

    program: str
    setting: str
    versions: Mapping[str, str]
    arithmetic: str = "fp32"
    """What it multiplies in: fp32, bf16 or int8."""
    min_cosine: float | None = None
    """Of its vectors to the reference's, before timing; None where it scores."""
    company_cosine: float | None = None
    """Smallest cosine between a text's vector alone and in the company of the workload; None where not measured."""
    max_score_error: float | None = None
    """Of its scores to the reference's; None where it embeds."""
    company_score_error: float | None = None
    """Largest difference between a row's score alone and in the company of the workload; None where not measured."""
    warmups: tuple[Sample, ...]
    samples: tuple[Sample, ...]
    """`passes` in a row for each repetition."""
    scan: tuple[Scan, ...] = ()
    """Every setting tried, the chosen one among them."""

    @property
    def walls_s(self) -> list[float]:
        """Wall-clock seconds of each pass."""
        return [sample.wall_s for sample in self.samples]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductGauge:
    """What the machine gives a layer's matrix products alone, timed between the contenders."""

    program: str = "onnxruntime fp32"
    """Library and precision."""
    flops: int
    """Of one sample: multiplications and additions."""
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyGauge:
    """What the machine's memory gives, timed between the contenders."""

    program: str
    bytes: int
    """Of one sample: read and written."""
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadFacts:
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
    """Of the products without which there is no answer; None in old records."""
    task: str = "embed"
    """embed, or rerank: passages for one query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Every contender on one workload, side by side."""

    workload: WorkloadFacts
    entries: tuple[Entry, ...]
    absent: Mapping[str, str]
    """Program → why it was not measured."""
    products: tuple[ProductGauge, ...]
    profile: Mapping[str, Mapping[str, int]]
    """Program → operator → microseconds of one pass."""
    load_average: tuple[float, ...]
    """At each repetition."""
    copies: tuple[CopyGauge, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request under load, seconds."""

    start_s: float
    """When it was sent, or in an open loop planned to be, since the load began."""
    latency_s: float
    item: int | None
    """Which of the workload's texts it held; None where the driver does not tell."""
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Requests as columns, in the order of their starts."""

    start_s: tuple[float, ...]
    latency_s: tuple[float, ...]
    item: tuple[int | None, ...]
    error: tuple[str | None, ...]

    @classmethod
    def of(cls, requests: Sequence[Request]) -> Requests:
        """The columns of `requests`."""
        return cls(
            start_s=tuple(each.start_s for each in requests),
            latency_s=tuple(each.latency_s for each in requests),
            item=tuple(each.item for each in requests),
            error=tuple(each.error for each in requests),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One model behind the server under one load."""

    program: str
    driver: str
    workload: str
    tokens: tuple[int, ...]
    """Of each of the workload's texts; a request holds one."""
    loop: str
    """closed or open"""
    in_flight: int | None
    """In a closed loop."""
    rate_per_s: float | None
    """Arrivals in an open loop."""
    warmups: Requests
    repetitions: tuple[Requests, ...]
    rows: int
    """That the server computed, the warm-ups' among them."""
    executions: int
    """In which it did so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFacts:
    """Which tokenizer the served texts went through."""

    sha256: str
    """Of its `tokenizer.json`."""
    vocabulary: int
    """Ids, up to the highest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityScore:
    """One model at one vector width on one retrieval task."""

    model: str
    precision: str
    task: str
    dimension: int
    ndcg_at_10: float
    queries: int
    documents: int
    min_cosine: float
    """Of the cut vectors to those of transformers in fp32."""
    mean_cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthPoint:
    """Raw samples at one size."""

    size: float
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A program's cost while one thing grows."""

    program: str
    of: str
    """What grows: rows, tokens of one text, layers' work."""
    points: tuple[GrowthPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """When a run that had been ended went on, and by which code."""

    started: str
    """UTC, ISO 8601."""
    code: CodeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run."""

    schema_version: int = SCHEMA_VERSION
    started: str
    """UTC, ISO 8601."""
    command: str = ""
    code: CodeState
    resumed: tuple[Resumption, ...] = ()
    environment: Environment
    rounds: tuple[Round, ...] = ()
    served_tokenizer: TokenizerFacts | None = None
    """That of `loads`; None is one id a byte."""
    loads: tuple[Load, ...] = ()
    quality: tuple[QualityScore, ...] = ()
    growth: tuple[Growth, ...] = ()
    not_done: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What the run could not do → why."""
