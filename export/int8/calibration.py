"""Calibration texts, and held-out texts that the result is evaluated with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ...client.manifest.input_files import describe_error, parse_json, require_regular
from ..errors import SourceError

BUILT_IN = "built-in"
"""Reference of the calibration texts in this package."""
CALIBRATION_TOKENS = 8192
"""Most tokens of calibration. More tokens take longer and do not change the result."""
LONGEST_ROW = 512
"""Longest row of calibration and held-out texts in tokens."""
_TEXTS = "texts"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTexts:
    """Texts and their origin."""

    texts: tuple[str, ...]
    reference: str
    """BUILT_IN, or the path as given."""
    sha256: str
    """SHA-256 of the file."""


def read_calibration(file: Path | None) -> CalibrationTexts:
    """Read the texts of `file`; None reads the built-in ones: several scripts, code, questions and passages.

    A `.jsonl` or `.json` file has a JSON object with `text` on each line, any other file a text on each line. Blank
    lines are skipped.

    Raises:
        SourceError: The file cannot be read, has no text, or has an invalid line, which the message names.
    """
    if file is None:
        return _parse(_built_in("calibration.jsonl"), BUILT_IN, as_json=True)
    try:
        require_regular(file)
        content = file.read_bytes()
    except OSError as exc:
        raise SourceError(f"calibration texts {file}: not readable ({describe_error(exc)})") from exc
    return _parse(content, str(file), as_json=file.suffix in (".jsonl", ".json"))


def subsample(rows: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
    """Select evenly spaced `rows` of token ids, about `max_tokens` tokens in total."""
    total = sum(map(len, rows))
    if total <= max_tokens:
        return list(rows)
    count = max(1, len(rows) * max_tokens // total)
    return [rows[index * len(rows) // count] for index in range(count)]


def held_out_texts() -> tuple[str, ...]:
    """Return texts that calibration does not use."""
    return _parse(_built_in("held_out.jsonl"), BUILT_IN, as_json=True).texts


def _built_in(name: str) -> bytes:
    return resources.files(__package__).joinpath(_TEXTS, name).read_bytes()


def _parse(content: bytes, reference: str, *, as_json: bool) -> CalibrationTexts:
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise SourceError(f"calibration texts {reference}: line {line} is not UTF-8") from exc
    numbered = [(number, line.rstrip("\r")) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise SourceError(f"calibration texts {reference}: has no texts; give one text per line")
    texts = tuple(_text_of(line, number, reference) if as_json else line for number, line in numbered)
    return CalibrationTexts(texts=texts, reference=reference, sha256=hashlib.sha256(content).hexdigest())


def _text_of(line: str, number: int, reference: str) -> str:
    try:
        value = parse_json(line)
        text = value.get("text") if isinstance(value, dict) else None
    except ValueError:
        text = None
    if not isinstance(text, str) or not text.strip():
        raise SourceError(
            f'calibration texts {reference}: line {number} is not a JSON object with a "text"; '
            'each line must be one, such as {"text": "how do I sort a list?"}'
        )
    return text
