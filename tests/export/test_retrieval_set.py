"""Retrieval sets in BEIR's layout: what is read, and error messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from retrieval_sets import HEADER, write_lines, write_set

from qwen3_triton.export import SourceError
from qwen3_triton.export.sources.retrieval_set import NamedText, read_retrieval_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set", "q1\td0\t2\nq1\td4\t0\nq5\td7\t1\nq2\td7\t0\n")


def test_judged_queries_and_gains_are_read(folder: Path) -> None:
    found = read_retrieval_set(folder)
    # q2 has no relevant document, the others have no judgements
    assert [query.name for query in found.queries] == ["q1", "q5"]
    assert found.gains == ({0: 2.0, 4: 0.0}, {7: 1.0})
    assert found.same_id == (None, None)
    assert len(found.documents) == 24
    assert found.documents[0] == NamedText("d0", "A title capital city 0")
    assert found.documents[1].text == "document answer text 1"
    assert found.identity.reference == str(folder)


def test_judgements_may_be_next_to_the_texts(folder: Path, tmp_path: Path) -> None:
    flat = write_set(tmp_path / "flat", "q0\td3\t1\n", qrels="qrels.tsv")
    assert read_retrieval_set(flat).gains == ({3: 1.0},)
    (folder / "qrels.tsv").write_text(HEADER + "q0\td0\t1\n")
    assert [query.name for query in read_retrieval_set(folder).queries] == ["q1", "q5"]


def test_hash_depends_on_the_content_only(folder: Path, tmp_path: Path) -> None:
    before = read_retrieval_set(folder).identity.sha256
    moved = folder.rename(tmp_path / "elsewhere")
    assert read_retrieval_set(moved).identity.sha256 == before
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        file = moved / name
        text = file.read_text()
        file.write_text(text + "\n")
        assert read_retrieval_set(moved).identity.sha256 != before
        file.write_text(text)


def test_document_with_the_id_of_a_query_is_excluded_unless_relevant(folder: Path) -> None:
    write_lines(folder / "queries.jsonl", [{"_id": "d1", "text": "a"}, {"_id": 2, "text": "b"}])
    write_lines(folder / "corpus.jsonl", [{"_id": str(name), "text": "x"} for name in ("d0", "d1", 2)])
    (folder / "qrels/test.tsv").write_text(HEADER + "d1\td0\t1\nd1\td1\t0\n2\t2\t1\n")
    assert read_retrieval_set(folder).same_id == (1, None)


def test_blank_lines_and_windows_line_ends_are_accepted(folder: Path) -> None:
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        file = folder / name
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert read_retrieval_set(folder).gains == ({0: 2.0, 4: 0.0}, {7: 1.0})


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", b'{"_id": "a", "text": "x"}\n{"_id": "b"\n', "corpus.jsonl:2: must be a JSON object"),
        ("corpus.jsonl", b'\n["a"]\n', "corpus.jsonl:2: must be a JSON object"),
        ("corpus.jsonl", b'{"_id": "a", "title": 1, "text": "x"}', "corpus.jsonl:1: must be a JSON object"),
        ("corpus.jsonl", b'{"_id": true, "text": "x"}', "corpus.jsonl:1: must be a JSON object"),
        ("corpus.jsonl", b'{"_id": "a", "text": "x"}\n\xff\n', "corpus.jsonl:2: is not UTF-8"),
        ("corpus.jsonl", b'{"_id": "a", "text": "\\ud800"}\n', "corpus.jsonl:1: has a lone surrogate"),
        ("corpus.jsonl", b"\n", "corpus.jsonl: has no texts"),
        ("queries.jsonl", b'{"id": "a", "text": "x"}', "queries.jsonl:1: must be a JSON object"),
        ("queries.jsonl", b'{"_id": "q", "text": "x"}\n{"_id": "q", "text": "y"}', "2: duplicate _id 'q'"),
        ("qrels/test.tsv", b"", "test.tsv: the first line must be query-id, corpus-id, score"),
        ("qrels/test.tsv", b"q1\td0\t1\n", "test.tsv:1: the first line must be query-id, corpus-id, score"),
        ("qrels/test.tsv", f"{HEADER}q1\td0\n".encode(), "test.tsv:2: must be query-id, corpus-id, score"),
        ("qrels/test.tsv", f"{HEADER}\nq99\td0\t1\n".encode(), "test.tsv:3: queries.jsonl has no query 'q99'"),
        ("qrels/test.tsv", f"{HEADER}q1\td99\t1\n".encode(), "test.tsv:2: corpus.jsonl has no document 'd99'"),
        ("qrels/test.tsv", f"{HEADER}q1\td0\tgood\n".encode(), "test.tsv:2: the score 'good' is not a number"),
        ("qrels/test.tsv", f"{HEADER}q1\td0\tnan\n".encode(), "test.tsv:2: the score 'nan' is not a number"),
        ("qrels/test.tsv", f"{HEADER}q1\td0\t0\n".encode(), "test.tsv: no query has a relevant document"),
    ],
)
def test_invalid_file_raises_a_one_line_error(folder: Path, file: str, content: bytes, message: str) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(SourceError) as failure:
        read_retrieval_set(folder)
    error = str(failure.value)
    assert error.startswith(f"evaluation set {folder}/")
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("corpus.jsonl", "no corpus.jsonl"),
        ("queries.jsonl", "no queries.jsonl"),
        ("qrels/test.tsv", "no qrels/test.tsv or qrels.tsv"),
    ],
)
def test_missing_file_is_named(folder: Path, file: str, message: str) -> None:
    (folder / file).unlink()
    with pytest.raises(SourceError, match=f"^evaluation set {folder}: {message}; the folder must be in BEIR's layout"):
        read_retrieval_set(folder)
