"""What can be asked of the exporter, with every default; loads neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ..client.manifest import Device, Precision
from .release import DEFAULT_RELEASE, TritonRelease
from .sources.references import AdapterReference, SourceReference


class TaskChoice(StrEnum):
    """What the model is for."""

    AUTO = "auto"
    """What the checkpoint and its adapters say of themselves; embeddings where they say nothing."""
    EMBED = "embed"
    RERANK = "rerank"


class PairTemplate(StrEnum):
    """What stands between instruction, query and document of a reranker; both are official."""

    LINE = "line"
    """One line break, as in the model card's transformers code."""
    BLANK_LINE = "blank-line"
    """Two, as in the model card's vLLM code."""


class CudaAttention(StrEnum):
    """How attention on a GPU is fed; fp32 has one way and takes no notice."""

    ROWS = "rows"
    """Right-padded rows, gathered inside the graph, for GroupQueryAttention."""
    PAGES = "pages"
    """Packed tokens and a paged cache for PagedAttention: no padding, but more work a token up to 1.28."""


class ServerArchitecture(StrEnum):
    """Processor architecture of the machines that Triton runs on, by its name in Linux."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """How Triton batches and runs the model."""

    max_batch_rows: int = 64
    """Most rows of one batch, over all requests in it."""
    max_batch_tokens: int | None = None
    """Most tokens of one batch, over all requests in it; None: what the device computes in about a second (CPU) or a
    tenth of a second (GPU)."""
    token_budget: bool = True
    """Bound batches by tokens, with a batching strategy library in the model's folder; False: by rows alone, as few as
    keep rows of the longest kind within the budget."""
    server_architecture: ServerArchitecture = ServerArchitecture.X86_64
    """What the library is for."""
    queue_delay_us: int = 0
    """How long a request may wait for others while an instance is free, microseconds. Requests that arrive while every
    instance is busy share a batch anyway."""
    instances: int = 1
    """Copies of the model, each with `threads` of its own: several that take every core are slower than one."""
    threads: int = 0
    """Threads of one instance; 0 takes every core."""
    response_cache: bool = False
    """Answer repeated requests from Triton's response cache; the server must have one configured."""
    gpu_memory_bytes: int | None = None
    """Most GPU memory for weights and workspace of one instance; None: as much as it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Options:
    """How an int8 model is calibrated, and how good it must be."""

    calibration: Path | None = None
    """Texts to smooth with, one a line or JSON lines with `text`; this project's own where None."""
    max_error: float | None = None
    """Largest 1 - cosine to fp32 of a held-out text, or largest difference of a held-out pair's score; what the
    parity gates of int8 allow where None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What an embedding model's retrieval is measured with, and how good it must be."""

    folder: Path | None = None
    """A retrieval set in BEIR's layout; nothing is measured where None."""
    max_ndcg_loss: float | None = None
    """By how much nDCG@10, in 0…1, may be below that of transformers fp32; any loss where None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to export, and how."""

    model: SourceReference
    adapters: tuple[AdapterReference, ...] = ()
    repository: Path = Path("model_repository")
    name: str | None = None
    """Folder in the repository; the checkpoint's own name where None."""
    task: TaskChoice = TaskChoice.AUTO
    precision: Precision = Precision.FP32
    device: Device = Device.CPU
    triton_release: TritonRelease = DEFAULT_RELEASE
    """Image that a graph for GPUs must run in."""
    cuda_attention: CudaAttention = CudaAttention.ROWS
    max_tokens: int | None = None
    """Longest row; the checkpoint's limit or 8192, whichever is smaller, where None."""
    query_template: str | None = None
    """Of an embedding model: text of a query with `{text}` and perhaps `{instruction}`; the checkpoint's if None."""
    document_template: str | None = None
    """Of an embedding model: text of a document with `{text}`; the checkpoint's if None."""
    instruction: str | None = None
    """Default instruction instead of the checkpoint's."""
    template: PairTemplate | None = None
    """Of a reranker only; LINE where None."""
    int8: Int8Options = field(default_factory=Int8Options)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    serving: ServingOptions = field(default_factory=ServingOptions)
    overwrite: bool = False
    parity_budget_s: float = 60.0
    """Time that the reference may take for the longest text, seconds; it is shortened to fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOptions:
    """What to merge, and where to."""

    model: SourceReference
    adapters: tuple[AdapterReference, ...]
    output: Path
    overwrite: bool = False
