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


def override_instruction(prompts: Prompts, instruction: str | None) -> Prompts:
    """Replace the default instruction of `prompts`, unless `instruction` is None.

    Raises:
        ExportError: The query prompt has no instruction.
    """
    if instruction is None:
        return prompts
    if "{instruction}" not in prompts.query:
        raise ExportError("the checkpoint's query prompt has no place for an instruction; do not set one")
    return dataclasses.replace(prompts, default_instruction=instruction)
