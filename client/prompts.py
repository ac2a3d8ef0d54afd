"""The prompt of a model around the caller's texts."""

from __future__ import annotations

from collections.abc import Sequence

from .contract import Prompts
from .errors import BadInput, ContractMismatch
from .texts import check_unicode

_TEXT = "{text}"
_INSTRUCTION = "{instruction}"


def prompt_queries(prompts: Prompts, texts: Sequence[str], instruction: str | None = None) -> list[str]:
    """Each text in the query template; `instruction=None` is the contract's default instruction.

    Raises BadInput for an instruction where the template takes none, and for none where it needs one.
    """
    return _fill(prompts.query, texts, instruction, prompts.default_instruction)


def prompt_documents(prompts: Prompts, texts: Sequence[str], instruction: str | None = None) -> list[str]:
    """Each text in the document template; as `prompt_queries` otherwise."""
    return _fill(prompts.document, texts, instruction, prompts.default_instruction)


def _fill(template: str, texts: Sequence[str], instruction: str | None, default: str | None) -> list[str]:
    pieces = template.split(_TEXT)
    if len(pieces) != 2:
        raise ContractMismatch(f"the model's prompt {template!r} does not hold {_TEXT} exactly once")
    # the texts come last and are never searched, so braces in them stay what they are
    head, tail = _insert_instruction(pieces, template, instruction, default)
    return [head + text + tail for text in texts]


def _insert_instruction(pieces: list[str], template: str, instruction: str | None, default: str | None) -> list[str]:
    if _INSTRUCTION not in template:
        if instruction is not None:
            raise BadInput(f"instruction: the model's prompt {template!r} takes none, leave it out")
        return pieces
    chosen = default if instruction is None else instruction
    if chosen is None:
        raise BadInput(f"instruction: the model's prompt {template!r} needs one and the model has no default")
    if not isinstance(chosen, str):
        raise BadInput(f"instruction is of type {type(chosen).__name__}, a str is wanted")
    check_unicode(chosen, "instruction")
    return [piece.replace(_INSTRUCTION, chosen) for piece in pieces]
