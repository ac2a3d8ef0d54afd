"""The interface of a task, and the detection of a checkpoint's task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from ...client.manifest import (
    CompactOutput,
    EmbeddingManifest,
    ParityReport,
    Precision,
    RecommendedLoad,
    RerankManifest,
    ScoreParityReport,
    Task,
    TokenizerIdentity,
    WitnessReport,
)
from ..architectures import SCORE_HEAD
from ..errors import UnsupportedCheckpointError
from ..formats import Tolerance
from ..options import TaskChoice
from ..output_choice import OutputChoice
from ..sources.adapter import Adapter
from ..sources.checkpoint import Checkpoint
from ..sources.cross_encoder import LOGIT_SCORE
from ..sources.head_modules import POOLING
from ..sources.modules import read_modules
from ..sources.retrieval_set import RetrievalSet
from ..sources.sentence_transformers import StatedLength
from ..sources.setting_files import SettingFiles
from ..sources.tokenizer import CheckpointTokenizer
from ..verification.reference import ReferenceModel, ReferenceOutputs
from ..verification.retrieval import RetrievalRows
from ..verification.runtime import WrittenModel
from ..verification.witness import WitnessFolder

_TASK_TYPES = {"SEQ_CLS": Task.RERANK, "FEATURE_EXTRACTION": Task.EMBED}
"""Task of PEFT's task types. CAUSAL_LM is used for both tasks."""


class ManifestFields(TypedDict):
    """Fields of the manifests of both tasks."""

    max_tokens: int
    vocabulary_size: int
    tokenizer: TokenizerIdentity
    precision: Precision
    load: RecommendedLoad
    model_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRun:
    """Rows of token ids, the longest last, and the outputs of the reference."""

    rows: list[list[int]]
    outputs: ReferenceOutputs

    def up_to(self, tokens: int) -> ReferenceRun:
        """Return the rows of at most `tokens`, with their vectors and the activations of all rows."""
        kept = [index for index, row in enumerate(self.rows) if len(row) <= tokens]
        outputs = dataclasses.replace(self.outputs, vectors=self.outputs.vectors[kept])
        return ReferenceRun(rows=[self.rows[index] for index in kept], outputs=outputs)


class ExportTask(Protocol):
    """The parts of an export that depend on the task."""

    @property
    def kind(self) -> Task:
        """The task in the manifest."""

    @property
    def prompts_origin(self) -> str | Path:
        """The file that the prompts are from, or where else."""

    @property
    def length(self) -> StatedLength | None:
        """The length limit that the sources state; None if they state none."""

    def merge(self, checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> Checkpoint:
        """Return the checkpoint with its adapters merged, and with the head that the graph needs."""

    def probe_rows(self, max_tokens: int) -> list[list[int]]:
        """Return the rows of the probe texts, as sent by a client."""

    def long_row(self, tokens: int) -> list[int]:
        """Return the row of a long text, truncated to `tokens`."""

    def rows_of_tokens(self, tokens: Sequence[int], after_prompt: int) -> list[list[int]]:
        """Return a row of each of `tokens` alone, and a row of each of the first `after_prompt` after a prompt."""

    def prefixes(self, instructions: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the token ids that rows begin with: with the default instruction, each of `instructions` or any other.

        Some may be empty.
        """

    def run_reference(
        self, model: ReferenceModel, rows: list[list[int]], on_layers: Callable[[int, int], None]
    ) -> ReferenceOutputs:
        """Run the reference on `rows`; `on_layers(done, total)` is called after each layer of each batch."""

    def text_rows(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Return the rows of calibration or held-out texts, as sent by a client."""

    def retrieval_rows(self, source: RetrievalSet, max_tokens: int) -> RetrievalRows:
        """Return the rows of a retrieval set, as sent by a client; raise ExportError if the task has no retrieval."""

    def limit_error(self, tolerance: Tolerance, max_error: float) -> Tolerance:
        """Return `tolerance` with `max_error` as the limit of the output's deviation from the reference."""

    def cosine_limit(self, tolerance: Tolerance, standard: Tolerance) -> float:
        """Return the 1 - cosine of final states that corresponds to the output's limit in `tolerance`.

        `standard` is the tolerance of the format.
        """

    def measure(
        self, model: WrittenModel, run: ReferenceRun, tolerance: Tolerance, on_runs: Callable[[int, int], None]
    ) -> ParityReport | ScoreParityReport:
        """Compare the written model with the reference, for rows alone and batched.

        `on_runs(done, total)` is called after each run of all rows.
        """

    def consult(self, source: WitnessFolder, run: ReferenceRun, max_tokens: int) -> WitnessReport:
        """Compare the reference's outputs of the probe texts with those of sentence-transformers.

        Raises:
            WitnessUnavailableError: sentence-transformers cannot compute them.
            WitnessError: They differ.
        """

    def compare_states(
        self, library: str, states: NDArray[np.float32], run: ReferenceRun, checkpoint: Checkpoint
    ) -> WitnessReport:
        """Compare the reference's outputs with those of pooled final states [n, hidden] that `library` computed.

        Raises:
            WitnessError: They differ.
        """

    def compact_outputs(self, choices: Sequence[OutputChoice]) -> tuple[CompactOutput, ...]:
        """Return the additional outputs of the model; raise ExportError if it cannot have them."""

    def describe(
        self, fields: ManifestFields, outputs: tuple[CompactOutput, ...]
    ) -> EmbeddingManifest | RerankManifest:
        """Return the manifest with `fields` and those of the task."""


@dataclass(frozen=True, slots=True)
class Recognition:
    """A task and the reason for its choice."""

    task: Task
    reason: str


def recognise_task(
    checkpoint: Checkpoint,
    files: SettingFiles,
    tokenizer: CheckpointTokenizer,
    adapters: Sequence[Adapter],
    choice: TaskChoice,
) -> Recognition:
    """Return `choice`, or detect the task if it is AUTO.

    Sources in this order: task types of the adapters, sentence-transformers modules, a score head, a causal LM whose
    tokenizer appends no end token.

    Raises:
        UnsupportedCheckpointError: Adapters have different tasks, or a classifier has more than two labels.
    """
    if choice is not TaskChoice.AUTO:
        return Recognition(Task(choice.value), "the task is set")
    adapter_tasks = {_TASK_TYPES[adapter.task_type] for adapter in adapters if adapter.task_type in _TASK_TYPES}
    if len(adapter_tasks) > 1:
        raise UnsupportedCheckpointError("one adapter was trained for embeddings and another for scores; set the task")
    if adapter_tasks:
        return Recognition(adapter_tasks.pop(), "its adapter was trained for this task")
    modules = {module.kind for module in read_modules(files)}
    if POOLING in modules or LOGIT_SCORE in modules:
        if POOLING in modules:
            return Recognition(Task.EMBED, "modules.json has a Pooling module")
        return Recognition(Task.RERANK, f"modules.json has a {LOGIT_SCORE} module")
    head = checkpoint.weights.get(SCORE_HEAD)
    if head is not None:
        if head.shape[0] > 2:
            raise UnsupportedCheckpointError(
                f"{checkpoint.source}: a classifier with {head.shape[0]} labels is not a reranker; "
                "set the task to embed to use its decoder for embeddings"
            )
        return Recognition(Task.RERANK, "it has a score head")
    config = checkpoint.config
    if config.architecture.official_prompts and config.is_causal_lm and tokenizer.end_token_id is None:
        return Recognition(Task.RERANK, "it is a causal LM whose tokenizer appends no end token")
    return Recognition(Task.EMBED, "no source has a score head or scoring settings")
