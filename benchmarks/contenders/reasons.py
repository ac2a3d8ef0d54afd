"""Error messages of other programs, cleaned for a record."""

from __future__ import annotations

import re

_PATH = re.compile(r"(?:\w+://|(?<![\w.])/)\S+")
_MAX_LENGTH, _HEAD = 240, 80
_GAP = " … "


def public_reason(message: str) -> str:
    """Return `message` on one line without paths and URLs, shortened in the middle if it is long."""
    text = _PATH.sub("<path>", " ".join(message.split()))
    if len(text) <= _MAX_LENGTH:
        return text
    # the cause is usually at the end
    return f"{text[:_HEAD].rstrip()}{_GAP}{text[-(_MAX_LENGTH - _HEAD - len(_GAP)) :].lstrip()}"
