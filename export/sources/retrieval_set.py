"""A retrieval set in BEIR's layout: queries, documents and relevance judgements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...client.manifest import SourceIdentity
from ...client.manifest.input_files import parse_json
from ..errors import SourceError
from .weights import hash_files

_CORPUS, _QUERIES = "corpus.jsonl", "queries.jsonl"
_JUDGEMENTS = ("qrels/test.tsv", "qrels.tsv")
_HEADER = ("query-id", "corpus-id", "score")


@dataclass(frozen=True, slots=True)
class NamedText:
    """A query or document and its `_id`."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalSet:
    """Queries with at least one relevant document, all documents, and the relevance judgements."""

    identity: SourceIdentity
    """The folder as given, and the SHA-256 of the digests of its files."""
    queries: tuple[NamedText, ...]
    documents: tuple[NamedText, ...]
    gains: tuple[dict[int, float], ...]
    """For each query, index of a judged document → score."""
    same_id: tuple[int | None, ...]
    """For each query, index of the document with the same id, unless it is judged relevant. BEIR removes it from the
    results (`ignore_identical_ids`)."""


def read_retrieval_set(folder: Path) -> RetrievalSet:
    """Read `corpus.jsonl`, `queries.jsonl`, and `qrels/test.tsv` or `qrels.tsv` in `folder`.

    Documents have `_id`, `text` and optionally `title`, which is prepended with a space, like in BEIR; queries have
    `_id` and `text`. Judgements are tab-separated `query-id`, `corpus-id` and `score`, below a header. Of duplicate
    judgements, the last one counts.

    Raises:
        SourceError: A file is missing or invalid; the message names file and line.
    """
    qrels = next((folder / name for name in _JUDGEMENTS if (folder / name).is_file()), folder / _JUDGEMENTS[0])
    files = [folder / _CORPUS, folder / _QUERIES, qrels]
    for file in files:
        if not file.is_file():
            wanted = " or ".join(_JUDGEMENTS) if file == qrels else file.name
            raise SourceError(
                f"evaluation set {folder}: no {wanted}; the folder must be in BEIR's layout: "
                f"{_CORPUS}, {_QUERIES} and qrels"
            )
    documents, queries = (_read_texts(file) for file in files[:2])
    scores = _read_judgements(qrels, _index_by_id(queries), _index_by_id(documents))
    judged = [index for index, gains in enumerate(scores) if any(gain > 0 for gain in gains.values())]
    if not judged:
        raise SourceError(f"evaluation set {qrels}: no query has a relevant document, one with a score above 0")
    indices = _index_by_id(documents)
    return RetrievalSet(
        identity=SourceIdentity(reference=str(folder), sha256=hash_files(files)),
        queries=tuple(queries[index] for index in judged),
        documents=tuple(documents),
        gains=tuple(scores[index] for index in judged),
        same_id=tuple(_same_id(indices.get(queries[index].name), scores[index]) for index in judged),
    )


def _same_id(document: int | None, gains: dict[int, float]) -> int | None:
    return None if document is None or gains.get(document, 0.0) > 0 else document


def _index_by_id(texts: Sequence[NamedText]) -> dict[str, int]:
    return {text.name: index for index, text in enumerate(texts)}


def _read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the location, for errors, and the text of each line of `file` that is not blank."""
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                location = f"evaluation set {file}:{number}"
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as exc:
                    raise SourceError(f"{location}: is not UTF-8") from exc
                if text.strip():
                    yield location, text
    except OSError as exc:
        raise SourceError(f"evaluation set {file}: not readable ({exc.strerror})") from exc


def _read_texts(file: Path) -> list[NamedText]:
    texts: dict[str, NamedText] = {}
    for location, line in _read_lines(file):
        text = _parse_text(line, location)
        if text.name in texts:
            raise SourceError(f"{location}: duplicate _id '{text.name}'")
        texts[text.name] = text
    if not texts:
        raise SourceError(f"evaluation set {file}: has no texts")
    return list(texts.values())


def _parse_text(line: str, location: str) -> NamedText:
    try:
        value = parse_json(line)
    except ValueError:
        value = None
    fields = value if isinstance(value, dict) else {}
    name, title, text = fields.get("_id"), fields.get("title") or "", fields.get("text")
    # `type` because bool is a subclass of int
    if type(name) not in (str, int) or not isinstance(title, str) or not isinstance(text, str):
        raise SourceError(
            f'{location}: must be a JSON object with "_id" and "text", such as {{"_id": "7", "text": "a text"}}'
        )
    content = f"{title} {text}" if title else text
    try:
        content.encode()
    except UnicodeEncodeError as exc:
        raise SourceError(f"{location}: has a lone surrogate, which UTF-8 cannot encode") from exc
    return NamedText(str(name), content)


def _read_judgements(file: Path, queries: dict[str, int], documents: dict[str, int]) -> list[dict[int, float]]:
    """Return the gains of every query by document index."""
    gains: list[dict[int, float]] = [{} for _ in queries]
    lines = _read_lines(file)
    location, header = next(lines, (f"evaluation set {file}", ""))
    if tuple(header.split("\t")) != _HEADER:
        raise SourceError(f"{location}: the first line must be {', '.join(_HEADER)} with tabs between")
    for location, line in lines:
        fields = line.split("\t")
        if len(fields) != len(_HEADER):
            raise SourceError(f"{location}: must be {', '.join(_HEADER)} with tabs between")
        query, document, score = fields
        if query not in queries:
            raise SourceError(f"{location}: {_QUERIES} has no query '{query}'")
        if document not in documents:
            raise SourceError(f"{location}: {_CORPUS} has no document '{document}'")
        gains[queries[query]][documents[document]] = _parse_score(score, location)
    return gains


def _parse_score(text: str, location: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise SourceError(f"{location}: the score '{text}' is not a number")
    return score
