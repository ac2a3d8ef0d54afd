from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import InvalidInputError, ManifestError, RerankClient

typer = pytest.importorskip("typer")
from typer.testing import CliRunner  # noqa: E402

from qwen3_triton.cli.rerank import rerank  # noqa: E402

TEXTS = ["one", "", "two é\u2028 more", "three", "four", 'five "quoted"']


def run(triton: FakeTriton, *arguments: str, text: str | bytes | None = None) -> list[dict[str, Any]]:
    """Return the JSON lines of the command; exceptions propagate, as the main program handles them."""
    app = typer.Typer()
    app.command()(rerank)
    done = CliRunner().invoke(app, ["--model", MODEL, "--url", triton.url, *arguments], input=text)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.removesuffix("\n").split("\n") if line]


def expected(client: RerankClient, **arguments: Any) -> list[dict[str, Any]]:
    ranked = client.rerank("which?", TEXTS, **arguments)
    return [{"position": position, "score": score, "text": TEXTS[position]} for position, score in ranked]


def assert_same(lines: list[dict[str, Any]], truth: list[dict[str, Any]]) -> None:
    for line, true in zip(lines, truth, strict=True):
        assert np.float32(line["score"]) == np.float32(true["score"])
        assert line | {"score": 0} == true | {"score": 0}


def test_lines_by_score(reranking_triton: FakeTriton, rerank_client: RerankClient) -> None:
    text = "".join(f"{line}\n" for line in TEXTS).encode()
    lines = run(reranking_triton, "--query", "which?", text=text)
    assert_same(lines, expected(rerank_client))
    assert sorted(line["position"] for line in lines) == list(range(len(TEXTS)))


def test_instruction_top_k_and_json_lines_file(
    reranking_triton: FakeTriton, rerank_client: RerankClient, tmp_path: Path
) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    arguments = ["--query", "which?", "--instruction", "rank", "--top-k", "2", "--input", str(source)]
    assert_same(run(reranking_triton, *arguments), expected(rerank_client, instruction="rank", top_k=2))


def test_no_lines(reranking_triton: FakeTriton) -> None:
    assert run(reranking_triton, "--query", "which?", text="") == []
    assert reranking_triton.batches == []


def test_bad_arguments(reranking_triton: FakeTriton, triton: FakeTriton, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="top_k is 0"):
        run(reranking_triton, "--query", "a", "--top-k", "0", text="b")
    with pytest.raises(InvalidInputError, match="does not exist"):
        run(reranking_triton, "--query", "a", "--tokenizer", str(tmp_path / "missing.json"), text="b")
    with pytest.raises(ManifestError, match="for task embed, this client is for task rerank"):
        run(triton, "--query", "a", text="b")


def test_a_query_that_leaves_no_room_is_noted(reranking_triton: FakeTriton) -> None:
    app = typer.Typer()
    app.command()(rerank)
    arguments = ["--model", MODEL, "--url", reranking_triton.url, "--query", "q" * 500]
    done = CliRunner().invoke(app, arguments, input="one\n")
    assert done.exit_code == 0
    assert done.stderr.startswith("note: the query leaves no room for documents[0] ('one')")
    assert len(done.stdout.splitlines()) == 1
