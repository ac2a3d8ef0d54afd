"""Evaluation on a retrieval set: both nDCG values, the limit, and errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from retrieval_sets import write_set
from tiny_checkpoint import TinyCheckpoint, write_checkpoint

from qwen3_triton.client import ExportRecord, Precision, RetrievalReport
from qwen3_triton.export import (
    EvaluationOptions,
    ExportError,
    ExportOptions,
    ExportResult,
    Int8Options,
    RetrievalQualityError,
    SilentProgress,
    SourceError,
    SourceReference,
    export_model,
    ndcg_by_query,
)
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.sources.sentence_transformers import QUERY_TEMPLATE
from qwen3_triton.export.verification.reference import ReferenceModel
from qwen3_triton.export.verification.retrieval import BATCH_ROWS, BATCH_TOKENS, batches

MAX_TOKENS = 64
JUDGED = {index: {3 * index: 2.0, 3 * index + 1: 1.0} for index in range(8)}
INSTRUCTION = "Find it"


class Stages(SilentProgress):
    """Records the stages and their steps."""

    def __init__(self) -> None:
        self.steps: dict[str, list[tuple[int, int]]] = {}

    def stage(self, text: str) -> None:
        self.steps[text] = []

    def step(self, done: int, total: int) -> None:
        self.steps[list(self.steps)[-1]].append((done, total))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [f"q{query}\td{document}\t{gain:g}" for query, gains in JUDGED.items() for document, gain in gains.items()]
    return write_set(tmp_path_factory.mktemp("retrieval") / "set", "\n".join(lines))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny", TinyCheckpoint(hidden=64, head_dim=16))


def options(source: Path, repository: Path, folder: Path | None, **changes: object) -> ExportOptions:
    defaults = ExportOptions(
        model=SourceReference(str(source)),
        repository=repository,
        name="model",
        max_tokens=MAX_TOKENS,
        query_template=QUERY_TEMPLATE,
        instruction=INSTRUCTION,
        evaluation=EvaluationOptions(folder=folder),
    )
    return dataclasses.replace(defaults, **changes)  # type: ignore[arg-type]


def retrieval_of(result: ExportResult) -> RetrievalReport:
    report = result.record.retrieval
    assert report is not None
    return report


def reference_scores(source: Path, folder: Path) -> NDArray[np.float32]:
    """Return scores [queries, documents] by the official recipe, without the exporter's reader of the set."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    corpus, queries = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("corpus.jsonl", "queries.jsonl")
    )
    texts = [f"Instruct: {INSTRUCTION}\nQuery:{query['text']}" for query in queries]
    texts += [f"{document['title']} {document['text']}".strip() for document in corpus]
    rows = [list(map(int, tokenizer(text)["input_ids"])) for text in texts]
    model = ReferenceModel(open_checkpoint(SourceReference(str(source))))
    vectors = model.embed(rows, lambda _done, _total: None, 1).vectors
    return vectors[: len(queries)] @ vectors[len(queries) :].T


def test_manifest_has_both_ndcg_values(source: Path, folder: Path, tmp_path: Path) -> None:
    stages = Stages()
    result = export_model(options(source, tmp_path, folder), stages)
    report = retrieval_of(result)
    record = ExportRecord.from_json(result.folder.manifest.read_text())
    assert record == result.record
    assert record.retrieval == report
    assert (report.queries, report.documents) == (8, 24)
    assert report.evaluation.reference == str(folder)
    assert report.reference.startswith("transformers ")
    assert report.runtime.startswith("onnxruntime ")
    expected = ndcg_by_query(reference_scores(source, folder), list(JUDGED.values())).mean()
    assert report.reference_ndcg_at_10 == pytest.approx(expected, abs=1e-6)
    assert 0.1 < report.reference_ndcg_at_10 < 0.95
    assert report.ndcg_loss == pytest.approx(0, abs=1e-6)
    assert report.ndcg_loss_tolerance is None
    for stage in ("evaluating retrieval with transformers fp32", "evaluating retrieval with the fp32 graph"):
        assert stages.steps[stage][-1] == (32, 32)


@pytest.fixture(scope="module")
def as_found(source: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set whose judgements are the ranking of the reference, 10 to 1, so that only that order has an nDCG of 1."""
    orders = np.argsort(-reference_scores(source, folder), axis=1)[:, :10]
    lines = [
        f"q{query}\td{document}\t{10 - rank}"
        for query, order in enumerate(orders)
        for rank, document in enumerate(order)
    ]
    return write_set(tmp_path_factory.mktemp("retrieval") / "found", "\n".join(lines))


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Int8Options:
    calibration = tmp_path_factory.mktemp("texts") / "texts.txt"
    calibration.write_text("the capital of the country\nthe query and the document\n", encoding="utf-8")
    return Int8Options(calibration=calibration, max_error=0.1)


def test_int8_is_evaluated_with_its_own_graph(source: Path, as_found: Path, int8: Int8Options, tmp_path: Path) -> None:
    gate = EvaluationOptions(folder=as_found, max_ndcg_loss=0.2)
    result = export_model(options(source, tmp_path, None, precision=Precision.INT8, int8=int8, evaluation=gate))
    report = retrieval_of(result)
    assert report.reference_ndcg_at_10 == pytest.approx(1, abs=1e-6)
    assert report.ndcg_loss_tolerance == 0.2
    assert 0.0001 < report.ndcg_loss <= 0.2
    assert result.record.quantization is not None


def test_loss_beyond_the_limit_writes_nothing(source: Path, as_found: Path, int8: Int8Options, tmp_path: Path) -> None:
    gate = EvaluationOptions(folder=as_found, max_ndcg_loss=1e-6)
    repository = tmp_path / "repository"
    strict = options(source, repository, None, precision=Precision.INT8, int8=int8, evaluation=gate)
    with pytest.raises(
        RetrievalQualityError, match=r"nothing was written: 0\.9\d{3} instead of 1\.0000 by transformers"
    ):
        export_model(strict)
    assert list(tmp_path.rglob("*")) == [repository]
    whole = export_model(dataclasses.replace(strict, precision=Precision.FP32, int8=Int8Options()))
    assert retrieval_of(whole).passed


def test_without_a_retrieval_set_nothing_is_evaluated(source: Path, tmp_path: Path) -> None:
    stages = Stages()
    assert export_model(options(source, tmp_path, None), stages).record.retrieval is None
    assert not [stage for stage in stages.steps if "retrieval" in stage]


def test_loss_limit_needs_a_retrieval_set(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="max_ndcg_loss needs an evaluation folder"):
        export_model(options(source, tmp_path, None, evaluation=EvaluationOptions(max_ndcg_loss=0.1)))


def test_invalid_retrieval_set_fails_before_any_computation(source: Path, tmp_path: Path) -> None:
    stages = Stages()
    with pytest.raises(SourceError, match=r"no corpus\.jsonl"):
        export_model(options(source, tmp_path / "repository", tmp_path), stages)
    assert stages.steps == {}


def test_reranker_cannot_be_evaluated_on_a_retrieval_set(folder: Path, tmp_path: Path) -> None:
    reranker = write_checkpoint(
        tmp_path / "reranker", TinyCheckpoint(layout="Qwen3ForSequenceClassification", end_token=False)
    )
    stages = Stages()
    with pytest.raises(ExportError, match="retrieval sets are supported for embedding models only"):
        changes = {"max_tokens": 256, "query_template": None}
        export_model(options(reranker, tmp_path / "repository", folder, **changes), stages)
    assert "computing the reference in transformers fp32" not in stages.steps


def test_text_without_a_token_is_named(folder: Path, tmp_path: Path) -> None:
    endless = write_checkpoint(tmp_path / "endless", TinyCheckpoint(end_token=False))
    empty = write_set(tmp_path / "set", "q0\td0\t1\n")
    with (empty / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "nothing", "text": ""}\n')
    with pytest.raises(SourceError, match="the text 'nothing' has no token"):
        export_model(options(endless, tmp_path / "repository", empty))
    assert export_model(options(endless, tmp_path / "repository", folder)).record.retrieval is not None


def test_batches_have_every_row_once_and_limited_tokens() -> None:
    rows = [[1] * length for length in (3, 5000, 0, 900, *range(1, 300), *[2] * 200)]
    found = list(batches(rows))
    assert sorted(index for batch in found for index in batch) == list(range(len(rows)))
    assert len(found[0]) == 1
    for batch in found:
        widest = max(len(rows[index]) for index in batch)
        assert len(batch) <= BATCH_ROWS
        assert len(batch) == 1 or len(batch) * widest <= BATCH_TOKENS
