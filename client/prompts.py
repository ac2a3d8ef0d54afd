"""Puts the caller's texts into the prompts of a model."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import InvalidInputError, ManifestError
from .manifest import PairPrompts, Prompts, fill_template
from .texts import check_text

_TEXT = "{text}"
_QUERY = "{query}"
_DOCUMENT = "{document}"
_INSTRUCTION = "{instruction}"


def prompt_queries(prompts: Prompts, texts: Sequence[str], instruction: str | None = None) -> list[str]:
    """Each text in the query template; `instruction=None` is the manifest's default instruction.

    Raises InvalidInputError for an instruction where the template takes none, and for none where it needs one.
    """
    return _fill(prompts.query, texts, instruction, prompts.default_instruction)


def prompt_documents(prompts: Prompts, texts: Sequence[str], instruction: str | None = None) -> list[str]:
    """Each text in the document template; as `prompt_queries` otherwise."""
    return _fill(prompts.document, texts, instruction, prompts.default_instruction)


def prompt_pairs(
    prompts: PairPrompts, queries: Sequence[str], documents: Sequence[str], instruction: str | None = None
) -> list[str]:
    """The body of each query and document, without prefix and suffix; as `prompt_queries` otherwise."""
    values = _check(prompts.body, (_QUERY, _DOCUMENT), instruction, prompts.default_instruction)
    pairs = zip(queries, documents, strict=True)
    return [fill_template(prompts.body, query=query, document=document, **values) for query, document in pairs]


def _fill(template: str, texts: Sequence[str], instruction: str | None, default: str | None) -> list[str]:
    values = _check(template, (_TEXT,), instruction, default)
    return [fill_template(template, text=text, **values) for text in texts]


def _check(template: str, places: tuple[str, ...], instruction: str | None, default: str | None) -> dict[str, str]:
    """Return the values that are the same for every text: the instruction, where `template` takes one."""
    if any(template.count(place) != 1 for place in places):
        raise ManifestError(f"the model's prompt {template!r} does not have {' and '.join(places)} exactly once")
    if _INSTRUCTION not in template:
        if instruction is not None:
            raise InvalidInputError(f"instruction: the model's prompt {template!r} takes none, leave it out")
        return {}
    chosen = default if instruction is None else instruction
    if chosen is None:
        raise InvalidInputError(f"instruction: the model's prompt {template!r} needs one and the model has no default")
    return {"instruction": check_text(chosen, "instruction")}
