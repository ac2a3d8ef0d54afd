from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton
from sample_manifest import DIMENSION

from qwen3_triton.client import ClientError, EmbeddingClient, InvalidInputError, ServerTimeoutError

typer = pytest.importorskip("typer")
from typer.testing import CliRunner  # noqa: E402

from qwen3_triton.cli import progress  # noqa: E402
from qwen3_triton.cli.embed import embed  # noqa: E402
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
        ("a.ndjson", b"{", "line 1 is not JSON"),
        ("a.txt", b"fine\n\xff", "not UTF-8 at byte 5"),
        ("a.jsonl", b'"fine"\n{', "line 2 is not JSON"),
        ("a.jsonl", b'"fine"\n\n"more"\n', "line 2 is not JSON"),
        ("a.jsonl", b'{"txt": "a"}', "line 1 is neither"),
        ("a.jsonl", b"3", "line 1 is neither"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not JSON .nested more than 64 levels deep"),
    ],
)
def test_bad_input_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        read_texts(str(tmp_path / name))


def test_missing_input_file(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="cannot read"):
        read_texts(str(tmp_path / "missing.txt"))


def test_texts_from_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "texts"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", 'printf "one\\ntwo" > "$0"', str(pipe)]):
        assert read_texts(str(pipe)) == ["one", "two"]


def test_texts_from_a_device() -> None:
    assert read_texts(os.devnull) == []
    with pytest.raises(InvalidInputError, match="--input: cannot read /dev/zero: a device, not a file or a pipe"):
        read_texts("/dev/zero")


def fail_at(triton: FakeTriton, number: int) -> None:
    """Make the request `number` from now on, and those after it, fail."""
    first = len(triton.batches)

    def fault(index: int, context: Any) -> None:
        if index >= first + number:
            context.abort(grpc.StatusCode.INTERNAL, "broken")

    triton.fault = fault


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "npy"])
def test_a_failed_run_is_resumed_where_it_stopped(
    triton: FakeTriton, client: EmbeddingClient, tmp_path: Path, suffix: str
) -> None:
    texts = [f"text {'a' * (index % 9)}{index}" for index in range(100)]
    whole = client.embed_documents(texts)
    source, output = tmp_path / "texts.txt", tmp_path / f"vectors.{suffix}"
    source.write_text("\n".join(texts))
    output.write_bytes(b"old")
    arguments = ["--input", str(source), "--output", str(output)]
    fail_at(triton, 6)
    with pytest.raises(ClientError, match="broken"):
        run(triton, *arguments)
    partial = tmp_path / f"vectors.{suffix}.partial"
    assert output.read_bytes() == b"old"
    assert partial.exists()
    # a machine that dies may leave half a row
    with partial.open("ab") as stream:
        stream.write(b"[0.5, 0")
    triton.fault = None
    with pytest.raises(InvalidInputError, match="add --resume"):
        run(triton, *arguments)
    triton.batches.clear()
    run(triton, *arguments, "--resume")
    vectors = (
        np.load(output)
        if suffix == "npy"
        else np.array([json.loads(line) for line in output.read_text().splitlines()], np.float32)
    )
    np.testing.assert_array_equal(vectors, whole)
    assert sum(map(len, triton.batches)) < 100 - 16
    assert sorted(file.name for file in tmp_path.iterdir()) == ["texts.txt", output.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [(["--dim", "8"], "another dim"), (["--kind", "query"], "another kind"), (["--input", "other"], "another input")],
)
def test_a_run_with_other_input_is_not_resumed(
    triton: FakeTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts").write_text("a\n" * 100)
    Path("other").write_text("b\n" * 100)
    arguments = ["--input", "texts", "--output", "v.npy"]
    fail_at(triton, 6)
    with pytest.raises(ClientError, match="broken"):
        run(triton, *arguments)
    triton.fault = None
    before = Path("v.npy.partial").read_bytes()
    with pytest.raises(InvalidInputError, match=message):
        run(triton, *arguments, *change, "--resume")
    assert Path("v.npy.partial").read_bytes() == before


def test_a_run_that_fails_at_once_leaves_nothing(triton: FakeTriton, tmp_path: Path) -> None:
    fail_at(triton, 0)
    with pytest.raises(ClientError, match="broken"):
        run(triton, "--output", str(tmp_path / "v.jsonl"), text="a\nb")
    assert list(tmp_path.iterdir()) == []


def test_vectors_are_printed_before_an_error(triton: FakeTriton, client: EmbeddingClient) -> None:
    whole = client.embed_documents(["a"] * 100)
    fail_at(triton, 6)
    app = typer.Typer()
    app.command()(embed)
    done = CliRunner().invoke(app, ["--model", MODEL, "--url", triton.url], input="a\n" * 100)
    assert isinstance(done.exception, ClientError)
    vectors = np.array([json.loads(line) for line in done.stdout.splitlines()], np.float32)
    np.testing.assert_array_equal(vectors, whole[: len(vectors)])
    assert len(vectors) >= 16
    assert f"note: {len(vectors)} vectors were written" in done.stderr


def test_no_texts_to_a_file(triton: FakeTriton, tmp_path: Path) -> None:
    run(triton, "--output", str(tmp_path / "v.npy"), text="")
    assert np.load(tmp_path / "v.npy").shape == (0, DIMENSION)
    assert [file.name for file in tmp_path.iterdir()] == ["v.npy"]


def test_a_file_that_cannot_be_written(triton: FakeTriton, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"--output: cannot write .*No such file or directory"):
        run(triton, "--output", str(tmp_path / "missing" / "v.npy"), text="a")


@pytest.mark.parametrize("name", ["v.parquet", "v.txt", "v"])
def test_unknown_formats(triton: FakeTriton, name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} is neither .npy"):
        run(triton, "--output", name, text="a")


def test_resume_needs_a_file(triton: FakeTriton) -> None:
    with pytest.raises(InvalidInputError, match="--resume needs a file"):
        run(triton, "--resume", text="a")


def test_json_lines_on_standard_input(triton: FakeTriton, client: EmbeddingClient) -> None:
    output = run(triton, "--json-lines", text='"one\\ntwo"\n{"text": "b"}\n')
    vectors = np.array([json.loads(line) for line in output.splitlines()], np.float32)
    np.testing.assert_array_equal(vectors, client.embed_documents(["one\ntwo", "b"]))


def test_the_command_has_a_deadline(triton: FakeTriton) -> None:
    triton.fault = lambda *_: time.sleep(0.2)
    with pytest.raises(ServerTimeoutError, match=r"cannot finish within its 0\.5 s"):
        run(triton, "--timeout", "0.5", text="a\n" * 500)


def test_debug_after_the_sub_command(tmp_path: Path) -> None:
    code = "from qwen3_triton.cli.entry import run; run()"
    command = [sys.executable, "-c", code, "embed", "--model", "m", "--input", str(tmp_path / "missing")]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert plain.returncode == 1
    assert plain.stderr.startswith("error: --input: cannot read")
    debugging = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert debugging.returncode == 1
    assert "Traceback" in debugging.stderr


def test_a_timeout_names_the_options(triton: FakeTriton, tokenizer_file: Path, tmp_path: Path) -> None:
    triton.fault = lambda *_: time.sleep(0.2)
    (tmp_path / "texts.txt").write_text("a\n" * 500)
    code = "from qwen3_triton.cli.entry import run; run()"
    arguments = ["--model", MODEL, "--url", triton.url, "--input", str(tmp_path / "texts.txt"), "--timeout", "0.5"]
    command = [sys.executable, "-c", code, "embed", *arguments, "--tokenizer", str(tokenizer_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("(option --timeout or --request-timeout)")


def test_progress_lines_say_the_speed_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = [100.0]
    monkeypatch.setattr("qwen3_triton.cli.progress.time.monotonic", lambda: now_s[0])
    lines = progress.LineProgress(quiet=True)
    lines.stage("embedding")
    # rows of an earlier run do not count for the speed
    for seconds, done in ((1, 500), (9, 540), (2, 550), (5, 600)):
        now_s[0] += seconds
        lines.step(done, 5000)
    assert capsys.readouterr().err == "embedding: 540 of 5000 (4.44/s, 16:44 left)\n"
    lines.stage("embedding")
    assert capsys.readouterr().err == "embedding: took 0:17\n"
    for seconds, done in ((1, 500), (9, 540), (2, 550), (5, 600)):
        now_s[0] += seconds
        lines.step(done, 5000, (done - 500) * 250)
    assert capsys.readouterr().err == "embedding: 540 of 5000 (4.44/s, 1,111 tokens/s, 16:44 left)\n"


def test_lines_report_the_duration_of_long_stages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = [100.0]
    monkeypatch.setattr("qwen3_triton.cli.progress.time.monotonic", lambda: now_s[0])
    with progress.LineProgress() as lines:
        for stage, seconds in (("reading", 9), ("verifying", 75), ("writing", 11)):
            lines.stage(stage)
            now_s[0] += seconds
    assert capsys.readouterr().err.splitlines() == [
        "reading",
        "verifying",
        "verifying: took 1:15",
        "writing",
        "writing: took 0:11",
    ]
    with pytest.raises(ValueError, match="damaged"), progress.LineProgress() as lines:
        lines.stage("reading")
        now_s[0] += 60
        raise ValueError("damaged")
    assert capsys.readouterr().err == "reading\n"


def test_a_bar_shows_the_speed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now_s = [100.0]
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr("qwen3_triton.cli.progress.time.monotonic", lambda: now_s[0])
    with progress.BarProgress() as bars:
        bars.stage("embedding")
        bars.step(500, 5000, 1_000)
        now_s[0] += 10
        bars.step(600, 5000, 21_000)
    assert "600/5000" in (shown := capsys.readouterr().err)
    assert "10/s, 2,000 tokens/s" in shown
