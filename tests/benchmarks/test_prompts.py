"""The ids of the default prompts are those of the rows that the client sends."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks.prompts import (
    PAIR_PREFIX,
    PAIR_SEPARATOR,
    PAIR_SUFFIX,
    QUERY_PREFIX,
    QUERY_PREFIX_TOKENS,
    fit_vocabulary,
)
from qwen3_triton.client import Prompts
from qwen3_triton.client.prompts import prompt_pairs, prompt_queries
from qwen3_triton.client.texts import check_texts
from qwen3_triton.client.tokenization import RowTokenizer, make_pair_tokenizer
from qwen3_triton.export import PairTemplate
from qwen3_triton.export.sources.sentence_transformers import DEFAULT_INSTRUCTION, QUERY_TEMPLATE
from qwen3_triton.export.tasks.prompts import rerank_prompts

_QWEN3 = Path(__file__).parents[3] / "shared" / "tokenizers" / "qwen3" / "tokenizer.json"
_END_TOKEN_ID = 151_643
needs_tokenizer = pytest.mark.skipif(not _QWEN3.exists(), reason=f"no {_QWEN3}")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(_QWEN3))


@needs_tokenizer
def test_queries_begin_with_the_ids_of_their_prompt(tokenizer: Tokenizer) -> None:
    texts = ["what is a token", "Tokyo", "1984", " a space", "\nline breaks", '"quoted"']
    prompts = Prompts(query=QUERY_TEMPLATE, document="{text}", default_instruction=DEFAULT_INSTRUCTION)
    rows = RowTokenizer(tokenizer=tokenizer, end_token_id=_END_TOKEN_ID, max_tokens=99).tokenize(
        prompt_queries(prompts, texts), check_texts(texts).describe, truncate=False
    )
    found = [tuple(rows.row(index).tolist()) for index in range(len(texts))]
    assert {row[:QUERY_PREFIX_TOKENS] for row in found} == {QUERY_PREFIX[:QUERY_PREFIX_TOKENS]}
    assert {row[: len(QUERY_PREFIX)] for row in found[:4]} == {QUERY_PREFIX}
    assert found[4][: len(QUERY_PREFIX)] != QUERY_PREFIX


@needs_tokenizer
def test_pairs_have_the_ids_of_their_prompt_around_query_and_document(tokenizer: Tokenizer) -> None:
    prompts = rerank_prompts(PairTemplate.LINE, DEFAULT_INSTRUCTION)
    pairs = make_pair_tokenizer(tokenizer, prompts.prefix, prompts.suffix, 199)
    query, document = "what is a token", "A token is a part of a text."
    bodies = prompt_pairs(prompts, [query], [document])
    row = tuple(pairs.tokenize(bodies, check_texts([document]).describe, lambda _: "", truncate=False).row(0).tolist())
    inner = [tokenizer.encode(f" {text}", add_special_tokens=False).ids for text in (query, document)]
    assert row == (*PAIR_PREFIX, *inner[0], *PAIR_SEPARATOR, *inner[1], *PAIR_SUFFIX)
    assert len(PAIR_PREFIX) == 60


def test_ids_fit_the_vocabulary_without_id_0() -> None:
    assert fit_vocabulary(PAIR_PREFIX, 151_669) == list(PAIR_PREFIX)
    reduced = fit_vocabulary(PAIR_PREFIX, 512)
    assert 1 <= min(reduced) <= max(reduced) < 512
