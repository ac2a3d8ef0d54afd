"""Prompt templates of a model."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PLACEHOLDER = re.compile(r"\{(text|query|document|instruction)\}")


def fill_template(template: str, **values: str) -> str:
    """Replace each placeholder `{name}` in `template` with the value of that name.

    Values are inserted in a single pass and never searched themselves, so braces in a text stay literal. Placeholders
    without a value are left unchanged.
    """
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Prompt templates of an embedding model.

    `{text}` is replaced with the caller's text and `{instruction}` with the task description; everything else is
    literal. A template without `{instruction}` takes no instruction.
    """

    query: str
    """Template of a query."""
    document: str
    """Template of a document."""
    default_instruction: str | None
    """Task description if the caller gives none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPrompts:
    """Prompt template of a reranker.

    A row consists of the token ids of `prefix`, the filled `body` and `suffix`, each tokenized separately and without
    the tokenizer's special tokens. If a row is too long, the body is truncated.
    """

    prefix: str
    """Literal text before the body."""
    body: str
    """Template with `{query}`, `{document}` and optionally `{instruction}`; everything else is literal."""
    suffix: str
    """Literal text after the body."""
    default_instruction: str | None
    """Task description if the caller gives none."""
