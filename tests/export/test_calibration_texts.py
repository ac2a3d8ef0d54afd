"""Calibration texts: built-in texts, files, and error messages."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

import pytest

from qwen3_triton.export import SourceError
from qwen3_triton.export.int8.calibration import BUILT_IN, held_out_texts, read_calibration
from qwen3_triton.export.sources.probe_texts import PROBE_TEXTS


def scripts(texts: tuple[str, ...]) -> set[str]:
    """Return the first words of the letters' Unicode names: LATIN, CYRILLIC, CJK and so on."""
    return {unicodedata.name(letter, "?").split()[0] for text in texts for letter in text if letter.isalpha()}


def test_built_in_texts_cover_many_scripts() -> None:
    built_in = read_calibration(None)
    assert built_in.reference == BUILT_IN
    assert len(built_in.texts) >= 48
    assert scripts(built_in.texts) >= {
        *("LATIN", "CYRILLIC", "CJK", "HIRAGANA", "HANGUL", "ARABIC", "DEVANAGARI", "THAI", "GREEK", "HEBREW"),
    }
    assert any("def " in text for text in built_in.texts)
    assert max(map(len, built_in.texts)) >= 1500


def test_held_out_texts_are_disjoint_from_calibration() -> None:
    held_out = held_out_texts()
    assert len(set(held_out)) == len(held_out) >= 32
    assert len(scripts(held_out)) >= 9
    assert set(held_out).isdisjoint({*read_calibration(None).texts, *PROBE_TEXTS})


def test_text_file_has_one_text_per_line(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes('one text\r\n\n  \nein zweiter, mit ü\n{"text": "is not JSON here"}\n'.encode())
    read = read_calibration(file)
    assert read.texts == ("one text", "ein zweiter, mit ü", '{"text": "is not JSON here"}')
    assert read.reference == str(file)
    assert read.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_jsonl_file_has_one_object_per_line(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "a\\nb", "id": 3}\n\n{"text": "\\u00fc\\u2028"}', encoding="utf-8")
    assert read_calibration(file).texts == ("a\nb", "ü\u2028")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "has no texts; give one text per line"),
        ("a.txt", b"\n  \n", "has no texts; give one text per line"),
        ("a.txt", b"good\n\xff\xfe bad\n", "line 2 is not UTF-8"),
        ("a.jsonl", b'{"text": "good"}\n\nnonsense\n', 'line 3 is not a JSON object with a "text"'),
        ("a.jsonl", b'{"texts": "a"}', "line 1 is not a JSON object"),
        ("a.jsonl", b'["a"]', "line 1 is not a JSON object"),
        ("a.jsonl", b'{"text": 3}', "line 1 is not a JSON object"),
        ("a.jsonl", b'{"text": " "}', "line 1 is not a JSON object"),
    ],
)
def test_invalid_file_raises_a_one_line_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(SourceError) as failure:
        read_calibration(file)
    error = str(failure.value)
    assert error.startswith(f"calibration texts {file}: ")
    assert message in error
    assert "\n" not in error


def test_missing_file_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"calibration texts .*: not readable \(No such file or directory\)"):
        read_calibration(tmp_path / "none.txt")
