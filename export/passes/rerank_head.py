"""The rows that make a reranker's score: weights with any head → weights with `score.weight` [1 or 2, hidden].

score = sigmoid(h · w) for one row w, and softmax over (no, yes) = sigmoid(h · (w_yes − w_no)) for two
(Qwen3-Reranker's model card). Of a causal LM's head no other row is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..architectures import EMBEDDINGS, LM_HEAD, SCORE_HEAD
from ..errors import UnsupportedCheckpointError
from ..sources.checkpoint import Checkpoint
from ..sources.cross_encoder import AnswerIds
from ..sources.tokenizer import CheckpointTokenizer
from ..sources.weights import LazyTensor

YES, NO = "yes", "no"
_YES_LABELS = frozenset({YES, "true", "relevant", "positive", "label_1", "1"})
_NO_LABELS = frozenset({NO, "false", "irrelevant", "not relevant", "not_relevant", "negative", "label_0", "0"})


def keep_score_head(merged: Checkpoint) -> Checkpoint:
    """The merged checkpoint with `score.weight` as its only head: [1, hidden], or [2, hidden] as (no, yes).

    Raises UnsupportedCheckpointError for more rows, and for two whose labels do not say which one means yes.
    """
    head = merged.weights[SCORE_HEAD]
    if head.shape[0] > 2:
        raise UnsupportedCheckpointError(
            f"{merged.source}: score.weight has {head.shape[0]} rows; a reranker has one, or two for no and yes"
        )
    if head.shape[0] == 2:
        yes = _yes_label(merged.raw_config, str(merged.source))
        head = _rows(head, (1 - yes, yes))
    return _with_head(merged, head)


def take_answer_rows(base: Checkpoint, merged: Checkpoint, answers: AnswerIds) -> Checkpoint:
    """The merged checkpoint with the LM head's rows of no and yes as `score.weight` [2, hidden], its only head.

    Raises UnsupportedCheckpointError without an LM head, for answers outside of the vocabulary, and for a base whose
    LM head is tied by config.json and differs from the embeddings, which versions of transformers take differently.
    """
    head, rows = merged.weights.get(LM_HEAD), (answers.no, answers.yes)
    if head is None:
        raise UnsupportedCheckpointError(
            f"{merged.source}: neither score.weight nor lm_head.weight nor tied embeddings to make a score of; "
            "is this a reranker?"
        )
    wrong = [id_ for id_ in rows if not 0 <= id_ < head.shape[0]]
    if wrong:
        raise UnsupportedCheckpointError(f"{merged.source}: answer token {wrong[0]} is outside of the vocabulary")
    stored = base.weights.get(LM_HEAD) if base.config.tied else None
    if stored is not None and not torch.equal(stored.fp32_rows(rows), base.weights[EMBEDDINGS].fp32_rows(rows)):
        raise UnsupportedCheckpointError(
            f"{base.source}: config.json ties lm_head.weight to the embeddings, but it differs from them; "
            "set tie_word_embeddings to what was meant"
        )
    return _with_head(merged, _rows(head, rows))


def find_answer_ids(tokenizer: CheckpointTokenizer) -> AnswerIds:
    """The ids of `no` and `yes`; raises UnsupportedCheckpointError where the tokenizer lacks one as a single token."""
    no, yes = tokenizer.token_id(NO), tokenizer.token_id(YES)
    if no is None or yes is None:
        raise UnsupportedCheckpointError(
            f"{tokenizer.file}: no single token '{NO if no is None else YES}', whose logit the score is made of; "
            "is this a reranker?"
        )
    return AnswerIds(no=no, yes=yes)


def _yes_label(raw: Mapping[str, Any], source: str) -> int:
    """Which of two labels means yes; the second where config.json names none."""
    labels = {int(index): str(name).lower() for index, name in (raw.get("id2label") or {}).items()}
    if not labels:
        return 1
    for yes in (0, 1):
        if labels.get(yes) in _YES_LABELS and labels.get(1 - yes) in _NO_LABELS:
            return yes
    raise UnsupportedCheckpointError(
        f"{source}: config.json calls the labels {' and '.join(map(repr, labels.values()))}, which does not say which "
        "one means yes; name them 'no' and 'yes' in id2label"
    )


def _with_head(merged: Checkpoint, head: LazyTensor) -> Checkpoint:
    weights = {name: merged.weights[name] for name in merged.config.tensor_shapes()}
    return merged.with_weights(weights | {SCORE_HEAD: head})


def _rows(tensor: LazyTensor, rows: tuple[int, int]) -> LazyTensor:
    return LazyTensor((len(rows), tensor.shape[1]), torch.float32, lambda: tensor.fp32_rows(rows))
