"""Other programs' messages as reasons that a record can hold."""

from __future__ import annotations

import re

_PATH = re.compile(r"(?:\w+://|(?<![\w.])/)\S+")
_MOST, _HEAD = 240, 80
_GAP = " … "


def public_reason(message: str) -> str:
    """`message` without paths and addresses; of a long one the beginning, and the end, which often tells why."""
    text = _PATH.sub("<path>", " ".join(message.split()))
    if len(text) <= _MOST:
        return text
    return f"{text[:_HEAD].rstrip()}{_GAP}{text[-(_MOST - _HEAD - len(_GAP)) :].lstrip()}"
