"""The adapters for MTEB: its own small tasks, evaluated against a gRPC server."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import EmbeddingClient, EmbeddingManifest, InvalidInputError, ModelChangedError, RerankClient

pytest.importorskip("mteb", reason="mteb is not part of the extra dev")

import mteb
from mteb.mocks import MOCK_TASK_TEST_GRID
from mteb.types import PromptType

from qwen3_triton.client.integrations.mteb import Qwen3TritonCrossEncoder, Qwen3TritonEncoder, TaskInstructions

NAME = "acme/demo"
DEFAULT = "Retrieve text based on user query."
TEXTS = ["", "def f(): pass", "読み込む"]
TASKS = {task.metadata.name: task for task in MOCK_TASK_TEST_GRID}
SPLIT = {"hf_split": "test", "hf_subset": "default"}
RETRIEVAL = TASKS["MockRetrievalTask"].metadata
CUSTOM = TaskInstructions(by_task={"MockRetrievalTask": "find code", "STS": "compare"})


def batches(texts: list[str]) -> list[dict[str, list[str]]]:
    return [{"text": texts[:2]}, {"text": texts[2:]}]


def evaluate(model: Any, task: Any, **options: Any) -> float:
    [result] = mteb.evaluate(model, task, show_progress_bar=False, **{"cache": None} | options).task_results
    score: float = result.get_score()
    return score


@pytest.mark.parametrize("name", TASKS)
def test_every_kind_of_task_is_evaluated(client: EmbeddingClient, name: str) -> None:
    encoder = Qwen3TritonEncoder(client=client, name=NAME)
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert np.isfinite(evaluate(encoder, TASKS[name]))


@pytest.mark.parametrize("name", [name for name in TASKS if "Reranking" in name])
def test_every_kind_of_reranking_is_evaluated(rerank_client: RerankClient, name: str) -> None:
    cross_encoder = Qwen3TritonCrossEncoder(client=rerank_client, name=NAME)
    assert isinstance(cross_encoder, mteb.CrossEncoderProtocol)
    assert np.isfinite(evaluate(cross_encoder, TASKS[name]))


@pytest.mark.parametrize(
    ("instructions", "task", "expected"),
    [
        (None, "MockRetrievalTask", DEFAULT),
        (CUSTOM, "MockRetrievalTask", "find code"),
        (CUSTOM, "MockSTSTask", "compare"),
        (CUSTOM, "MockRerankingTask", TASKS["MockRerankingTask"].abstask_prompt),
        (TaskInstructions(use_tasks=False), "MockRetrievalTask", None),
        (TaskInstructions(use_tasks=False, by_task={"Retrieval": "find"}), "MockRetrievalTask", "find"),
    ],
)
def test_instruction_of_a_task(
    client: EmbeddingClient, instructions: TaskInstructions | None, task: str, expected: str | None
) -> None:
    encoder = Qwen3TritonEncoder(client=client, name=NAME, instructions=instructions)
    queries = client.embed_queries(TEXTS, expected)
    for kind in (None, PromptType.query):
        found = encoder.encode(batches(TEXTS), task_metadata=TASKS[task].metadata, prompt_type=kind, **SPLIT)
        np.testing.assert_array_equal(found, queries)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("of the task", "of the task"), ({"query": "a question"}, "a question"), ({"document": "a page"}, DEFAULT)],
)
def test_instruction_in_the_metadata(prompt: str | dict[str, str], expected: str) -> None:
    assert TaskInstructions().find(RETRIEVAL.model_copy(update={"prompt": prompt})) == expected


def test_documents_have_the_prompt_of_documents(client: EmbeddingClient) -> None:
    encoder = Qwen3TritonEncoder(client=client, name=NAME, dim=8)
    kind = PromptType.document
    found = encoder.encode(batches(TEXTS), task_metadata=RETRIEVAL, prompt_type=kind, batch_size=1, **SPLIT)
    np.testing.assert_array_equal(found, client.embed_documents(TEXTS, dim=8))


def test_pairs_have_the_instruction_of_the_task(rerank_client: RerankClient) -> None:
    cross_encoder = Qwen3TritonCrossEncoder(client=rerank_client, name=NAME, instructions=CUSTOM)
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    found = cross_encoder.predict(batches(TEXTS), batches(TEXTS[::-1]), task_metadata=RETRIEVAL, **SPLIT)
    np.testing.assert_array_equal(found, rerank_client.score(pairs, "find code"))


def test_cached_results_are_kept_apart(client: EmbeddingClient, triton: FakeTriton, tmp_path: Path) -> None:
    cache = mteb.ResultCache(tmp_path)
    encoders = [
        Qwen3TritonEncoder(client=client, name=NAME),
        Qwen3TritonEncoder(client=client, name=NAME, dim=8),
        Qwen3TritonEncoder(client=client, name=NAME, instructions=CUSTOM),
        Qwen3TritonEncoder(client=client, name=NAME, instructions=TaskInstructions(use_tasks=False)),
        Qwen3TritonEncoder(client=client, name=NAME, revision="abc"),
    ]
    for encoder in encoders:
        computed = len(triton.batches)
        score = evaluate(encoder, TASKS["MockSTSTask"], cache=cache)
        assert len(triton.batches) > computed
        computed = len(triton.batches)
        assert evaluate(encoder, TASKS["MockSTSTask"], cache=cache) == pytest.approx(score)
        assert len(triton.batches) == computed


def test_metadata(client: EmbeddingClient, rerank_client: RerankClient) -> None:
    meta = Qwen3TritonEncoder(client=client, name=NAME).mteb_model_meta
    assert (meta.name, meta.revision, meta.embed_dim, meta.max_tokens) == (NAME, "unknown-fp32", 16, 200)
    assert (meta.use_instructions, meta.is_cross_encoder, meta.experiment_kwargs) == (True, False, None)
    assert Qwen3TritonCrossEncoder(client=rerank_client, name=NAME).mteb_model_meta.is_cross_encoder


def test_a_redeploy_ends_the_evaluation(triton: FakeTriton, manifest: EmbeddingManifest) -> None:
    triton.deploy(manifest, 1)
    with Qwen3TritonEncoder(triton.url, MODEL, name=NAME) as encoder:
        assert encoder.mteb_model_meta.revision == "1-fp32"
        triton.deploy(manifest, 2)
        with pytest.raises(ModelChangedError):
            evaluate(encoder, TASKS["MockRetrievalTask"])


def test_invalid_arguments(triton: FakeTriton, client: EmbeddingClient) -> None:
    with pytest.raises(InvalidInputError, match="need organization/model"):
        Qwen3TritonEncoder(triton.url, MODEL, name="demo")
    with pytest.raises(InvalidInputError, match="vectors of served models are float32"):
        Qwen3TritonEncoder(client=client, name=NAME).encode(
            batches(TEXTS), task_metadata=RETRIEVAL, precision="int8", **SPLIT
        )


def test_a_prompt_without_instruction_is_named(triton: FakeTriton, manifest: EmbeddingManifest) -> None:
    prompts = dataclasses.replace(manifest.prompts, query="Q: {text}", default_instruction=None)
    triton.manifest_json = dataclasses.replace(manifest, prompts=prompts).to_json()
    with pytest.raises(InvalidInputError, match=r"TaskInstructions\(use_tasks=False\)"):
        Qwen3TritonEncoder(triton.url, MODEL, name=NAME)
    instructions = TaskInstructions(use_tasks=False)
    with Qwen3TritonEncoder(triton.url, MODEL, name=NAME, instructions=instructions) as encoder:
        assert np.isfinite(evaluate(encoder, TASKS["MockRetrievalTask"]))
        assert not encoder.mteb_model_meta.use_instructions
