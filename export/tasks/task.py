"""Which task a checkpoint was made for, and what differs between the exports of the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

from ...client.manifest import (
    EmbeddingManifest,
    ParityReport,
    Precision,
    RerankManifest,
    ScoreParityReport,
    Task,
    TokenizerIdentity,
)
from ..architectures import SCORE_HEAD
from ..errors import UnsupportedCheckpointError
from ..formats import Tolerance
from ..options import TaskChoice
from ..sources.adapter import Adapter
from ..sources.checkpoint import Checkpoint
from ..sources.cross_encoder import LOGIT_SCORE
from ..sources.retrieval_set import RetrievalSet
from ..sources.sentence_transformers import read_modules
from ..sources.tokenizer import CheckpointTokenizer
from ..verification.reference import ReferenceModel, ReferenceOutputs
from ..verification.retrieval import RetrievalRows
from ..verification.runtime import WrittenModel

_TASK_TYPES = {"SEQ_CLS": Task.RERANK, "FEATURE_EXTRACTION": Task.EMBED}
"""What PEFT's task types say; CAUSAL_LM is written for both."""


class ManifestFields(TypedDict):
    """What the manifests of both tasks have in common."""

    max_tokens: int
    vocabulary_size: int
    tokenizer: TokenizerIdentity
    precision: Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRun:
    """Rows of ids, longest last, and the reference's answers to them."""

    rows: list[list[int]]
    outputs: ReferenceOutputs


class ExportTask(Protocol):
    """What one task decides of an export; everything else is the same for both."""

    @property
    def kind(self) -> Task:
        """The task itself."""

    @property
    def stated_max_tokens(self) -> int | None:
        """The checkpoint's own length limit, None where it states none."""

    def merge(self, checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> Checkpoint:
        """The checkpoint with its adapters merged in, and of its heads what the graph needs."""

    def probe_rows(self, max_tokens: int) -> list[list[int]]:
        """Rows of the probe texts as a client sends them."""

    def long_row(self, tokens: int) -> list[int]:
        """A row of a long text, cut to `tokens`."""

    def run_reference(
        self, model: ReferenceModel, rows: list[list[int]], batch_rows: int, on_rows: Callable[[int, int], None]
    ) -> ReferenceOutputs:
        """The reference's answers."""

    def text_rows(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Rows of other texts, as a client sends them: what int8 is calibrated and judged with."""

    def retrieval_rows(self, source: RetrievalSet, max_tokens: int) -> RetrievalRows:
        """Rows of a retrieval set as a client sends them; raises ExportError where the task does not retrieve."""

    def limit_error(self, tolerance: Tolerance, max_error: float) -> Tolerance:
        """Return `tolerance` with `max_error` as the largest deviation of the task's output from the reference."""

    def cosine_limit(self, tolerance: Tolerance, standard: Tolerance) -> float:
        """Return the 1 - cosine of final states at which the output deviates by about as much as `tolerance` allows.

        `standard` is the tolerance of the format.
        """

    def measure(self, model: WrittenModel, run: ReferenceRun, tolerance: Tolerance) -> ParityReport | ScoreParityReport:
        """Compare the written model with the reference answers, alone and batched."""

    def describe(self, fields: ManifestFields) -> EmbeddingManifest | RerankManifest:
        """Return the manifest of a model with these fields."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """A task and why it was chosen."""

    task: Task
    reason: str


def recognise_task(
    checkpoint: Checkpoint, tokenizer: CheckpointTokenizer, adapters: Sequence[Adapter], choice: TaskChoice
) -> Recognition:
    """The task asked for, or for `auto` the one that the sources speak of, the latest word first.

    Adapters' task types, then sentence-transformers' modules, then a score head, then a causal LM whose tokenizer
    appends no end token. Raises UnsupportedCheckpointError where adapters contradict each other, and for a
    classifier of more than two labels.
    """
    if choice is not TaskChoice.AUTO:
        return Recognition(Task(choice.value), "as asked for")
    said = {_TASK_TYPES[adapter.task_type] for adapter in adapters if adapter.task_type in _TASK_TYPES}
    if len(said) > 1:
        raise UnsupportedCheckpointError("one adapter was trained for embeddings and another for scores; set the task")
    if said:
        return Recognition(said.pop(), "its adapter was trained for this task")
    modules = {module.kind for module in read_modules(checkpoint.directory)}
    if "Pooling" in modules or LOGIT_SCORE in modules:
        return Recognition(Task.EMBED if "Pooling" in modules else Task.RERANK, "modules.json says so")
    head = checkpoint.weights.get(SCORE_HEAD)
    if head is not None:
        if head.shape[0] > 2:
            raise UnsupportedCheckpointError(
                f"{checkpoint.source}: a classifier of {head.shape[0]} labels is not a reranker; "
                "set the task to embed to use its decoder for embeddings"
            )
        return Recognition(Task.RERANK, "it has a score head")
    config = checkpoint.config
    if config.architecture.official_prompts and config.is_causal_lm and tokenizer.end_token_id is None:
        return Recognition(Task.RERANK, "it is a causal LM whose tokenizer appends no end token")
    return Recognition(Task.EMBED, "no source has a score head or scoring settings")
