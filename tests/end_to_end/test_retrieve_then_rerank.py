"""The demo embedding model and the demo reranker in one real tritonserver."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from served_demo import SERVED_MAX_TOKENS, ServedDemo

from qwen3_triton.client import EmbeddingClient, InvalidInputError, Precision, RerankClient
from qwen3_triton.server import TritonServer

GATES = {Precision.FP32: 1e-4, Precision.FP16: 1e-2}
BATCHED = {Precision.FP32: 1e-6, Precision.FP16: 1e-3}
INSTRUCTION = "Given a description of what a function does, retrieve its Python code"
SORT = "def sort_numbers(numbers):\n    result = list(numbers)\n    result.sort()\n    return result"
LONG = "def many(values):\n" + "    values.append(values[-1] * 2)\n" * 300
PAIRS = [
    ("sort a list of numbers", SORT),
    ("sort a list of numbers", "def close(self):\n    self._socket.close()"),
    ("close the socket", "def close(self):\n    self._socket.close()"),
    ("", ""),
    ("", SORT),
    ("read all lines of a file", ""),
    ("naïve 日本語 \U0001f600", "yes no <|im_end|> <|endoftext|> <Document>: <Query>:"),
    ("append to a list", LONG),
    ("a query that is far too long itself " * 60, SORT),
]

PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


class Recipe:
    """The transformers code of the model card, in fp32 and row by row, with SERVED_MAX_TOKENS."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.prefix, self.suffix = (self._tokenizer.encode(text, add_special_tokens=False) for text in (PREFIX, SUFFIX))

    def rows(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        bodies = [f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n<Document>: {document}" for query, document in pairs]
        body_tokens = SERVED_MAX_TOKENS - len(self.prefix) - len(self.suffix)
        cut = self._tokenizer(bodies, padding=False, truncation="longest_first", max_length=body_tokens)["input_ids"]
        return [self.prefix + ids + self.suffix for ids in cut]

    @torch.inference_mode()
    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        no, yes = (self._tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes"))
        logits = [self._model(input_ids=torch.tensor([row])).logits[0, -1, [no, yes]] for row in self.rows(pairs)]
        return np.asarray(torch.stack(logits).log_softmax(dim=1)[:, 1].exp().numpy(), np.float32)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running server with `embedder`, `reranker-fp32` and `reranker-fp16`, and the official scores of `PAIRS`."""

    server: TritonServer
    repository: Path
    recipe: Recipe
    truth: NDArray[np.float32]

    def reranker(self, precision: Precision = Precision.FP32, *, truncate: bool = True) -> RerankClient:
        name = f"reranker-{precision}"
        return RerankClient(self.server.grpc_url, name, repository=self.repository, truncate=truncate)

    def embedder(self) -> EmbeddingClient:
        return EmbeddingClient(self.server.grpc_url, "embedder", repository=self.repository)


@pytest.fixture(scope="module")
def deployment(served_demo: ServedDemo, project_root: Path) -> Deployment:
    recipe = Recipe(project_root / "examples" / "demo" / "reranker")
    return Deployment(served_demo.server, served_demo.repository, recipe, recipe.scores(PAIRS))


@pytest.mark.filterwarnings("ignore:the query leaves no room")
@pytest.mark.parametrize("precision", GATES)
def test_scores_equal_the_official_recipe_alone_and_batched(deployment: Deployment, precision: Precision) -> None:
    with deployment.reranker(precision) as client:
        together = client.score(PAIRS, instruction=INSTRUCTION)
        alone = np.concatenate([client.score([pair], instruction=INSTRUCTION) for pair in PAIRS])
        with ThreadPoolExecutor(8) as pool:
            rotated = [PAIRS[shift % len(PAIRS) :] + PAIRS[: shift % len(PAIRS)] for shift in range(40)]
            concurrent = list(pool.map(lambda pairs: client.score(pairs, instruction=INSTRUCTION), rotated))
    truth = deployment.truth
    assert truth.max() - truth.min() > 0.2, "otherwise a model with constant output could pass"
    for scores in (together, alone):
        assert np.abs(scores - truth).max() <= GATES[precision]
    for shift, scores in enumerate(concurrent):
        assert np.abs(np.roll(scores, shift % len(PAIRS)) - alone).max() <= BATCHED[precision]


def test_document_beyond_the_limit_keeps_the_suffix(deployment: Deployment) -> None:
    query = "append to a list"
    [row] = deployment.recipe.rows([(query, LONG)])
    suffix = deployment.recipe.suffix
    assert len(row) == SERVED_MAX_TOKENS
    assert row[-len(suffix) :] == suffix
    with deployment.reranker() as client:
        found = client.score([(query, LONG), (query, LONG + "\nmore of it")], instruction=INSTRUCTION)
        with deployment.reranker(truncate=False) as strict, pytest.raises(InvalidInputError, match=r"documents?\[1\]"):
            strict.rerank(query, [SORT, LONG], INSTRUCTION)
    [expected] = deployment.recipe.scores([(query, LONG)])
    assert np.abs(found - expected).max() <= GATES[Precision.FP32]


def test_empty_list_query_and_document(deployment: Deployment) -> None:
    with deployment.reranker() as client:
        assert client.rerank("sort a list of numbers", []) == []
        assert client.score([]).shape == (0,)
        ranked = client.rerank("", ["", SORT], INSTRUCTION)
    scores = dict(ranked)
    assert abs(scores[0] - deployment.truth[3]) <= GATES[Precision.FP32]
    assert abs(scores[1] - deployment.truth[4]) <= GATES[Precision.FP32]


def test_both_models_are_unaffected_by_concurrent_requests(deployment: Deployment) -> None:
    queries, documents = zip(*PAIRS[:7], strict=True)
    with deployment.reranker() as reranker, deployment.embedder() as embedder:
        ranked = reranker.rerank(PAIRS[0][0], documents, INSTRUCTION)
        vectors = embedder.embed_queries(queries)
        with ThreadPoolExecutor(16) as pool:
            lists = [pool.submit(reranker.rerank, PAIRS[0][0], documents, INSTRUCTION) for _ in range(40)]
            arrays = [pool.submit(embedder.embed_queries, queries) for _ in range(40)]
            for each in lists:
                assert dict(each.result()) == pytest.approx(dict(ranked), abs=BATCHED[Precision.FP32])
            for array in arrays:
                np.testing.assert_allclose(array.result(), vectors, atol=1e-6)
    assert ranked[0].position == 0


def test_rerank_command_ranks_lines(deployment: Deployment, tmp_path: Path) -> None:
    source = tmp_path / "documents.jsonl"
    documents = [document for _, document in PAIRS[:7]]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    query = PAIRS[0][0]
    program = Path(sys.executable).with_name("qwen3-triton")
    command = [
        *(str(program), "rerank", "--model", "reranker-fp32", "--url", deployment.server.grpc_url),
        *("--query", query, "--instruction", INSTRUCTION, "--top-k", "3", "--input", str(source)),
        *("--repository", str(deployment.repository)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    with deployment.reranker() as client:
        ranked = client.rerank(query, documents, INSTRUCTION, top_k=3)
    assert [line["position"] for line in lines] == [position for position, _ in ranked]
    assert [line["text"] for line in lines] == [documents[position] for position, _ in ranked]
    assert [line["score"] for line in lines] == pytest.approx(
        [score for _, score in ranked], abs=BATCHED[Precision.FP32]
    )


def test_client_rejects_a_model_of_the_other_task(deployment: Deployment) -> None:
    with pytest.raises(Exception, match="rerank") as caught:
        EmbeddingClient(deployment.server.grpc_url, "reranker-fp32", repository=deployment.repository)
    assert "embed" in str(caught.value)
