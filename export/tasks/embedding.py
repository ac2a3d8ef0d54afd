"""The export of an embedding model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...client.manifest import (
    CompactOutput,
    EmbeddingManifest,
    ParityReport,
    Prompts,
    Task,
    WitnessReport,
    fill_template,
)
from ..errors import SourceError
from ..formats import Tolerance
from ..output_choice import OutputChoice, choose_outputs
from ..passes.merge_heads import merge_with_heads
from ..sources.adapter import Adapter
from ..sources.checkpoint import Checkpoint
from ..sources.embedding_head import EmbeddingHead
from ..sources.probe_texts import PROBE_TEXTS, long_text
from ..sources.retrieval_set import NamedText, RetrievalSet
from ..sources.sentence_transformers import StatedLength
from ..sources.tokenizer import CheckpointTokenizer
from ..verification.parity import cosines, measure_parity
from ..verification.reference import ReferenceModel, ReferenceOutputs
from ..verification.retrieval import RetrievalRows
from ..verification.runtime import WrittenModel
from ..verification.witness import (
    COSINE_TOLERANCE,
    WitnessFolder,
    WitnessTexts,
    embed_texts,
    report_witness,
    shorten,
)
from .prefixes import prompt_beginnings
from .task import ManifestFields, ReferenceRun

_NO_LIMIT = 1 << 30
SMALLEST_DIMENSION = 32
"""Smallest Matryoshka dimension of the Qwen3-Embedding family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingTask:
    """The ExportTask of embedding models."""

    prompts: Prompts
    sets_prompts: bool
    """Whether the prompts are not those in the sources' files, but from options or a model card."""
    prompts_origin: str | Path
    """File that the prompts are from, or where else."""
    length: StatedLength | None
    tokenizer: CheckpointTokenizer
    head: EmbeddingHead
    dimension: int
    """Components of an embedding."""

    @property
    def kind(self) -> Task:
        """EMBED."""
        return Task.EMBED

    def merge(self, checkpoint: Checkpoint, adapters: Sequence[Adapter]) -> Checkpoint:
        """Return the merged decoder with the embedding head, and without the others."""
        names = checkpoint.config.tensor_shapes()
        merge = merge_with_heads(checkpoint, adapters, used=names)
        merged = checkpoint.with_merged({name: merge.weights[name] for name in names}, merge.reports)
        return dataclasses.replace(merged, head=self.head)

    def probe_rows(self, max_tokens: int) -> list[list[int]]:
        """Return each probe text as a query and as a document."""
        texts = [fill(text) for fill in (self._as_query, self._as_document) for text in PROBE_TEXTS]
        return [row for row in self.tokenizer.rows(texts, max_tokens) if row]

    def long_row(self, tokens: int) -> list[int]:
        """Return a long document, truncated to `tokens`."""
        return self.tokenizer.rows([long_text(tokens)], max(tokens, 2))[0]

    def rows_of_tokens(self, tokens: Sequence[int], after_prompt: int) -> list[list[int]]:
        """Return each token as a document, and the first ones as a query."""
        end = [] if self.tokenizer.end_token_id is None else [self.tokenizer.end_token_id]
        [empty] = self.tokenizer.rows([self._as_query("")], _NO_LIMIT)
        prompt = empty[: len(empty) - len(end)]
        return [[token, *end] for token in tokens] + [[*prompt, token, *end] for token in tokens[:after_prompt]]

    def prefixes(self, instructions: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the common beginnings of queries and documents."""
        prompts = self.prompts
        chosen = [prompts.default_instruction, *instructions]
        return [
            ids
            for template in (prompts.query, prompts.document)
            for ids in prompt_beginnings(template, ["text"], chosen, self._rows_of_any_length)
        ]

    def run_reference(
        self, model: ReferenceModel, rows: list[list[int]], on_layers: Callable[[int, int], None]
    ) -> ReferenceOutputs:
        """Compute the reference embeddings."""
        return model.embed(rows, on_layers)

    def text_rows(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Return every text as a document, and every third one as a query as well."""
        filled = [*map(self._as_document, texts), *map(self._as_query, texts[::3])]
        return [row for row in self.tokenizer.rows(filled, max_tokens) if row]

    def retrieval_rows(self, source: RetrievalSet, max_tokens: int) -> RetrievalRows:
        """Return the queries, with the default instruction, and the documents.

        Raises:
            SourceError: A text has no token. Clients reject such a text as well.
        """
        queries = [self._as_query(query.text) for query in source.queries]
        documents = [self._as_document(document.text) for document in source.documents]
        rows = self.tokenizer.rows([*queries, *documents], max_tokens)
        for row, text in zip(rows, (*source.queries, *source.documents), strict=True):
            if not row:
                raise SourceError(_no_token(source, text))
        return RetrievalRows(source=source, queries=rows[: len(queries)], documents=rows[len(queries) :])

    def limit_error(self, tolerance: Tolerance, max_error: float) -> Tolerance:
        """Use `max_error` as the limit of 1 - cosine."""
        return dataclasses.replace(tolerance, cosine=max_error)

    def cosine_limit(self, tolerance: Tolerance, standard: Tolerance) -> float:  # noqa: ARG002
        """Return the limit of the output, which is the normalized final state."""
        return tolerance.cosine

    def measure(
        self, model: WrittenModel, run: ReferenceRun, tolerance: Tolerance, on_runs: Callable[[int, int], None]
    ) -> ParityReport:
        """Measure the cosines to the reference embeddings."""
        return measure_parity(model, run.rows, run.outputs.vectors, tolerance, on_runs)

    def consult(self, source: WitnessFolder, run: ReferenceRun, max_tokens: int) -> WitnessReport:
        """Compare the reference's embeddings of queries and documents with those of sentence-transformers."""
        groups, described, places, place = [], [], [], 0
        for kind, fill in (("query", self._as_query), ("document", self._as_document)):
            texts = []
            for text, row in zip(PROBE_TEXTS, self.tokenizer.rows([*map(fill, PROBE_TEXTS)], max_tokens), strict=True):
                # sentence-transformers strips texts
                if row and fill(text) == fill(text).strip():
                    texts.append(fill(text) if self.sets_prompts else text)
                    described.append(f"the {kind} {shorten(text)}")
                    places.append(place)
                place += bool(row)
            groups.append(WitnessTexts(kind=kind, texts=texts, filled=self.sets_prompts))
        library, found = embed_texts(source, groups, max_tokens)
        errors = 1 - cosines(found, run.outputs.vectors[places])
        return report_witness(library, errors, described, COSINE_TOLERANCE)

    def compare_states(
        self,
        library: str,
        states: NDArray[np.float32],
        run: ReferenceRun,
        checkpoint: Checkpoint,
    ) -> WitnessReport:
        """Compare the embeddings of the pooled states with those of the reference."""
        with torch.inference_mode():
            vectors = checkpoint.head.finish(torch.from_numpy(states)).numpy()
        errors = 1 - cosines(vectors, run.outputs.vectors)
        return report_witness(library, errors, [f"a row of {len(row)} tokens" for row in run.rows], COSINE_TOLERANCE)

    @property
    def smallest_dimension(self) -> int:
        """Fewest components that a client may keep."""
        return min(SMALLEST_DIMENSION, self.dimension)

    def compact_outputs(self, choices: Sequence[OutputChoice]) -> tuple[CompactOutput, ...]:
        """Return the smaller forms of the embedding."""
        return choose_outputs(choices, self.dimension, self.smallest_dimension)

    def describe(self, fields: ManifestFields, outputs: tuple[CompactOutput, ...]) -> EmbeddingManifest:
        """Return the manifest of an embedding model."""
        return EmbeddingManifest(
            dimension=self.dimension,
            min_dimension=self.smallest_dimension,
            compact_outputs=outputs,
            end_token_id=self.tokenizer.end_token_id,
            prompts=self.prompts,
            **fields,
        )

    def _rows_of_any_length(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer.rows(texts, _NO_LIMIT)

    def _as_query(self, text: str) -> str:
        instruction = self.prompts.default_instruction or ""
        return fill_template(self.prompts.query, text=text, instruction=instruction)

    def _as_document(self, text: str) -> str:
        instruction = self.prompts.default_instruction or ""
        return fill_template(self.prompts.document, text=text, instruction=instruction)


def _no_token(source: RetrievalSet, text: NamedText) -> str:
    return (
        f"evaluation set {source.identity.reference}: the text '{text.name}' has no token, because it is empty and the "
        "tokenizer appends no end token; remove it"
    )
