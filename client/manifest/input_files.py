"""Reading of files that others wrote: regular files only, JSON of bounded size and depth.

Errors are OSError and ValueError; callers name the file and what it is for.
"""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path
from typing import Any

MAX_BYTES = 256 << 20
"""Largest file that is read whole; the tokenizer.json of the largest vocabularies have 35 MB."""
MAX_DEPTH = 64
"""Most levels of arrays and objects; whatever walks through a value recurses as deeply."""
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


def require_regular(file: Path) -> None:
    """Raise OSError unless `file` is a regular file: opening a pipe may wait for ever, and a device may have no end."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(file))


def read_whole(file: Path) -> bytes:
    """Return the content of a regular file of at most MAX_BYTES; raise OSError otherwise."""
    require_regular(file)
    if file.stat().st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {MAX_BYTES >> 20} MiB", str(file))
    return file.read_bytes()


def parse_json(text: str) -> Any:
    """Parse JSON; raise ValueError if it is malformed or nested too deeply."""
    try:
        value = json.loads(text)
    except RecursionError as exc:
        raise ValueError(_TOO_DEEP) from exc
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError(_TOO_DEEP)
    return value


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(child, levels - 1) for child in children)


def read_json_file(file: Path) -> Any:
    """Return the JSON value in a file in UTF-8; raise OSError or ValueError if there is none."""
    return parse_json(read_whole(file).decode("utf-8"))


def describe_error(error: OSError | ValueError) -> str:
    """Return what is wrong, without the number of the error and the name of the file."""
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)
