"""What a model wants around the texts that it judges."""

from __future__ import annotations

from dataclasses import dataclass


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
