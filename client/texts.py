"""What may be sent as a text, and how an error names one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .errors import BadInput

_SHOWN_CHARACTERS = 40


def check_texts(texts: Iterable[str]) -> list[str]:
    """The texts as a list, each a str with a UTF-8 form; an empty text is allowed.

    Raises BadInput that names the first text that is no str or holds a lone surrogate.
    """
    if isinstance(texts, str | bytes):
        raise BadInput("texts is one string, a list of strings is wanted: put it in [ ]")
    checked = list(texts)
    for index, text in enumerate(checked):
        if not isinstance(text, str):
            raise BadInput(f"texts[{index}] is of type {type(text).__name__}, a str is wanted")
        check_unicode(text, f"texts[{index}]")
    return checked


def check_unicode(text: str, name: str) -> None:
    """Nothing; raises BadInput where `text` holds a lone surrogate, which no tokenizer was trained on."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise BadInput(
            f"{name} holds a lone surrogate U+{ord(text[exc.start]):04X} at character {exc.start}: "
            "it has no UTF-8 form; decode its source with errors='replace'"
        ) from exc


def name_text(texts: Sequence[str], index: int) -> str:
    """Where a text stands and how it starts: `texts[3] ('import nump…')`."""
    text = texts[index]
    start = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return f"texts[{index}] ({start!r})"
