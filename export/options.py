"""Options of the exporter and their defaults. Imports neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ..client.manifest import Device, Precision, Verification
from .output_choice import OutputChoice
from .release import DEFAULT_RELEASE, TritonRelease
from .sources.references import AdapterReference, SourceReference, WeightedCheckpoint


class TaskChoice(StrEnum):
    """Task of the exported model."""

    AUTO = "auto"
    """Detect the task from the checkpoint and its adapters; embeddings if they do not indicate one."""
    EMBED = "embed"
    """Embeddings."""
    RERANK = "rerank"
    """Scores of query-document pairs."""


class WitnessChoice(StrEnum):
    """The library that reads the sources a second time, by its own code, to check this exporter's reading."""

    AUTO = "auto"
    """sentence-transformers, if it is installed and can load the sources."""
    SENTENCE_TRANSFORMERS = "sentence-transformers"
    """sentence-transformers; an error if it cannot load the sources."""
    OPTIMUM = "optimum"
    """optimum-onnx, whose graph gets the same token ids; an error if it cannot export the checkpoint."""
    NONE = "none"
    """None."""


class FusionMethod(StrEnum):
    """How checkpoints are fused, tensor by tensor; `passes/fuse.py` and `passes/task_vectors.py` have the formulas."""

    LINEAR = "linear"
    """The weighted mean."""
    SLERP = "slerp"
    """Spherical linear interpolation."""
    TASK_ARITHMETIC = "task-arithmetic"
    """The base and the weighted changes of the checkpoints."""
    TIES = "ties"
    """The base and the weighted changes that are large and agree in their sign."""

    @property
    def needs_base(self) -> bool:
        """Whether the changes since a base are fused instead of the weights."""
        return self in (FusionMethod.TASK_ARITHMETIC, FusionMethod.TIES)


DEFAULT_FUSION = FusionMethod.SLERP
DEFAULT_DENSITY = 0.2
"""Of TIES, as in its paper."""
DEFAULT_SCALE = 1.0
"""Of the change since a base, λ."""


class PairTemplate(StrEnum):
    """Separator of instruction, query and document in a reranker's prompt. Both are official."""

    LINE = "line"
    """A line break, as in the transformers code of Qwen3-Reranker's model card."""
    BLANK_LINE = "blank-line"
    """A blank line, as in the vLLM code of Qwen3-Reranker's model card."""


class CudaAttention(StrEnum):
    """Attention of a GPU graph over batches of mixed lengths; batches of nearly equal lengths always use rows.

    An fp32 graph always uses MultiHeadAttention on rows.
    """

    ROWS = "rows"
    """GroupQueryAttention on right-padded rows, into which the graph moves packed tokens."""
    PAGES = "pages"
    """PagedAttention on packed tokens, without padding."""


class ServerArchitecture(StrEnum):
    """Processor architecture of the machine that runs Triton, as in `uname -m`."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """How Triton batches and runs the model."""

    max_batch_rows: int | None = None
    """Most rows of a batch, over all its requests, and of one request. None: 64, or fewer on a GPU if its kernels
    cannot index a batch of 64 of the longest rows."""
    max_batch_tokens: int | None = None
    """Most tokens of a batch, over all its requests; None: as many as the device computes in about 1 s (CPU) or
    0.1 s (GPU)."""
    token_budget: bool = True
    """Limit the tokens of a batch by a batching strategy library in the model's folder. If False, only rows are
    limited, so that a batch of the longest rows stays within the budget."""
    server_architecture: ServerArchitecture = ServerArchitecture.X86_64
    """Architecture of the batching strategy library."""
    queue_delay_us: int = 0
    """Time that a request may wait for others while an instance is free, in microseconds. Requests that arrive while
    all instances are busy are batched in any case."""
    max_queue_size: int | None = None
    """Most requests, of any number of rows, that may wait in Triton's queue; it rejects more. None: no limit."""
    queue_timeout_ms: int | None = None
    """Longest time in milliseconds that a request may wait in Triton's queue before Triton rejects it; None: no limit.

    Neither limit is set by default: with either of them, Triton 24.10 to 26.06 may leave a request in the queue for
    half a second although an instance is free. Without them, the pacing of this project's client keeps the queue short,
    and Triton drops requests whose client has cancelled them or reached its deadline."""
    instances: int = 1
    """Number of model instances, each with its own `threads`. Several instances on all cores are slower than one."""
    threads: int = 0
    """Threads of one instance; 0 uses all cores."""
    gpu_memory_bytes: int | None = None
    """Limit of the GPU memory for weights and workspace of one instance; None: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Options:
    """Calibration and accuracy limit of an int8 model."""

    calibration: Path | None = None
    """File with calibration texts, one per line, or JSON lines with `text`; None uses the built-in texts."""
    max_error: float | None = None
    """Largest deviation from fp32 over held-out texts: 1 - cosine of an embedding, or difference of a score. None uses
    the tolerance of int8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """Evaluation of an embedding model on a retrieval set."""

    folder: Path | None = None
    """Folder of a retrieval set in BEIR's layout; None skips the evaluation."""
    max_ndcg_loss: float | None = None
    """Largest loss of nDCG@10, in 0…1, relative to transformers in fp32; None allows any loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of `export_model`."""

    model: SourceReference
    """Checkpoint of the base model."""
    adapters: tuple[AdapterReference, ...] = ()
    """LoRA adapters to merge."""
    repository: Path = Path("model_repository")
    """Triton model repository, created if it does not exist."""
    name: str | None = None
    """Model name, which is the folder in the repository; None uses the name of the checkpoint's folder."""
    task: TaskChoice = TaskChoice.AUTO
    """Embeddings or scores."""
    precision: Precision = Precision.FP32
    """Precision of weights and activations."""
    device: Device = Device.CPU
    """Device that Triton runs the model on."""
    triton_release: TritonRelease = DEFAULT_RELEASE
    """Triton image that a GPU model must run in."""
    cuda_attention: CudaAttention | None = None
    """Attention of a GPU model over batches of mixed lengths; None: the faster one in the Triton release."""
    max_tokens: int | None = None
    """Longest row in tokens; None uses the checkpoint's limit, at most 8192."""
    query_template: str | None = None
    """Of an embedding model: text of a query with `{text}` and perhaps `{instruction}`; the checkpoint's if None."""
    document_template: str | None = None
    """Of an embedding model: text of a document with `{text}`; the checkpoint's if None."""
    instruction: str | None = None
    """Default instruction; None uses the checkpoint's."""
    further_instructions: tuple[str, ...] = ()
    """Other instructions that clients send: a CPU model stores the states of their prompts as well."""
    prefixes: tuple[tuple[int, ...], ...] = ()
    """Token ids that rows of clients with prompts of their own begin with: a CPU model stores their states as well."""
    prefix_reuse: bool = True
    """Whether a CPU model stores the states of the tokens that rows begin with, and computes further tokens that the
    rows of a batch begin with once."""
    compact_outputs: tuple[OutputChoice, ...] = ()
    """Additional outputs of an embedding model, which its graph computes: fewer components, or a smaller type. Clients
    that ask for such vectors get less data."""
    template: PairTemplate | None = None
    """Prompt template of a reranker; None uses LINE. An error for embedding models."""
    int8: Int8Options = field(default_factory=Int8Options)
    """Calibration; an error for models without calibration."""
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    """Evaluation on a retrieval set."""
    serving: ServingOptions = field(default_factory=ServingOptions)
    """Batching and instances."""
    overwrite: bool = False
    """Put the next version of an existing model into use."""
    keep_versions: int = 2
    """Versions in the folder of an overwritten model, the new one included; the others are for a rollback."""
    witness: WitnessChoice = WitnessChoice.AUTO
    """Library that reads the sources a second time."""
    verify: Verification = Verification.QUICK
    """How much of the written model is compared with transformers in fp32. NONE cannot be combined with what needs the
    comparison: an evaluation, `int8.max_error`, and a witness other than AUTO, which is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOptions:
    """Options of `write_merged_checkpoint`."""

    model: SourceReference
    """Checkpoint of the base model."""
    adapters: tuple[AdapterReference, ...]
    """LoRA adapters to merge."""
    output: Path
    """Output folder."""
    overwrite: bool = False
    """Replace an existing output folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseOptions:
    """Options of `write_fused_checkpoint`."""

    checkpoints: tuple[WeightedCheckpoint, ...]
    """Two or more checkpoints; with a base, one or more. Config, tokenizer and other files are those of the first."""
    output: Path
    """Output folder."""
    method: FusionMethod = DEFAULT_FUSION
    """How the weights are fused."""
    base: SourceReference | None = None
    """The checkpoint that all were fine-tuned from, for a method that needs it. Only its weights are used."""
    density: float = DEFAULT_DENSITY
    """TIES: share of the values of each change that remains, the largest ones."""
    scale: float = DEFAULT_SCALE
    """λ, the factor of the fused change, with a base."""
    overwrite: bool = False
    """Replace an existing output folder."""
