"""Texts that smoothing is measured on, and others that show how well it did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ..errors import SourceError

BUILT_IN = "built-in"
"""Reference of this project's own calibration texts."""
CALIBRATION_TOKENS = 8192
"""Most tokens that calibration takes: more change nothing but its time."""
LONGEST_ROW = 512
"""Longest row of calibration and of held-out texts, tokens."""
_TEXTS = "texts"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTexts:
    """Texts and where they came from."""

    texts: tuple[str, ...]
    reference: str
    """BUILT_IN, or the file as given."""
    sha256: str
    """Of the file's bytes."""


def read_calibration(file: Path | None) -> CalibrationTexts:
    """The texts of `file`, or this project's own where None: several scripts, code, questions and passages.

    A `.jsonl` or `.json` file holds one object a line whose `text` is the text, any other file one text a line; blank
    lines are skipped. Raises SourceError, which names the line, where one is not that.
    """
    if file is None:
        return _parse(_built_in("calibration.jsonl"), BUILT_IN, as_json=True)
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise SourceError(f"calibration texts {file}: not readable ({exc.strerror})") from exc
    return _parse(content, str(file), as_json=file.suffix in (".jsonl", ".json"))


def spread(rows: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
    """Rows of ids from the whole of `rows`, evenly, with no more than about `max_tokens` tokens in all."""
    total = sum(map(len, rows))
    if total <= max_tokens:
        return list(rows)
    wanted = max(1, len(rows) * max_tokens // total)
    return [rows[index * len(rows) // wanted] for index in range(wanted)]


def held_out_texts() -> tuple[str, ...]:
    """Texts that no smoothing has seen."""
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
        value = json.loads(line)
        text = value.get("text") if isinstance(value, dict) else None
    except ValueError:
        text = None
    if not isinstance(text, str) or not text.strip():
        raise SourceError(
            f'calibration texts {reference}: line {number} is not a JSON object with a "text"; '
            'each line must be one, such as {"text": "how do I sort a list?"}'
        )
    return text
