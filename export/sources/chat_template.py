"""A reranker's own chat template as prefix, body and suffix, where both give the same token ids.

sentence-transformers renders a pair as messages of the roles `query` and `document`, and an instruction as one of the
role `system`. A template that knows these roles replaces Qwen3-Reranker's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from ...client.manifest import PairPrompts, fill_template
from ..errors import UnsupportedCheckpointError
from .probe_texts import PROBE_PAIRS

_QUERY, _DOCUMENT, _INSTRUCTION = "QUERY-7f3a", "DOCUMENT-7f3a", "INSTRUCTION-7f3a"
"""Placeholders that no template contains."""


def states_pair_template(template: str | None) -> bool:
    """Whether a chat template renders a query and a document; stock templates know neither role."""
    return template is not None and "query" in template and "document" in template


def read_pair_prompts(official: Any, plain: Tokenizer, instruction: str | None, where: str) -> PairPrompts:
    """Return the prompts that render pairs as the tokenizer's chat template does.

    Args:
        official: The transformers tokenizer with the template.
        plain: The same tokenizer, as clients read it.
        instruction: Default instruction; None if the model has none.
        where: Name of the checkpoint in errors.

    Raises:
        UnsupportedCheckpointError: The template cannot be split, or gives other token ids than its parts.
    """

    def refuse(reason: str) -> UnsupportedCheckpointError:
        return UnsupportedCheckpointError(
            f"{where}: its chat template {reason}, so it cannot be exported; use a template that inserts query and "
            "document once, in this order"
        )

    try:
        text = _render(official, _QUERY, _DOCUMENT, None if instruction is None else _INSTRUCTION)
    except Exception as exc:
        raise refuse(f"fails for messages of the roles query and document ({exc})") from exc
    if text.count(_QUERY) != 1 or text.count(_DOCUMENT) != 1 or text.index(_QUERY) > text.index(_DOCUMENT):
        raise refuse("does not insert query and document once each, in this order")
    if text.count(_INSTRUCTION) > 1:
        raise refuse("inserts the instruction more than once")
    prompts = _split(text, _special_tokens(plain), instruction)
    for query, document in PROBE_PAIRS:
        rendered = official(_render(official, query, document, instruction), add_special_tokens=False)["input_ids"]
        if list(map(int, rendered)) != _ids(plain, prompts, query, document):
            raise refuse(f"gives other token ids than its parts for the query {query!r}")
    return prompts


def _render(official: Any, query: str, document: str, instruction: str | None) -> str:
    messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
    if instruction is not None:
        messages.insert(0, {"role": "system", "content": instruction})
    text: str = official.apply_chat_template(messages, tokenize=False)
    return text


def _special_tokens(plain: Tokenizer) -> list[str]:
    """Tokens that are never joined with their neighbours, so that a text may be split beside them."""
    return [token.content for token in plain.get_added_tokens_decoder().values() if token.special]


def _split(text: str, special: Sequence[str], instruction: str | None) -> PairPrompts:
    """Cut before the first placeholder and after the document, each at the nearest special token."""
    places = [text.index(mark) for mark in (_QUERY, _INSTRUCTION) if mark in text]
    start, end = min(places), text.index(_DOCUMENT) + len(_DOCUMENT)
    before = [text.rindex(token, 0, start) + len(token) for token in special if token in text[:start]]
    after = [text.index(token, end) for token in special if token in text[end:]]
    cut, stop = max(before, default=0), min(after, default=len(text))
    body = text[cut:stop]
    for mark, name in ((_QUERY, "{query}"), (_DOCUMENT, "{document}"), (_INSTRUCTION, "{instruction}")):
        body = body.replace(mark, name)
    has_instruction = "{instruction}" in body
    return PairPrompts(
        prefix=text[:cut],
        body=body,
        suffix=text[stop:],
        default_instruction=instruction if has_instruction else None,
    )


def _ids(plain: Tokenizer, prompts: PairPrompts, query: str, document: str) -> list[int]:
    body = fill_template(prompts.body, query=query, document=document, instruction=prompts.default_instruction or "")
    parts = (prompts.prefix, body, prompts.suffix)
    return [id_ for part in parts for id_ in plain.encode(part, add_special_tokens=False).ids]
