"""Tokenizer of the reranker, and tokenization of pairs with the official template of Qwen3-Reranker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer

from examples.demo.tasks import BASE_TASK
from examples.demo.tokenizer import end_token_id

YES, NO = "yes", "no"
MAX_BODY_TOKENS = 208
QUERY_LABEL = "\n<Query>:"
DOCUMENT_LABEL = "\n<Document>:"

_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_INSTRUCTION = f"<Instruct>: {BASE_TASK.value}{QUERY_LABEL}"


def reranker_tokenizer(embedding_tokenizer: Tokenizer) -> Tokenizer:
    """Return the embedding model's tokenizer without the end token, with `yes` and `no` as single tokens.

    If necessary, the last merge is replaced; all other ids are unchanged.
    """
    state = json.loads(embedding_tokenizer.to_str())
    _replace_last_merge(state["model"], YES, ("y", "es"))
    state["post_processor"] = state["post_processor"]["processors"][0]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    for word in (YES, NO):
        if len(tokenizer.encode(word).ids) != 1:
            raise ValueError(f"{word!r} is not a single token of this tokenizer: train the base model again")
    return tokenizer


def _replace_last_merge(model: dict[str, list[list[str]] | dict[str, int]], word: str, parts: tuple[str, str]) -> None:
    vocabulary, merges = model["vocab"], model["merges"]
    if not isinstance(vocabulary, dict) or not isinstance(merges, list):
        raise TypeError("the tokenizer is not a BPE tokenizer")
    if word not in vocabulary:
        vocabulary[word] = vocabulary.pop("".join(merges[-1]))
        merges[-1] = list(parts)


@dataclass(frozen=True, slots=True)
class Answers:
    """Token ids of the two answers."""

    yes: int
    no: int


class PairRows:
    """Tokenizes pairs with one instruction to rows after a shared prefix."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._instruction = self.ids(_INSTRUCTION)
        self.prefix = self.ids(_PREFIX) + self._instruction
        self.suffix = self.ids(_SUFFIX)
        self.answers = Answers(self.ids(YES)[0], self.ids(NO)[0])

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    @cached_property
    def added(self) -> frozenset[int]:
        """Ids of the added tokens, which do not occur in the texts of the bag of words."""
        return frozenset(self._tokenizer.get_added_tokens_decoder())

    @cached_property
    def end(self) -> int:
        """Id of the end token, used for padding."""
        return end_token_id(self._tokenizer)

    def rows(self, pairs: Sequence[tuple[str, str]], max_body_tokens: int = MAX_BODY_TOKENS) -> list[list[int]]:
        """Return the ids after `prefix`: query and document, truncated to `max_body_tokens`, and the suffix."""
        texts = [f"{_INSTRUCTION} {query}{DOCUMENT_LABEL} {document}" for query, document in pairs]
        shared = len(self._instruction)
        bodies = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [body.ids[shared : shared + max_body_tokens] + self.suffix for body in bodies]
