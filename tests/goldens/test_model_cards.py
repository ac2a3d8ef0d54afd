"""Exports of the published checkpoints give the figures that are published for them, in every precision of CPUs.

Runs where the weights are: QWEN3_TRITON_GOLDENS names a folder with one or more of the folders of CHECKPOINTS.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from recipes import (
    CARD_PAIRS,
    CARD_SIMILARITIES,
    DOCUMENTS,
    PLANET_LOGITS,
    PLANET_PAIRS,
    QUERIES,
    embedding_similarities,
    pair_scores,
)

from qwen3_triton.client import EmbeddingManifest, Precision, RerankManifest
from qwen3_triton.client.prompts import prompt_documents, prompt_pairs, prompt_queries
from qwen3_triton.client.texts import check_texts
from qwen3_triton.client.tokenization import RowTokenizer, TokenRows, load_tokenizer, make_pair_tokenizer
from qwen3_triton.client.tokenizer_source import TokenizerFile
from qwen3_triton.export import ExportOptions, ExportResult, SourceReference, export_model
from qwen3_triton.export.verification.runtime import WrittenModel

Figures = NDArray[np.floating[Any]]

EMBEDDING = "Qwen3-Embedding-0.6B"
RERANKERS = ["Qwen3-Reranker-0.6B", "Qwen3-Reranker-0.6B-seq-cls"]
CHECKPOINTS = [EMBEDDING, *RERANKERS]
VARIABLE = "QWEN3_TRITON_GOLDENS"
COMMAND = f"{VARIABLE}=FOLDER python -m pytest tests/goldens -q"

pytestmark = pytest.mark.skipif(
    VARIABLE not in os.environ,
    reason=f"needs published weights: run `{COMMAND}`, where FOLDER has {', '.join(CHECKPOINTS)} or some of them",
)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest absolute differences from published figures."""

    similarity: float
    score: float


TOLERANCES = {
    Precision.FP32: Tolerance(similarity=2e-4, score=2e-4),
    Precision.FP16: Tolerance(similarity=2e-3, score=1e-2),
    Precision.INT8: Tolerance(similarity=3e-2, score=1e-1),
}
MAX_TOKENS = 512


def assert_close(found: Figures, expected: Figures, tolerance: float, what: str) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=what)


def checkpoint(name: str) -> Path:
    """Return the folder of a checkpoint; skip the test if it is not there."""
    root = Path(os.environ[VARIABLE]).expanduser()
    if not (root / name / "config.json").is_file():
        pytest.skip(f"{root} has no checkpoint {name}")
    return root / name


def published_scores() -> Figures:
    """Return the scores of PLANET_PAIRS."""
    scores: NDArray[np.float64] = 1 / (1 + np.exp(-np.array(PLANET_LOGITS)))
    return scores


@functools.cache
def official_scores(name: str) -> NDArray[np.float32]:
    """Return the scores of CARD_PAIRS and PLANET_PAIRS by transformers in fp32."""
    return pair_scores(checkpoint(name), [*CARD_PAIRS, *PLANET_PAIRS])


def export(name: str, precision: Precision, repository: Path) -> ExportResult:
    return export_model(
        ExportOptions(
            model=SourceReference(str(checkpoint(name))),
            repository=repository,
            precision=precision,
            max_tokens=MAX_TOKENS,
        )
    )


@pytest.fixture(scope="module", params=TOLERANCES)
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExportResult]:
    """The embedding model in a precision. Files are removed at once, because they are large."""
    repository = tmp_path_factory.mktemp("embedder")
    yield export(EMBEDDING, request.param, repository)
    shutil.rmtree(repository)


@pytest.fixture(scope="module", params=list(itertools.product(RERANKERS, TOLERANCES)), ids="-".join)
def reranker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExportResult]:
    """A reranker in a precision. Files are removed at once, because they are large."""
    name, precision = request.param
    repository = tmp_path_factory.mktemp("reranker")
    yield export(name, precision, repository)
    shutil.rmtree(repository)


def run(model: ExportResult, rows: TokenRows) -> NDArray[np.float32]:
    """Run all rows in one batch."""
    graph = WrittenModel(model.folder.graph(model.version))
    return graph.run([rows.row(index).tolist() for index in range(len(rows.lengths))])


def similarities(model: ExportResult) -> NDArray[np.float32]:
    """Return the similarities [2, 2] of QUERIES and DOCUMENTS, with the client's prompts and rows."""
    manifest = model.manifest
    assert isinstance(manifest, EmbeddingManifest)
    prompted = prompt_queries(manifest.prompts, QUERIES) + prompt_documents(manifest.prompts, DOCUMENTS)
    tokenizer = RowTokenizer(
        tokenizer=load_tokenizer(TokenizerFile.read(model.folder.tokenizer), manifest.tokenizer),
        end_token_id=manifest.end_token_id,
        max_tokens=manifest.max_tokens,
    )
    vectors = run(model, tokenizer.tokenize(prompted, check_texts(prompted).describe, truncate=False))
    found: NDArray[np.float32] = vectors[:2] @ vectors[2:].T
    return found


def scores(model: ExportResult, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    """Return the scores [n] of pairs, with the client's prompts and rows."""
    manifest = model.manifest
    assert isinstance(manifest, RerankManifest)
    prompts, plain = manifest.prompts, load_tokenizer(TokenizerFile.read(model.folder.tokenizer), manifest.tokenizer)
    tokenizer = make_pair_tokenizer(plain, prompts.prefix, prompts.suffix, manifest.max_tokens)
    queries, documents = zip(*pairs, strict=True)
    bodies = prompt_pairs(prompts, queries, documents)
    return run(model, tokenizer.tokenize(bodies, check_texts(documents).describe, lambda _: "", truncate=False))[:, 0]


def test_folder_has_a_checkpoint() -> None:
    root = Path(os.environ[VARIABLE]).expanduser()
    there = [name for name in CHECKPOINTS if (root / name / "config.json").is_file()]
    assert there, f"{VARIABLE}={root}: has none of {', '.join(CHECKPOINTS)}"


def test_transformers_gives_the_similarities_of_the_card() -> None:
    """Otherwise the weights are not those of the card."""
    assert_close(
        embedding_similarities(checkpoint(EMBEDDING)), np.array(CARD_SIMILARITIES), 1e-4, "similarities by transformers"
    )


def test_exports_give_the_similarities_of_the_card(embedder: ExportResult) -> None:
    precision = embedder.manifest.precision
    assert_close(
        similarities(embedder),
        np.array(CARD_SIMILARITIES),
        TOLERANCES[precision].similarity,
        f"similarities of the export in {precision}, against the card of {EMBEDDING}",
    )


@pytest.mark.parametrize("name", RERANKERS)
def test_transformers_gives_the_published_scores(name: str) -> None:
    """Otherwise the weights are not those that the scores are for."""
    assert_close(official_scores(name)[2:], published_scores(), 1e-4, f"scores of {name} by transformers")


def test_exports_give_the_published_scores(reranker: ExportResult) -> None:
    precision = reranker.manifest.precision
    assert_close(
        scores(reranker, PLANET_PAIRS),
        published_scores(),
        TOLERANCES[precision].score,
        f"scores of {reranker.name} in {precision}, against the tests of sentence-transformers",
    )


def test_exports_score_the_pairs_of_the_card_as_transformers_does(reranker: ExportResult) -> None:
    """The card prints no scores for them."""
    precision = reranker.manifest.precision
    assert_close(
        scores(reranker, CARD_PAIRS),
        official_scores(reranker.name)[:2],
        TOLERANCES[precision].score,
        f"scores of {reranker.name} in {precision}, against transformers in fp32",
    )
