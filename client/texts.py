"""Validation of texts, and how error messages refer to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .errors import InvalidInputError

_SHOWN_CHARACTERS = 40

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Texts:
    """Validated texts: every text is a str that UTF-8 can encode; a text may be empty."""

    texts: list[str]
    argument: str
    """Name of the caller's argument: `texts`, `documents` or `pairs`."""
    first: int = 0
    """Position of the first text in the caller's argument."""

    def __len__(self) -> int:
        return len(self.texts)

    def describe(self, index: int) -> str:
        """Return a text's position and beginning, as in `texts[3] ('import nump…')`."""
        text = self.texts[index]
        start = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
        return f"{self.argument}[{self.first + index}] ({start!r})"


def check_texts(texts: Iterable[str], argument: str = "texts", first: int = 0) -> Texts:
    """Validate the texts of the caller's `argument`, from position `first` on.

    Raises:
        InvalidInputError: A text is not a str or contains a lone surrogate; the message names the first such text.
    """
    if isinstance(texts, str | bytes):
        raise InvalidInputError(f"{argument} is a single string, expected a list of strings: wrap it in [ ]")
    checked = list(texts)
    for index, text in enumerate(checked, first):
        check_text(text, f"{argument}[{index}]")
    return Texts(checked, argument, first)


def repeatable(texts: Iterable[T]) -> Iterable[T]:
    """Return `texts`, or a list of them if they can be read only once."""
    return texts if isinstance(texts, str | bytes | Sequence) else list(texts)


def count_characters(texts: object) -> int:
    """Return the number of characters in a list of texts, or of pairs of texts; other elements count as none."""
    if not isinstance(texts, Sequence):
        return 0
    parts = (part for element in texts for part in (element if isinstance(element, tuple | list) else (element,)))
    return sum(len(part) for part in parts if isinstance(part, str))


def check_text(text: object, name: str) -> str:
    """Return `text`; raise InvalidInputError if it is not a str or contains a lone surrogate."""
    if not isinstance(text, str):
        raise InvalidInputError(f"{name} is of type {type(text).__name__}, expected str")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInputError(
            f"{name} contains a lone surrogate U+{ord(text[exc.start]):04X} at character {exc.start}, "
            "which UTF-8 cannot encode: decode the source with errors='replace'"
        ) from exc
    return text
