"""The export of a reranker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...client.manifest import (
    PairPrompts,
    RerankManifest,
    ScoreParityReport,
    Task,
    fill_template,
)
from ..architectures import SCORE_HEAD
from ..errors import ExportError
from ..formats import Tolerance
from ..passes.merge_heads import merge_with_heads, require_score_heads
from ..passes.rerank_head import find_answer_ids, keep_score_head, take_answer_rows
from ..sources.adapter import Adapter
from ..sources.checkpoint import Checkpoint
from ..sources.cross_encoder import AnswerIds
from ..sources.probe_texts import PROBE_PAIRS, long_text
from ..sources.retrieval_set import RetrievalSet
from ..sources.tokenizer import CheckpointTokenizer
from ..verification.parity import measure_score_parity
from ..verification.reference import ReferenceModel, ReferenceOutputs
from ..verification.retrieval import RetrievalRows
from ..verification.runtime import WrittenModel
from .task import ManifestFields, ReferenceRun


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankTask:
    """An ExportTask that ends in scores."""

    prompts: PairPrompts
    stated_max_tokens: int | None
    answers: AnswerIds | None
    """Where sentence-transformers' files name them; else the tokenizer's `no` and `yes`."""
    tokenizer: CheckpointTokenizer

    @property
    def kind(self) -> Task:
        """Scores."""
        return Task.RERANK

    def merge(self, checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> Checkpoint:
        """The merged decoder with `score.weight`."""
        weights = merge_with_heads(checkpoint, adapters)
        require_score_heads(adapters, weights)
        merged = checkpoint.with_weights(weights)
        if SCORE_HEAD in merged.weights:
            return keep_score_head(merged)
        return take_answer_rows(checkpoint, merged, self.answers or find_answer_ids(self.tokenizer))

    def probe_rows(self, max_tokens: int) -> list[list[int]]:
        """The probe pairs. Raises UnsupportedCheckpointError where the prompt alone has `max_tokens` or more."""
        bodies = [self._body(query, document) for query, document in PROBE_PAIRS]
        return self.tokenizer.pair_rows(self.prompts, bodies, max_tokens)

    def long_row(self, tokens: int) -> list[int]:
        """A pair with a long document, cut, but never into the prompt."""
        shortest = min(map(len, self.tokenizer.pair_rows(self.prompts, [""], 1 << 30))) + 1
        body = self._body("What is new?", long_text(tokens))
        return self.tokenizer.pair_rows(self.prompts, [body], max(tokens, shortest))[0]

    def run_reference(
        self, model: ReferenceModel, rows: list[list[int]], batch_rows: int, on_rows: Callable[[int, int], None]
    ) -> ReferenceOutputs:
        """The reference's scores."""
        return model.score(rows, batch_rows, on_rows)

    def text_rows(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Every text as a query and the next one as its document."""
        bodies = [self._body(query, document) for query, document in zip(texts, [*texts[1:], texts[0]], strict=True)]
        return self.tokenizer.pair_rows(self.prompts, bodies, max_tokens)

    def retrieval_rows(self, source: RetrievalSet, max_tokens: int) -> RetrievalRows:  # noqa: ARG002
        """Raises ExportError: every query would have to be judged with every document."""
        raise ExportError(
            "a retrieval set evaluates embedding models, and this is a reranker, whose scores are compared with "
            "transformers fp32 in any case: leave the evaluation out, or set the task to embed if it is not a reranker"
        )

    def limit_error(self, tolerance: Tolerance, max_error: float) -> Tolerance:
        """With `max_error` as the difference of a score."""
        return dataclasses.replace(tolerance, score=max_error)

    def cosine_limit(self, tolerance: Tolerance, standard: Tolerance) -> float:
        """A score changes with the error of the final state, 1 - cosine with its square."""
        return standard.cosine * min(tolerance.score / standard.score, 1.0) ** 2

    def measure(self, model: WrittenModel, run: ReferenceRun, tolerance: Tolerance) -> ScoreParityReport:
        """Differences from the reference scores."""
        return measure_score_parity(model, run.rows, run.outputs.vectors, tolerance)

    def describe(self, fields: ManifestFields) -> RerankManifest:
        """With the prompts; a score is one number."""
        return RerankManifest(dimension=1, prompts=self.prompts, **fields)

    def _body(self, query: str, document: str) -> str:
        instruction = self.prompts.default_instruction or ""
        return fill_template(self.prompts.body, query=query, document=document, instruction=instruction)
