"""The token ids that all rows of a prompt begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

from ...client.manifest import fill_template

CONTINUATIONS = (
    "",
    "The query",
    "the",
    "a",
    "s",
    "I",
    "x_1",
    "2024",
    "7",
    " two",
    "  two",
    "\n",
    "\n\nNew",
    "\t",
    ".",
    ":",
    ")",
    "?!",
    "-",
    "/",
    '"',
    "'s",
    "<b>",
    "{",
    "#",
    "été",
    "\u0301",
    "где",
    "日本",
    "中文",
    "한국",
    "مرحبا",
    "हिन्दी",
    "ไทย",
    "👍🏽",
)
"""Beginnings of texts of many kinds. The last token of a prompt may merge with the next word, as `:` does in `:The`."""


def common_beginning(rows: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Return the ids that all rows begin with."""
    columns = zip(*rows, strict=False)
    return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))


def prompt_beginnings(
    template: str,
    placeholders: Sequence[str],
    instructions: Iterable[str | None],
    tokenize: Callable[[Sequence[str]], Iterable[Sequence[int]]],
) -> list[tuple[int, ...]]:
    """Return the token ids that all rows of a template begin with; some results may be empty.

    Args:
        template: Template with the placeholders, and `{instruction}` if it takes one.
        placeholders: Names of the placeholders for texts.
        instructions: Each gives a result of its own, besides that of any instruction; None is skipped.
        tokenize: Returns the rows of filled templates.
    """

    def beginning(fill: Callable[[str], dict[str, str]]) -> tuple[int, ...]:
        return common_beginning(tokenize([fill_template(template, **fill(text)) for text in CONTINUATIONS]))

    def of_instruction(instruction: str) -> tuple[int, ...]:
        return beginning(lambda text: dict.fromkeys(placeholders, text) | {"instruction": instruction})

    if "{instruction}" not in template:
        return [beginning(lambda text: dict.fromkeys(placeholders, text))]
    of_any = beginning(lambda instruction: dict.fromkeys(placeholders, "x") | {"instruction": instruction})
    return [of_any, *(of_instruction(instruction) for instruction in instructions if instruction is not None)]
