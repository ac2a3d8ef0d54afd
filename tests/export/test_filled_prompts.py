"""The exporter fills prompts exactly like the client, also for texts that contain placeholders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from qwen3_triton.client import PairPrompts, Prompts, SourceIdentity
from qwen3_triton.client.prompts import prompt_documents, prompt_pairs, prompt_queries
from qwen3_triton.export.sources.embedding_head import LAST_TOKEN_HEAD
from qwen3_triton.export.sources.retrieval_set import NamedText, RetrievalSet
from qwen3_triton.export.sources.tokenizer import CheckpointTokenizer
from qwen3_triton.export.tasks.embedding import EmbeddingTask
from qwen3_triton.export.tasks.reranking import RerankTask

HOSTILE = ["{document}", "{query} and {instruction}", "{text}", "a {", "{instruction}{document}{query}", "\\1 {0} %s"]
PROMPTS = Prompts(
    query="Instruct: {instruction}\nQuery:{text}",
    document="passage ({instruction}): {text}",
    default_instruction="{text}",
)
PAIRS = PairPrompts(
    prefix="<", body="{instruction} | {query} | {document}", suffix=">", default_instruction="find {document}"
)


class Recorder:
    """A tokenizer that records its texts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def rows(self, texts: Sequence[str], _max_tokens: int) -> list[list[int]]:
        self.texts += texts
        return [[1]] * len(texts)

    def pair_rows(self, _prompts: PairPrompts, bodies: Sequence[str], _max_tokens: int) -> list[list[int]]:
        self.texts += bodies
        return [[1]] * len(bodies)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def embedding(recorder: Recorder) -> EmbeddingTask:
    tokenizer = cast(CheckpointTokenizer, recorder)
    return EmbeddingTask(
        sets_prompts=True,
        prompts=PROMPTS,
        prompts_origin="options",
        length=None,
        tokenizer=tokenizer,
        head=LAST_TOKEN_HEAD,
        dimension=8,
    )


def test_calibration_texts_equal_client_prompts(recorder: Recorder, embedding: EmbeddingTask) -> None:
    embedding.text_rows(HOSTILE, 64)
    assert recorder.texts == prompt_documents(PROMPTS, HOSTILE) + prompt_queries(PROMPTS, HOSTILE[::3])


def test_retrieval_sets_equal_client_prompts(recorder: Recorder, embedding: EmbeddingTask, tmp_path: Path) -> None:
    named = tuple(NamedText(name=str(number), text=text) for number, text in enumerate(HOSTILE))
    identity = SourceIdentity(reference=str(tmp_path), sha256="0" * 64)
    count = len(named)
    found = RetrievalSet(
        identity=identity, queries=named, documents=named, gains=({},) * count, same_id=(None,) * count
    )
    embedding.retrieval_rows(found, 64)
    assert recorder.texts == prompt_queries(PROMPTS, HOSTILE) + prompt_documents(PROMPTS, HOSTILE)


def test_reranker_pairs_equal_client_prompts(recorder: Recorder) -> None:
    tokenizer = cast(CheckpointTokenizer, recorder)
    task = RerankTask(
        sets_prompts=True, prompts=PAIRS, prompts_origin="options", length=None, answers=None, tokenizer=tokenizer
    )
    task.text_rows(HOSTILE, 64)
    assert recorder.texts == prompt_pairs(PAIRS, HOSTILE, [*HOSTILE[1:], HOSTILE[0]])
    assert recorder.texts[0] == "find {document} | {document} | {query} and {instruction}"
