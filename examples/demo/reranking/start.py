"""Initialization of the reranker with weights that find common words and compare two bags of words.

From random weights, a model this small needs far more pairs to learn that a word of the document also occurs in the
query. So initially the first layer marks query and document, the second looks up each word of the document in the
query, and the last compares the mean embeddings of query and document. Training continues from there.

Components of the hidden state: 0…119 a bag-of-words embedding, 120…151 a code of the token's letters, 152…239 unused,
and from 240 one component for each flag below.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm
from transformers import Qwen3ForCausalLM

from examples.demo.bag import scale_rows
from examples.demo.reranking.model import HEAD_DIM, HIDDEN_SIZE
from examples.demo.reranking.tokens import DOCUMENT_LABEL, QUERY_LABEL, PairRows
from examples.demo.reranking.words import TokenWords

BAG_SIZE = 120
_CODE = range(120, 152)
_CONSTANT, _QUERY_MARK, _DOCUMENT_MARK, _SINK_MARK, _IN_DOCUMENT, _IN_QUERY, _FOUND, _NEAR, _WEIGHT, _SCORE = range(
    240, 250
)
# components whose rotary angles change so slowly that positions do not matter; component i is paired with i + 32
_SLOW = [*range(14, 30), *range(46, 62)]
_FLAG_A, _FLAG_B, _FLAG_C, _FLAG_D = 31, 63, 30, 62
_RMS = 0.3
_FLAG = 2.0
_MARK = 6.0


@torch.no_grad()
def initialize_as_matcher(model: Qwen3ForCausalLM, bag: Tensor, words: TokenWords, pairs: PairRows) -> None:
    """Set the weights from `bag` [rows, 120]; the length of a row is the weight of its token."""
    layers: Any = model.model.layers
    for layer in layers:
        # other heads and the MLP contribute nothing until training changes them
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    _set_embeddings(model.model.embed_tokens.weight, bag, words, pairs)
    _mark_sides(layers[0].self_attn, model.model.embed_tokens.weight, pairs)
    _find_words(layers[1].self_attn, bag)
    _pool_sides(layers[2].self_attn)
    _compare_sides(layers[2].mlp)


def _set_embeddings(table: Tensor, bag: Tensor, words: TokenWords, pairs: PairRows) -> None:
    lengths = bag.norm(dim=1, keepdim=True).clamp_min(1e-3)
    table.normal_(std=0.1)
    table[:, :BAG_SIZE] = bag / lengths * BAG_SIZE**0.5
    table[:, _CODE.start : _CODE.stop] = _letter_codes(words)
    table[:, 240:] = 0
    table[:, _CONSTANT] = _FLAG
    weights = lengths[:, 0].log()
    table[:, _WEIGHT] = (weights - weights.mean()).clamp(-2, 2)
    # tokens of the template belong to neither text, and the last token collects the result
    template = {*pairs.suffix, *pairs.ids(QUERY_LABEL), *pairs.ids(DOCUMENT_LABEL)}
    ignored = [token for token in template if words.of_letters[token] or token in pairs.added]
    table[ignored, :_CONSTANT] = 0
    table[ignored, _WEIGHT] = -2
    table[pairs.suffix[-1], :_CONSTANT] = 0
    for token, mark in (
        (_rarest_token(QUERY_LABEL, pairs), _QUERY_MARK),
        (_rarest_token(DOCUMENT_LABEL, pairs), _DOCUMENT_MARK),
        (pairs.prefix[0], _SINK_MARK),
    ):
        table[token, mark] = _MARK
    table.mul_(_RMS)
    table[pairs.answers.yes] = table[pairs.answers.no]
    table[pairs.answers.yes, _SCORE] += 0.6


def _letter_codes(words: TokenWords) -> Tensor:
    """Return random codes [V, 32], rows of RMS 1; equal for forms of a word, similar for words with similar letters."""
    exact = nn.functional.normalize(torch.randn(words.word_count, len(_CODE)), dim=1)[words.words]
    similar = torch.sparse.mm(words.grams, torch.randn(words.grams.shape[1], len(_CODE)))
    codes = exact + nn.functional.normalize(similar, dim=1)
    return scale_rows(codes)


def _rarest_token(label: str, pairs: PairRows) -> int:
    """Return the token of the label that occurs least in the prefix."""
    return min(pairs.ids(label), key=pairs.prefix.count)


def _mark_sides(attention: Any, table: Tensor, pairs: PairRows) -> None:
    """Two heads attend to the label of query or document, or to the first token if there is none, and write a flag."""
    key, query, value, output = _head_weights(attention, 2, (4, 5))
    attention.q_norm.weight[[_FLAG_A, _FLAG_B, _FLAG_C, _FLAG_D]] = 5.0
    key[_FLAG_A, _DOCUMENT_MARK] = key[_FLAG_B, _QUERY_MARK] = key[_FLAG_C, _SINK_MARK] = 3.0
    key[_FLAG_D, _CONSTANT] = 1.0
    sides = ((_FLAG_A, _DOCUMENT_MARK, _IN_DOCUMENT), (_FLAG_B, _QUERY_MARK, _IN_QUERY))
    for side, (flag, mark, written) in enumerate(sides):
        query[side][flag, _CONSTANT], query[side][_FLAG_C, _CONSTANT] = 1.0, 0.6
        token = _rarest_token(DOCUMENT_LABEL if side == 0 else QUERY_LABEL, pairs)
        value[side, mark] = 1 / rms_norm(table[token], (HIDDEN_SIZE,))[mark]
        output[side][written, side] = _FLAG * _RMS
    value[2, _SINK_MARK] = 1 / rms_norm(table[pairs.prefix[0]], (HIDDEN_SIZE,))[_SINK_MARK]
    output[0][_IN_DOCUMENT, 2] = output[1][_IN_QUERY, 2] = -_FLAG * _RMS


def _find_words(attention: Any, bag: Tensor) -> None:
    """One key head attends to the same word in the query, another to a related word, or else to the first token."""
    unit = nn.functional.normalize(bag, dim=1)
    main = torch.linalg.eigh((unit - unit.mean(0)).T @ (unit - unit.mean(0)))[1][:, -len(_SLOW) :]
    scales = ((unit - unit.mean(0)) @ main).std(0)
    code = torch.zeros(len(_SLOW), HIDDEN_SIZE)
    code[range(len(_SLOW)), list(_CODE)] = 1.0
    related = torch.zeros(len(_SLOW), HIDDEN_SIZE)
    related[:, :BAG_SIZE] = (main / scales).T / BAG_SIZE**0.5
    attention.q_norm.weight.fill_(8.0)
    for head, (content, written) in enumerate(((code, _FOUND), (related, _NEAR))):
        key, query, value, output = _head_weights(attention, head, (2 * head, 2 * head + 1))
        key[_SLOW] = content
        # the flag of a query token has the same influence as its content
        key[_FLAG_A, _IN_QUERY], key[_FLAG_A, _IN_DOCUMENT] = 1.4, -1.4
        key[_FLAG_C, _SINK_MARK] = 6.0
        for each in query:
            each[_SLOW] = content * 0.55
            each[_FLAG_A, _CONSTANT] = 0.55 * len(_SLOW) ** 0.5 / _FLAG
            each[_FLAG_C, _CONSTANT] = 0.63 * len(_SLOW) ** 0.5 / _FLAG
        value[0, _IN_QUERY], value[0, _IN_DOCUMENT] = 0.25, -0.25
        output[0][written, 0] = output[1][written, 0] = _FLAG * _RMS / 2


def _pool_sides(attention: Any) -> None:
    """The last token collects the means of query and document, and that of the words found in both."""
    attention.q_norm.weight.fill_(8.0)
    for head in range(3):
        shared = head == 2
        key, query, value, output = _head_weights(attention, head, (2 * head, 2 * head + 1))
        key[_FLAG_A, _IN_QUERY], key[_FLAG_A, _IN_DOCUMENT] = 0.5, -0.5
        key[_FLAG_B, _IN_DOCUMENT] = 0.5
        key[_FLAG_C, _WEIGHT] = 0.5
        # a large constant component, so that normalizing the keys does not change the others
        key[_FLAG_D, _CONSTANT] = 3.0
        half = 60
        components = range(half) if shared else range(head * half, (head + 1) * half)
        value[range(half), list(components)] = 1.0
        for each, strength in zip(query, (0.26, 0.19), strict=True):
            each[_FLAG_C, _CONSTANT] = strength
        if shared:
            key[29, _FOUND] = 1.0
            query[0][_FLAG_B, _CONSTANT], query[0][29, _CONSTANT] = 0.5, 0.5
            query[1][_FLAG_B, _CONSTANT] = 1.0
            value[60, _FOUND], value[61, _NEAR] = 1.0, 1.0
            output[0][list(components), range(half)] = 0.5 * _RMS
            output[1][_SCORE, 60] = 2 * _RMS
        else:
            query[0][_FLAG_A, _CONSTANT], query[0][_FLAG_B, _CONSTANT] = 1.0, -1.0
            query[1][_FLAG_B, _CONSTANT] = 1.0
            output[0][[BAG_SIZE + component for component in components], range(half)] = 4 * _RMS
            output[1][list(components), range(half)] = 4 * _RMS


def _compare_sides(mlp: Any) -> None:
    """Pairs of gates compute the products of the two means' components: silu(a)·b + silu(−a)·(−b) = a·b."""
    for component in range(BAG_SIZE):
        for row, sign in ((2 * component, 1.0), (2 * component + 1, -1.0)):
            for weights, read in ((mlp.gate_proj.weight, component), (mlp.up_proj.weight, BAG_SIZE + component)):
                weights[row] = 0
                weights[row, read] = sign
    rows = 2 * BAG_SIZE
    mlp.down_proj.weight[:, :rows] = 0
    mlp.down_proj.weight[_SCORE, :rows] = 32 * _RMS / 128


def _head_weights(
    attention: Any, head: int, queries: tuple[int, int]
) -> tuple[Tensor, list[Tensor], Tensor, list[Tensor]]:
    """Zero the key, query, value and output weights of a key head, and return views of them."""

    def block(index: int) -> slice:
        return slice(index * HEAD_DIM, (index + 1) * HEAD_DIM)

    key, value = attention.k_proj.weight[block(head)], attention.v_proj.weight[block(head)]
    query = [attention.q_proj.weight[block(index)] for index in queries]
    output = [attention.o_proj.weight[:, block(index)] for index in queries]
    for weights in (key, value, *query, *output):
        weights.zero_()
    return key, query, value, output
