"""The option --tokenizer: the served checkpoint uses the file, and the record identifies it."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner, Result

from benchmarks import run
from benchmarks.__main__ import app
from benchmarks.checkpoint import cached_checkpoint
from benchmarks.contenders import RunContext
from benchmarks.model_shape import SHAPES
from benchmarks.record import TokenizerInfo
from benchmarks.record_file import read_json, read_record
from benchmarks.serving.measure import LoadOptions, ServingResults
from benchmarks.text_tokenizer import TextTokenizer, read_tokenizer
from benchmarks.workload import END_TOKEN_ID, Workload

_TEXTS = ["identical embeddings alone and batched", "", " Zürich\n"]


@pytest.fixture
def file(project_root: Path) -> Path:
    return project_root / "examples" / "demo" / "checkpoint" / "tokenizer.json"


@pytest.fixture
def tokenizer(file: Path) -> TextTokenizer:
    return read_tokenizer(file)


def _invoke(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    return CliRunner().invoke(app, [*arguments])


def test_info_describes_the_file(file: Path, tokenizer: TextTokenizer) -> None:
    assert tokenizer.info == TokenizerInfo(sha256=hashlib.sha256(file.read_bytes()).hexdigest(), vocabulary=8192)
    assert tokenizer.end_token == "<|endoftext|>"


def test_checkpoint_uses_the_tokenizer_and_its_vocabulary_size(
    file: Path, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    folder = cached_checkpoint(SHAPES["tiny"], tmp_path, tokenizer)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["vocab_size"], config["eos_token_id"]) == (8192, tokenizer.end_token_id)
    assert config["hidden_size"] == SHAPES["tiny"].hidden
    assert (folder / "tokenizer.json").read_bytes() == file.read_bytes()
    assert AutoTokenizer.from_pretrained(folder)(_TEXTS)["input_ids"] == tokenizer.rows(_TEXTS)


def test_default_checkpoint_is_another_and_has_a_byte_level_tokenizer(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    folder = cached_checkpoint(SHAPES["tiny"], tmp_path)
    assert folder != cached_checkpoint(SHAPES["tiny"], tmp_path, tokenizer)
    plain = read_tokenizer(folder / "tokenizer.json")
    assert plain.end_token_id == END_TOKEN_ID
    assert [len(row) for row in plain.rows(_TEXTS)] == [len(text.encode()) + 1 for text in _TEXTS]


def test_only_the_served_checkpoint_uses_it_and_the_record_identifies_it_without_its_path(
    file: Path, tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Path] = []

    def measure(_workload: Workload, options: LoadOptions, context: RunContext) -> ServingResults:
        assert options.tokenizer == tokenizer
        served.append(context.checkpoint)
        return ServingResults()

    monkeypatch.setattr(run, "measure_serving", measure)
    paths = ("--tokenizer", str(file), "--cache", str(tmp_path), f"--output={tmp_path / 'out'}")
    result = _invoke(monkeypatch, "run", "--quick", "--part", "serving", *paths)
    assert result.exit_code == 0, result.output
    assert served == [cached_checkpoint(SHAPES["tiny"], tmp_path, tokenizer)]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    (written,) = (tmp_path / "out").iterdir()
    record = read_record(written)
    assert record.served_tokenizer == tokenizer.info
    assert record.command == "python -m benchmarks run --quick --part serving"
    assert str(file) not in read_json(written).decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{}", "invalid tokenizer JSON"),
        ('{"post_processor": null}', "does not append exactly one end token"),
    ],
)
def test_unusable_file_is_rejected(
    content: str | None, message: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "t.json"
    if content is not None:
        changes = json.loads(content)
        original = json.loads(file.read_text(encoding="utf-8")) if changes else {}
        given.write_text(json.dumps({**original, **changes}), encoding="utf-8")
    result = _invoke(monkeypatch, "run", "--quick", "--cache", str(tmp_path), "--tokenizer", str(given))
    assert result.exit_code == 2
    output = " ".join(result.output.replace("│", " ").split())
    assert "--tokenizer" in output
    assert message in output


def test_run_that_serves_no_model_rejects_it(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("run", "--quick", "--part", "scaling", "--cache", str(tmp_path), "--tokenizer", str(file))
    result = _invoke(monkeypatch, *arguments)
    assert result.exit_code == 2
    assert "only the parts serving, overload, client and soak" in " ".join(result.output.replace("│", " ").split())
