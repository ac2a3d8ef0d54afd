"""Retrieval quality of the demo model through Triton, in every precision and vector width, beside transformers fp32."""

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
from qwen3_triton.server import LocalServerError, start_triton

from .contenders.contender import Bench, CannotRun
from .contenders.transformers_model import load_fp32
from .measurement import row_cosines
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
class Quality:
    """Scores, and what could not be measured."""

    scores: tuple[QualityScore, ...] = ()
    not_done: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vectors:
    queries: FloatArray
    documents: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityOptions:
    """What is compared."""

    precisions: tuple[Precision, ...] = tuple(Precision)
    tasks: tuple[DemoTask, ...] = (BASE_TASK, ADAPTER_TASK)

    @classmethod
    def quick(cls) -> QualityOptions:
        """Enough to see that it works."""
        return cls(precisions=(Precision.INT8,), tasks=(ADAPTER_TASK,))


def measure_quality(options: QualityOptions, bench: Bench) -> Quality:
    """nDCG@10 and cosines to the reference."""
    sets = [load_evaluation_set(task) for task in options.tasks]
    bench.say("quality: the reference")
    truth = list(_reference(bench, sets))
    scores = [
        score for each, exact in zip(sets, truth, strict=True) for score in _scores(each, REFERENCE, exact, exact)
    ]
    not_done: dict[str, str] = {}
    for precision in options.precisions:
        bench.say(f"quality: {precision}")
        try:
            for each, exact, vectors in zip(sets, truth, _served(bench, precision, sets), strict=True):
                scores += _scores(each, precision, vectors, exact)
        except (CannotRun, ExportError, LocalServerError) as exc:
            not_done[f"quality of {precision}"] = str(exc)
    return Quality(scores=tuple(scores), not_done=not_done)


def _scores(evaluation_set: EvaluationSet, precision: str, found: _Vectors, exact: _Vectors) -> Iterator[QualityScore]:
    for dimension in DIMENSIONS:
        queries, documents = cut(found.queries, dimension), cut(found.documents, dimension)
        cosines = [
            *row_cosines(queries, cut(exact.queries, dimension)),
            *row_cosines(documents, cut(exact.documents, dimension)),
        ]
        yield QualityScore(
            model=MODEL,
            precision=precision,
            task=evaluation_set.task.name,
            dimension=dimension,
            ndcg_at_10=ndcg_at_10(queries, documents, evaluation_set.relevance),
            queries=len(queries),
            documents=len(documents),
            min_cosine=float(min(cosines)),
            mean_cosine=float(sum(cosines) / len(cosines)),
        )


def _reference(bench: Bench, sets: list[EvaluationSet]) -> Iterator[_Vectors]:
    with ExitStack() as undo:
        merged = bench.cache / "demo_merged"
        write_merged_checkpoint(MergeOptions(model=_CHECKPOINT, adapters=_ADAPTERS, output=merged, overwrite=True))
        tokenizer = Tokenizer.from_file(str(merged / "tokenizer.json"))
        worker = load_fp32(merged, bench.threads)
        undo.callback(worker.stop)

        def embed(texts: list[str]) -> FloatArray:
            return worker.embed([encoding.ids for encoding in tokenizer.encode_batch(texts)], _BATCH_ROWS)

        for each in sets:
            yield _Vectors(
                queries=embed([each.task.prompt + text for text in each.queries]),
                documents=embed(list(each.documents)),
            )


def _served(bench: Bench, precision: Precision, sets: list[EvaluationSet]) -> Iterator[_Vectors]:
    repository = bench.cache / "demo_repositories" / precision
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
        start_triton(repository, progress=bench.say) as server,
        EmbeddingClient(server.grpc_url, "demo", repository=repository, timeout_s=_TIMEOUT_S) as client,
    ):
        for each in sets:
            yield _Vectors(
                queries=client.embed_queries(each.queries, instruction=each.instruction),
                documents=client.embed_documents(each.documents),
            )
