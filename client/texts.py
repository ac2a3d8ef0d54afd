"""What may be sent as a text, and how an error names one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .errors import InvalidInputError

_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts that may be sent: each a str with a UTF-8 form; an empty one is allowed."""

    texts: list[str]
    argument: str
    """What the caller knows them as: `texts`, `documents`, `pairs`."""

    def __len__(self) -> int:
        return len(self.texts)

    def name(self, index: int) -> str:
        """Where a text stands and how it starts: `texts[3] ('import nump…')`."""
        text = self.texts[index]
        start = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
        return f"{self.argument}[{index}] ({start!r})"


def check_texts(texts: Iterable[str], argument: str = "texts") -> Texts:
    """The texts of the caller's `argument`.

    Raises InvalidInputError that names the first one that is no str or holds a lone surrogate.
    """
    if isinstance(texts, str | bytes):
        raise InvalidInputError(f"{argument} is a single string, expected a list of strings: put it in [ ]")
    checked = list(texts)
    for index, text in enumerate(checked):
        check_text(text, f"{argument}[{index}]")
    return Texts(checked, argument)


def check_text(text: object, name: str) -> str:
    """Return `text`; raise InvalidInputError if it is not a str or has a lone surrogate, which has no UTF-8 form."""
    if not isinstance(text, str):
        raise InvalidInputError(f"{name} is of type {type(text).__name__}, expected str")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInputError(
            f"{name} holds a lone surrogate U+{ord(text[exc.start]):04X} at character {exc.start}: "
            "it has no UTF-8 form; decode its source with errors='replace'"
        ) from exc
    return text
