"""Writing of an evaluation set in BEIR's layout, for `qwen3-triton export --evaluation`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from examples.demo.evaluation import EvaluationSet


def write_retrieval_set(evaluation_set: EvaluationSet, folder: Path) -> None:
    """Write corpus, queries (without instruction) and judgements to `folder`, which is created if necessary."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    documents = [_line(f"d{index}", text, title="") for index, text in enumerate(evaluation_set.documents)]
    queries = [_line(f"q{index}", text) for index, text in enumerate(evaluation_set.queries)]
    judgements = [
        f"q{query}\td{document}\t1"
        for query, relevant in enumerate(evaluation_set.relevance)
        for document in sorted(relevant)
    ]
    _write(folder / "corpus.jsonl", documents)
    _write(folder / "queries.jsonl", queries)
    _write(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", *judgements])


def _line(name: str, text: str, **fields: str) -> str:
    return json.dumps({"_id": name, **fields, "text": text}, ensure_ascii=False)


def _write(file: Path, lines: Iterable[str]) -> None:
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
