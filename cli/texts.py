"""Texts from a file or from standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from qwen3_triton.client.errors import InvalidInputError

STANDARD_STREAM = "-"
TEXTS_HELP = (
    "UTF-8 file with one text per line, blank lines included; in a .jsonl each line is a JSON string "
    'or an object with "text". - is standard input.'
)


def read_texts(source: str) -> list[str]:
    """Return the texts of a file, or of standard input for `-`: one per line, without line ends.

    A name that ends with .jsonl holds JSON: each line a string or an object with a string "text".
    Raises InvalidInputError that names the file, and the line where one is to blame.
    """
    try:
        content = sys.stdin.buffer.read() if source == STANDARD_STREAM else Path(source).read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as exc:
        raise InvalidInputError(f"--input: cannot read {source}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"--input: {source} is not UTF-8 at byte {exc.start}: convert it first") from exc
    # str.splitlines would also cut at form feeds and U+2028 inside a text
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    if not source.endswith(".jsonl"):
        return lines
    return [_read_json_text(line, f"--input: {source} line {number}") for number, line in enumerate(lines, 1)]


def _read_json_text(line: str, place: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as exc:
        raise InvalidInputError(f"{place} is not JSON ({exc})") from exc
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise InvalidInputError(f'{place} is neither a JSON string nor an object with a string "text"')
    return text
