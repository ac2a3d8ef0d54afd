"""Checkpoints with vocab.json and merges.txt instead of tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_checkpoint import write_checkpoint, write_json
from tokenizers import Tokenizer
from transformers import AutoTokenizer
from written_graph import min_cosine, official_vectors

from qwen3_triton.export import ExportOptions, SourceError, SourceReference, WitnessChoice, export_model
from qwen3_triton.export.verification.runtime import WrittenModel

TEXTS = ["how do I sort a list?", "naïve 東京 🦊", "", "  two  spaces\n\n", "<|endoftext|> x", "don't 12345"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny checkpoint whose tokenizer has the files of the slow tokenizers of earlier transformers."""
    folder = write_checkpoint(tmp_path / "tiny")
    file = folder / "tokenizer.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    write_json(folder / "vocab.json", state["model"]["vocab"])
    pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in state["model"]["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{pair}\n" for pair in pairs), encoding="utf-8")
    fields = ("content", "lstrip", "rstrip", "normalized", "single_word", "special")
    added = {str(token["id"]): {name: token[name] for name in fields} for token in state["added_tokens"]}
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "pad_token": "<|endoftext|>"},
    )
    file.unlink()
    return folder


def options(folder: Path) -> ExportOptions:
    return ExportOptions(
        model=SourceReference(str(folder)),
        repository=folder.parent / "repository",
        max_tokens=48,
        witness=WitnessChoice.NONE,
    )


def test_tokenizer_is_converted_by_transformers(folder: Path) -> None:
    result = export_model(options(folder))
    converted = Tokenizer.from_file(str(result.folder.tokenizer))
    official = AutoTokenizer.from_pretrained(folder)
    rows = [converted.encode(text).ids for text in TEXTS]
    assert rows == [official(text)["input_ids"] for text in TEXTS]
    assert max(map(len, rows)) > 5
    rows = [row for row in rows if row]
    vectors = WrittenModel(result.folder.graph(1), threads=1).run(rows)
    assert min_cosine(vectors, official_vectors(folder, rows)) >= 0.999999
    assert result.record.origins["tokenizer"] == f"vocab.json of {folder}"


def test_both_files_are_needed(folder: Path) -> None:
    (folder / "merges.txt").unlink()
    with pytest.raises(SourceError, match=r"no tokenizer\.json, and no vocab\.json with merges\.txt"):
        export_model(options(folder))
