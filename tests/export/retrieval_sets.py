"""Retrieval sets in BEIR's layout, as files."""

from __future__ import annotations

import json
from pathlib import Path

HEADER = "query-id\tcorpus-id\tscore\n"
WORDS = ("capital", "city", "query", "document", "answer", "text", "country", "the")


def write_lines(file: Path, lines: list[dict[str, object]]) -> None:
    """Write JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def write_set(folder: Path, judgements: str, *, qrels: str = "qrels/test.tsv", documents: int = 24) -> Path:
    """Write a set with documents `d0`, `d1`, …, eight queries `q0` to `q7`, and judgements below the header."""
    corpus: list[dict[str, object]] = [
        {"_id": f"d{index}", "title": "A title" if index % 3 == 0 else "", "text": f"{_words(index)} {index}"}
        for index in range(documents)
    ]
    write_lines(folder / "corpus.jsonl", corpus)
    write_lines(
        folder / "queries.jsonl", [{"_id": f"q{index}", "text": f"what is the {WORDS[index]}?"} for index in range(8)]
    )
    file = folder / qrels
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(HEADER + judgements, encoding="utf-8")
    return folder


def _words(index: int) -> str:
    return " ".join(WORDS[(index * 3 + step) % len(WORDS)] for step in range(2 + index % 5))
