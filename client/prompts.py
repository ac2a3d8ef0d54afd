"""Insertion of texts and instructions into a model's prompt templates."""

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
    """Insert each text into the query template.

    Args:
        prompts: Templates of the model.
        texts: Queries.
        instruction: Task description; None for the model's default.

    Raises:
        InvalidInputError: An instruction is given but the template takes none, or the template needs one and neither
            the caller nor the model provides it.
        ManifestError: The template is invalid.
    """
    return _fill(prompts.query, texts, instruction, prompts.default_instruction)


def prompt_documents(prompts: Prompts, texts: Sequence[str], instruction: str | None = None) -> list[str]:
    """Insert each text into the document template; otherwise like `prompt_queries`."""
    return _fill(prompts.document, texts, instruction, prompts.default_instruction)


def prompt_pairs(
    prompts: PairPrompts, queries: Sequence[str], documents: Sequence[str], instruction: str | None = None
) -> list[str]:
    """Insert each pair into the body template, without prefix and suffix; otherwise like `prompt_queries`."""
    values = _instruction_values(prompts.body, (_QUERY, _DOCUMENT), instruction, prompts.default_instruction)
    pairs = zip(queries, documents, strict=True)
    return [fill_template(prompts.body, query=query, document=document, **values) for query, document in pairs]


def prompt_before_document(prompts: PairPrompts, query: str, instruction: str | None) -> str:
    """Return the body up to the document; empty if the template has the document before the query."""
    before = prompts.body.partition(_DOCUMENT)[0]
    if _QUERY not in before:
        return ""
    values = _instruction_values(prompts.body, (_QUERY, _DOCUMENT), instruction, prompts.default_instruction)
    return fill_template(before, query=query, **values)


def _fill(template: str, texts: Sequence[str], instruction: str | None, default: str | None) -> list[str]:
    values = _instruction_values(template, (_TEXT,), instruction, default)
    return [fill_template(template, text=text, **values) for text in texts]


def _instruction_values(
    template: str, required: tuple[str, ...], instruction: str | None, default: str | None
) -> dict[str, str]:
    """Check the placeholders and return the values that all texts share: the instruction, if `template` takes one."""
    if any(template.count(placeholder) != 1 for placeholder in required):
        raise ManifestError(
            f"the model's prompt {template!r} does not contain {' and '.join(required)} exactly once: export it again"
        )
    if _INSTRUCTION not in template:
        if instruction is not None:
            raise InvalidInputError(f"instruction: the model's prompt {template!r} takes no instruction; omit it")
        return {}
    chosen = default if instruction is None else instruction
    if chosen is None:
        raise InvalidInputError(
            f"instruction: the model's prompt {template!r} needs an instruction and the model has no default; pass one"
        )
    return {"instruction": check_text(chosen, "instruction")}
