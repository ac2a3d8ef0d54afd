"""The prompt of a model around the caller's texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .contract import PairPrompts, Prompts
from .errors import BadInput, ContractMismatch
from .texts import check_text

_TEXT = "{text}"
_QUERY = "{query}"
_DOCUMENT = "{document}"
_INSTRUCTION = "{instruction}"


def prompt_queries(prompts: Prompts, texts: Sequence[str], instruction: str | None = None) -> list[str]:
    """Each text in the query template; `instruction=None` is the contract's default instruction.

    Raises BadInput for an instruction where the template takes none, and for none where it needs one.
    """
    return _fill(prompts.query, texts, instruction, prompts.default_instruction)


def prompt_documents(prompts: Prompts, texts: Sequence[str], instruction: str | None = None) -> list[str]:
    """Each text in the document template; as `prompt_queries` otherwise."""
    return _fill(prompts.document, texts, instruction, prompts.default_instruction)


def prompt_pairs(
    prompts: PairPrompts, queries: Sequence[str], documents: Sequence[str], instruction: str | None = None
) -> list[str]:
    """The body of each query and document, without prefix and suffix; as `prompt_queries` otherwise."""
    pieces = _split(prompts.body, (_QUERY, _DOCUMENT))
    before, between, after = _insert_instruction(pieces, prompts.body, instruction, prompts.default_instruction)
    pairs = zip(queries, documents, strict=True)
    if prompts.body.index(_QUERY) < prompts.body.index(_DOCUMENT):
        return [before + query + between + document + after for query, document in pairs]
    return [before + document + between + query + after for query, document in pairs]


def _fill(template: str, texts: Sequence[str], instruction: str | None, default: str | None) -> list[str]:
    head, tail = _insert_instruction(_split(template, (_TEXT,)), template, instruction, default)
    return [head + text + tail for text in texts]


def _split(template: str, places: tuple[str, ...]) -> list[str]:
    """What stands around the places in a template, which is one piece more than there are places."""
    if any(template.count(place) != 1 for place in places):
        raise ContractMismatch(f"the model's prompt {template!r} does not hold {' and '.join(places)} exactly once")
    # the texts come last and are never searched, so braces in them stay what they are
    return re.split("|".join(map(re.escape, places)), template)


def _insert_instruction(pieces: list[str], template: str, instruction: str | None, default: str | None) -> list[str]:
    if _INSTRUCTION not in template:
        if instruction is not None:
            raise BadInput(f"instruction: the model's prompt {template!r} takes none, leave it out")
        return pieces
    chosen = default if instruction is None else instruction
    if chosen is None:
        raise BadInput(f"instruction: the model's prompt {template!r} needs one and the model has no default")
    check_text(chosen, "instruction")
    return [piece.replace(_INSTRUCTION, chosen) for piece in pieces]
