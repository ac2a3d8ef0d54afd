from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import ClientError, EmbeddingClient, InvalidInputError

typer = pytest.importorskip("typer")
from typer.testing import CliRunner  # noqa: E402

from qwen3_triton.cli.embed import embed, write_vectors  # noqa: E402
from qwen3_triton.cli.texts import read_texts  # noqa: E402


def run(triton: FakeTriton, *arguments: str, text: str | bytes | None = None) -> str:
    """Return the standard output of the command; exceptions propagate, as the main program handles them."""
    app = typer.Typer()
    app.command()(embed)
    done = CliRunner().invoke(app, ["--model", MODEL, "--url", triton.url, *arguments], input=text)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_lines_to_json_lines(triton: FakeTriton, client: EmbeddingClient) -> None:
    output = run(triton, text="one\n\ntwo é\u2028 more\n".encode())
    vectors = np.array([json.loads(line) for line in output.splitlines()], np.float32)
    np.testing.assert_array_equal(vectors, client.embed_documents(["one", "", "two é\u2028 more"]))


def test_queries_to_npy(triton: FakeTriton, client: EmbeddingClient, tmp_path: Path) -> None:
    source, output = tmp_path / "queries.txt", tmp_path / "vectors.npy"
    source.write_bytes(b"one\r\ntwo")
    arguments = ["--kind", "query", "--instruction", "rank", "--dim", "8"]
    assert run(triton, *arguments, "--input", str(source), "--output", str(output)) == ""
    vectors = np.load(output)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, client.embed_queries(["one", "two"], "rank", 8))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["queries.txt", "vectors.npy"]


def test_json_lines_file(triton: FakeTriton, client: EmbeddingClient, tmp_path: Path) -> None:
    source, output = tmp_path / "texts.jsonl", tmp_path / "vectors.jsonl"
    source.write_text('"one\\nline"\n{"id": 3, "text": "two"}\n', encoding="utf-8")
    run(triton, "--input", str(source), "--output", str(output))
    vectors = np.array([json.loads(line) for line in output.read_text().splitlines()], np.float32)
    np.testing.assert_array_equal(vectors, client.embed_documents(["one\nline", "two"]))


def test_no_lines(triton: FakeTriton) -> None:
    assert run(triton, text="") == ""
    assert triton.batches == []


def test_tokenizer_option(triton: FakeTriton, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        run(triton, "--tokenizer", str(tmp_path / "missing.json"), text="a")


def test_instruction_for_documents(triton: FakeTriton) -> None:
    with pytest.raises(InvalidInputError, match="--kind query"):
        run(triton, "--instruction", "rank", text="a")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine\n\xff", "not UTF-8 at byte 5"),
        ("a.jsonl", b'"fine"\n{', "line 2 is not JSON"),
        ("a.jsonl", b'"fine"\n\n"more"\n', "line 2 is not JSON"),
        ("a.jsonl", b'{"txt": "a"}', "line 1 is neither"),
        ("a.jsonl", b"3", "line 1 is neither"),
    ],
)
def test_bad_input_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        read_texts(str(tmp_path / name))


def test_missing_input_file(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="cannot read"):
        read_texts(str(tmp_path / "missing.txt"))


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "vectors.npy"
    file.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(InvalidInputError, match="No space left"):
        write_vectors(file, np.zeros((1, 2), np.float32))
    assert file.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["vectors.npy"]
