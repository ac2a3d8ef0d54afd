"""The reranker's tokenizer, and pairs as token ids in the official template of Qwen3-Reranker."""

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
    """The embedding model's tokenizer, without the end token, in which `yes` and `no` are one token each.

    Its last merge gives way where a word is not one token yet: all other ids stay what they were.
    """
    state = json.loads(embedding_tokenizer.to_str())
    _merge_last(state["model"], YES, ("y", "es"))
    state["post_processor"] = state["post_processor"]["processors"][0]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    for word in (YES, NO):
        if len(tokenizer.encode(word).ids) != 1:
            raise ValueError(f"{word!r} is not one token of this tokenizer: train the demo's base again")
    return tokenizer


def _merge_last(model: dict[str, list[list[str]] | dict[str, int]], word: str, parts: tuple[str, str]) -> None:
    vocabulary, merges = model["vocab"], model["merges"]
    if not isinstance(vocabulary, dict) or not isinstance(merges, list):
        raise TypeError("the tokenizer is no BPE")
    if word not in vocabulary:
        vocabulary[word] = vocabulary.pop("".join(merges[-1]))
        merges[-1] = list(parts)


@dataclass(frozen=True, slots=True)
class Answers:
    """The ids of the two answers."""

    yes: int
    no: int


class PairRows:
    """Rows of the pairs of one instruction: a prefix that all share, and what follows it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._instruction = self.ids(_INSTRUCTION)
        self.prefix = self.ids(_PREFIX) + self._instruction
        self.suffix = self.ids(_SUFFIX)
        self.answers = Answers(self.ids(YES)[0], self.ids(NO)[0])

    def ids(self, text: str) -> list[int]:
        """The ids of one text, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    @cached_property
    def added(self) -> frozenset[int]:
        """The ids of the added tokens, which no text of the bag has."""
        return frozenset(self._tokenizer.get_added_tokens_decoder())

    @cached_property
    def end(self) -> int:
        """The id of the end token, which pads."""
        return end_token_id(self._tokenizer)

    def rows(self, pairs: Sequence[tuple[str, str]], max_body_tokens: int = MAX_BODY_TOKENS) -> list[list[int]]:
        """What follows `prefix`: query and document, cut at `max_body_tokens`, and the suffix."""
        texts = [f"{_INSTRUCTION} {query}{DOCUMENT_LABEL} {document}" for query, document in pairs]
        shared = len(self._instruction)
        bodies = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [body.ids[shared : shared + max_body_tokens] + self.suffix for body in bodies]
