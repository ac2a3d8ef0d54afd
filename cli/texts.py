"""Reading of texts from a file or standard input."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from qwen3_triton.client.errors import InvalidInputError
from qwen3_triton.client.manifest.input_files import describe_error, parse_json

STANDARD_STREAM = "-"
TEXTS_HELP = (
    "UTF-8 file with one text per line, including blank lines; in a .jsonl or .ndjson file, each line is JSON "
    "(see --json-lines). - for standard input."
)


JSON_LINES_HELP = (
    'Each line of the input is a JSON string, or an object with a string "text", whatever the name of the file.'
)


def read_texts(source: str, *, json_lines: bool = False) -> list[str]:
    """Read one text per line from a file, or from standard input for `-`.

    In a file whose name ends with .jsonl or .ndjson, or with `json_lines`, each line is a JSON string or an object
    with a string "text".

    Raises:
        InvalidInputError: The file cannot be read, is not UTF-8, or has an invalid line; the message says which.
    """
    try:
        content = sys.stdin.buffer.read() if source == STANDARD_STREAM else _read_file(Path(source))
        text = content.decode("utf-8-sig")
    except OSError as exc:
        raise InvalidInputError(f"--input: cannot read {source}: {describe_error(exc)}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"--input: {source} is not UTF-8 at byte {exc.start}: convert it to UTF-8") from exc
    # str.splitlines would also split at form feeds and U+2028 inside a text
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    if not json_lines and not source.endswith((".jsonl", ".ndjson")):
        return lines
    return [_read_json_text(line, f"--input: {source} line {number}") for number, line in enumerate(lines, 1)]


def _read_file(file: Path) -> bytes:
    """Return the content of a file or a pipe, but not of a device, which may have no end."""
    if (file.is_char_device() or file.is_block_device()) and not file.samefile(os.devnull):
        raise OSError(errno.EINVAL, f"a device, not a file or a pipe; {STANDARD_STREAM} is standard input", str(file))
    return file.read_bytes()


def _read_json_text(line: str, place: str) -> str:
    try:
        value = parse_json(line)
    except ValueError as exc:
        raise InvalidInputError(f"{place} is not JSON ({exc})") from exc
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise InvalidInputError(f'{place} is neither a JSON string nor an object with a string "text"')
    return text
