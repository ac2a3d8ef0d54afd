"""The export of a reranker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...client.manifest import (
    CompactOutput,
    PairPrompts,
    RerankManifest,
    ScoreParityReport,
    Task,
    WitnessReport,
    fill_template,
)
from ..architectures import SCORE_HEAD
from ..errors import ExportError
from ..formats import Tolerance
from ..output_choice import OutputChoice
from ..passes.merge_heads import merge_with_heads, require_score_heads
from ..passes.rerank_head import find_answer_ids, keep_score_head, take_answer_rows
from ..sources.adapter import Adapter
from ..sources.checkpoint import Checkpoint
from ..sources.cross_encoder import AnswerIds
from ..sources.probe_texts import PROBE_PAIRS, long_text
from ..sources.retrieval_set import RetrievalSet
from ..sources.sentence_transformers import StatedLength
from ..sources.tokenizer import CheckpointTokenizer
from ..verification.parity import measure_score_parity
from ..verification.reference import ReferenceModel, ReferenceOutputs
from ..verification.retrieval import RetrievalRows
from ..verification.runtime import WrittenModel
from ..verification.witness import (
    PACKAGE,
    SCORE_TOLERANCE,
    WitnessFolder,
    WitnessUnavailableError,
    report_witness,
    score_pairs,
    shorten,
)
from .prefixes import prompt_beginnings
from .task import ManifestFields, ReferenceRun

_NO_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankTask:
    """The ExportTask of rerankers."""

    prompts: PairPrompts
    sets_prompts: bool
    """Whether the prompts are not those in the sources' files, but from options or a model card."""
    prompts_origin: str | Path
    """File that the prompts are from, or where else."""
    length: StatedLength | None
    answers: AnswerIds | None
    """Answer tokens in the sentence-transformers files; None uses the tokenizer's `no` and `yes`."""
    tokenizer: CheckpointTokenizer

    @property
    def kind(self) -> Task:
        """RERANK."""
        return Task.RERANK

    def merge(self, checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> Checkpoint:
        """Return the merged decoder with `score.weight`."""
        merge = merge_with_heads(checkpoint, adapters)
        require_score_heads(adapters, merge.weights)
        merged = checkpoint.with_merged(merge.weights, merge.reports)
        if SCORE_HEAD in merged.weights:
            return keep_score_head(merged)
        return take_answer_rows(checkpoint, merged, self.answers or find_answer_ids(self.tokenizer))

    def probe_rows(self, max_tokens: int) -> list[list[int]]:
        """Return the probe pairs; raise UnsupportedCheckpointError if the prompt alone has `max_tokens`."""
        bodies = [self._body(query, document) for query, document in PROBE_PAIRS]
        return self.tokenizer.pair_rows(self.prompts, bodies, max_tokens)

    def long_row(self, tokens: int) -> list[int]:
        """Return a pair with a long document, truncated to `tokens` but at least the prompt and one token."""
        shortest = min(map(len, self.tokenizer.pair_rows(self.prompts, [""], 1 << 30))) + 1
        body = self._body("What is new?", long_text(tokens))
        return self.tokenizer.pair_rows(self.prompts, [body], max(tokens, shortest))[0]

    def rows_of_tokens(self, tokens: Sequence[int], after_prompt: int) -> list[list[int]]:
        """Return each token alone, and the first ones as a document."""
        rows = self.tokenizer.pair_rows(self.prompts, [self._body("", "")], _NO_LIMIT)
        end = len(rows[0]) - len(self.tokenizer.part_ids(self.prompts.suffix))
        before, after = rows[0][:end], rows[0][end:]
        return [[token] for token in tokens] + [[*before, token, *after] for token in tokens[:after_prompt]]

    def prefixes(self, instructions: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the common beginnings of pairs."""
        chosen = [self.prompts.default_instruction, *instructions]
        return prompt_beginnings(self.prompts.body, ["query", "document"], chosen, self._rows_of_any_length)

    def run_reference(
        self, model: ReferenceModel, rows: list[list[int]], on_layers: Callable[[int, int], None]
    ) -> ReferenceOutputs:
        """Compute the reference scores."""
        return model.score(rows, on_layers)

    def text_rows(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Return every text as a query with the next one as its document."""
        bodies = [self._body(query, document) for query, document in zip(texts, [*texts[1:], texts[0]], strict=True)]
        return self.tokenizer.pair_rows(self.prompts, bodies, max_tokens)

    def retrieval_rows(self, source: RetrievalSet, max_tokens: int) -> RetrievalRows:  # noqa: ARG002
        """Raise ExportError: a reranker would have to score every query with every document."""
        raise ExportError(
            "retrieval sets are supported for embedding models only, and this is a reranker; leave the evaluation out, "
            "or set the task to embed if it is not a reranker"
        )

    def limit_error(self, tolerance: Tolerance, max_error: float) -> Tolerance:
        """Use `max_error` as the limit of the difference of a score."""
        return dataclasses.replace(tolerance, score=max_error)

    def cosine_limit(self, tolerance: Tolerance, standard: Tolerance) -> float:
        """Scale the format's limit: a score's error is linear in that of the final state, 1 - cosine quadratic."""
        return standard.cosine * min(tolerance.score / standard.score, 1.0) ** 2

    def measure(
        self, model: WrittenModel, run: ReferenceRun, tolerance: Tolerance, on_runs: Callable[[int, int], None]
    ) -> ScoreParityReport:
        """Measure the differences from the reference scores."""
        return measure_score_parity(model, run.rows, run.outputs.vectors, tolerance, on_runs)

    def consult(self, source: WitnessFolder, run: ReferenceRun, max_tokens: int) -> WitnessReport:
        """Compare the reference's scores with those of sentence-transformers."""
        if self.sets_prompts:
            raise WitnessUnavailableError(f"{PACKAGE} does not apply Qwen3-Reranker's prompt to pairs")
        # some versions of sentence-transformers strip texts
        places = [place for place, pair in enumerate(PROBE_PAIRS) if all(text == text.strip() for text in pair)]
        pairs = [PROBE_PAIRS[place] for place in places]
        library, found = score_pairs(source, pairs, max_tokens)
        errors = np.abs(found - run.outputs.vectors[places]).astype(np.float64).ravel()
        described = [f"query {shorten(query)} and document {shorten(document)}" for query, document in pairs]
        return report_witness(library, errors, described, SCORE_TOLERANCE)

    def compare_states(
        self, library: str, states: NDArray[np.float32], run: ReferenceRun, checkpoint: Checkpoint
    ) -> WitnessReport:
        """Compare the scores of the states with the reference's."""
        head = checkpoint.weights[SCORE_HEAD].fp32().numpy()
        logit = states @ (head if len(head) == 1 else head[1:] - head[:1]).T
        errors = np.abs(1 / (1 + np.exp(-logit.astype(np.float64))) - run.outputs.vectors).ravel()
        return report_witness(library, errors, [f"a row of {len(row)} tokens" for row in run.rows], SCORE_TOLERANCE)

    def compact_outputs(self, choices: Sequence[OutputChoice]) -> tuple[CompactOutput, ...]:
        """Return none; a score has no smaller form."""
        if choices:
            raise ExportError("compact outputs are of embeddings, and this model is a reranker: leave them out")
        return ()

    def describe(self, fields: ManifestFields, outputs: tuple[CompactOutput, ...]) -> RerankManifest:  # noqa: ARG002
        """Return the manifest of a reranker."""
        return RerankManifest(dimension=1, prompts=self.prompts, **fields)

    def _rows_of_any_length(self, bodies: Sequence[str]) -> list[list[int]]:
        return self.tokenizer.pair_rows(self.prompts, bodies, _NO_LIMIT)

    def _body(self, query: str, document: str) -> str:
        instruction = self.prompts.default_instruction or ""
        return fill_template(self.prompts.body, query=query, document=document, instruction=instruction)
