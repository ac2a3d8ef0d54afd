"""Prompts of a manifest: templates of a reranker, and the default instruction."""

from __future__ import annotations

import dataclasses

from ...client.manifest import PairPrompts, Prompts
from ..errors import ExportError
from ..options import PairTemplate

RERANK_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
RERANK_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
"""Prefix and suffix of every Qwen3-Reranker prompt (model card)."""

_FIELDS = ("<Instruct>: {instruction}", "<Query>: {query}", "<Document>: {document}")
_GAPS = {PairTemplate.LINE: "\n", PairTemplate.BLANK_LINE: "\n\n"}


def rerank_prompts(template: PairTemplate, default_instruction: str) -> PairPrompts:
    """Return Qwen3-Reranker's prompts (model card) with `template` as the separator."""
    body = _GAPS[template].join(_FIELDS)
    return PairPrompts(prefix=RERANK_PREFIX, body=body, suffix=RERANK_SUFFIX, default_instruction=default_instruction)


def override_templates(prompts: Prompts, query: str | None, document: str | None) -> Prompts:
    """Return `prompts` with other templates; None keeps one.

    Raises ExportError for a template without `{text}`, and for an instruction in the document template.
    """
    for name, template in (("query", query), ("document", document)):
        if template is not None and "{text}" not in template:
            raise ExportError(f"the {name} template {template!r} has no {{text}}, where the text is inserted")
    if document is not None and "{instruction}" in document:
        raise ExportError("the document template must not have {instruction}: documents take none")
    if query is not None:
        keeps = "{instruction}" in query
        prompts = dataclasses.replace(
            prompts, query=query, default_instruction=(prompts.default_instruction or "") if keeps else None
        )
    return prompts if document is None else dataclasses.replace(prompts, document=document)


def override_instruction(prompts: Prompts, instruction: str | None) -> Prompts:
    """Replace the default instruction of `prompts`, unless `instruction` is None.

    Raises:
        ExportError: The query prompt has no instruction.
    """
    if instruction is None:
        return prompts
    if "{instruction}" not in prompts.query:
        raise ExportError(
            "the query prompt has no place for an instruction; leave the instruction out, or pass a query template "
            "with {instruction} and {text}"
        )
    return dataclasses.replace(prompts, default_instruction=instruction)
