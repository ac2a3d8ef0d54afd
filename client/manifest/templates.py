"""Prompt templates of a model, and how they are filled."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PLACEHOLDER = re.compile(r"\{(text|query|document|instruction)\}")


def fill_template(template: str, **values: str) -> str:
    """Return `template` with each placeholder `{name}` replaced by the value of that name.

    Values are inserted in one pass and never searched, so braces in a caller's text stay what they are. Placeholders
    without a value stay too.
    """
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Text around a query and around a document.

    `{text}` stands for the caller's text and `{instruction}` for the task description; everything else
    is literal. A template without `{instruction}` takes none.
    """

    query: str
    document: str
    default_instruction: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPrompts:
    """Text around a query and a document that a reranker judges together.

    `body` holds `{query}` and `{document}` and may hold `{instruction}`; everything else is literal. A row is the
    token ids of `prefix`, of the filled body and of `suffix`, each tokenised by itself without special
    tokens of the tokenizer's own. The body is cut where a row gets too long, the suffix never.
    """

    prefix: str
    body: str
    suffix: str
    default_instruction: str | None
