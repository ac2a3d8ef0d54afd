"""Retrieval quality of the demo model through Triton by precision and dimension, compared with transformers fp32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from examples.demo.evaluation import EvaluationSet, FloatArray, cut, load_evaluation_set, ndcg_at_10
from examples.demo.tasks import ADAPTER_TASK, BASE_TASK, DemoTask
from qwen3_triton.client import EmbeddingClient, Precision
from qwen3_triton.export import (
    AdapterReference,
    ExportError,
    ExportOptions,
    MergeOptions,
    SourceReference,
    export_model,
    write_merged_checkpoint,
)
from qwen3_triton.export.verification.parity import cosines
from qwen3_triton.server import LocalServerError, start_triton

from .contenders.contender import ContenderUnavailableError, RunContext
from .contenders.transformers_model import load_fp32
from .record import QualityScore

_DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo"
_CHECKPOINT = SourceReference(str(_DEMO / "checkpoint"))
_ADAPTERS = (AdapterReference(SourceReference(str(_DEMO / "adapter"))),)
MODEL = "demo, base + adapter"
REFERENCE = "transformers fp32"
DIMENSIONS = (32, 64, 128, 256)
_BATCH_ROWS = 8
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityResults:
    """Quality scores, and the reasons for what could not be measured."""

    scores: tuple[QualityScore, ...] = ()
    not_measured: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Embeddings:
    queries: FloatArray
    documents: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityOptions:
    """Precisions and retrieval tasks to measure."""

    precisions: tuple[Precision, ...] = tuple(Precision)
    tasks: tuple[DemoTask, ...] = (BASE_TASK, ADAPTER_TASK)

    @classmethod
    def quick(cls) -> QualityOptions:
        """Return one precision and one task."""
        return cls(precisions=(Precision.INT8,), tasks=(ADAPTER_TASK,))


def measure_quality(options: QualityOptions, context: RunContext) -> QualityResults:
    """Measure nDCG@10, and the cosines to transformers fp32, in every precision that can be exported here."""
    sets = [load_evaluation_set(task) for task in options.tasks]
    context.log("quality: reference")
    references = list(_reference_embeddings(context, sets))
    scores = [
        score
        for each, reference in zip(sets, references, strict=True)
        for score in _scores(each, REFERENCE, reference, reference)
    ]
    not_measured: dict[str, str] = {}
    for precision in options.precisions:
        context.log(f"quality: {precision}")
        try:
            served = _served_embeddings(context, precision, sets)
            for each, reference, embeddings in zip(sets, references, served, strict=True):
                scores += _scores(each, precision, embeddings, reference)
        except (ContenderUnavailableError, ExportError, LocalServerError) as exc:
            not_measured[f"quality of {precision}"] = str(exc)
    return QualityResults(scores=tuple(scores), not_measured=not_measured)


def _scores(
    evaluation_set: EvaluationSet, precision: str, embeddings: _Embeddings, reference: _Embeddings
) -> Iterator[QualityScore]:
    for dimension in DIMENSIONS:
        queries, documents = cut(embeddings.queries, dimension), cut(embeddings.documents, dimension)
        to_reference = [
            *cosines(queries, cut(reference.queries, dimension)),
            *cosines(documents, cut(reference.documents, dimension)),
        ]
        yield QualityScore(
            model=MODEL,
            precision=precision,
            task=evaluation_set.task.name,
            dimension=dimension,
            ndcg_at_10=ndcg_at_10(queries, documents, evaluation_set.relevance),
            queries=len(queries),
            documents=len(documents),
            min_cosine=float(min(to_reference)),
            mean_cosine=float(sum(to_reference) / len(to_reference)),
        )


def _reference_embeddings(context: RunContext, sets: list[EvaluationSet]) -> Iterator[_Embeddings]:
    with ExitStack() as cleanup:
        merged = context.cache / "demo_merged"
        write_merged_checkpoint(MergeOptions(model=_CHECKPOINT, adapters=_ADAPTERS, output=merged, overwrite=True))
        tokenizer = Tokenizer.from_file(str(merged / "tokenizer.json"))
        worker = load_fp32(merged, context.threads)
        cleanup.callback(worker.stop)

        def embed(texts: list[str]) -> FloatArray:
            return worker.embed([encoding.ids for encoding in tokenizer.encode_batch(texts)], _BATCH_ROWS)

        for each in sets:
            yield _Embeddings(
                queries=embed([each.task.prompt + text for text in each.queries]),
                documents=embed(list(each.documents)),
            )


def _served_embeddings(context: RunContext, precision: Precision, sets: list[EvaluationSet]) -> Iterator[_Embeddings]:
    repository = context.cache / "demo_repositories" / precision
    export_model(
        ExportOptions(
            model=_CHECKPOINT,
            adapters=_ADAPTERS,
            repository=repository,
            name="demo",
            precision=precision,
            overwrite=True,
        )
    )
    with (
        start_triton(repository, progress=context.log) as server,
        EmbeddingClient(server.grpc_url, "demo", repository=repository, timeout_s=_TIMEOUT_S) as client,
    ):
        for each in sets:
            yield _Embeddings(
                queries=client.embed_queries(each.queries, instruction=each.instruction),
                documents=client.embed_documents(each.documents),
            )
