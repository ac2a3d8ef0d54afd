"""The score head of a reranker: weights with any head → weights with `score.weight` [1 or 2, hidden].

score = sigmoid(h · w) for one row w, a classifier's or that of the only answer token; softmax over
(no, yes) = sigmoid(h · (w_yes − w_no)) for two (Qwen3-Reranker's model card). No other rows of an LM head are read.
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
    """Return the checkpoint with `score.weight` as its only head: [1, hidden], or [2, hidden] in the order no, yes.

    Raises:
        UnsupportedCheckpointError: The head has more rows, or two whose labels do not show which one means yes.
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
    """Return the checkpoint with the LM head's rows of the answers as `score.weight`, its only head.

    It is [2, hidden], no before yes, or [1, hidden] if the score depends on one answer.

    Raises:
        UnsupportedCheckpointError: There is no LM head, an answer token is outside the vocabulary, or config.json of
            the base ties an LM head that differs from the embeddings, which depends on the transformers version.
    """
    head = merged.weights.get(LM_HEAD)
    rows = (answers.yes,) if answers.no is None else (answers.no, answers.yes)
    if head is None:
        raise UnsupportedCheckpointError(
            f"{merged.source}: a reranker needs score.weight, lm_head.weight or tied embeddings, and there is none; "
            "set the task to embed if this is an embedding model"
        )
    wrong = [id_ for id_ in rows if not 0 <= id_ < head.shape[0]]
    if wrong:
        raise UnsupportedCheckpointError(f"{merged.source}: answer token {wrong[0]} is outside the vocabulary")
    stored = base.weights.get(LM_HEAD) if base.config.tied else None
    if stored is not None and not torch.equal(stored.fp32_rows(rows), base.weights[EMBEDDINGS].fp32_rows(rows)):
        raise UnsupportedCheckpointError(
            f"{base.source}: config.json ties lm_head.weight to the embeddings, but the stored one differs; "
            "set tie_word_embeddings to false, or remove lm_head.weight"
        )
    return _with_head(merged, _rows(head, rows))


def find_answer_ids(tokenizer: CheckpointTokenizer) -> AnswerIds:
    """Return the ids of `no` and `yes`; raise UnsupportedCheckpointError if one is not a single token."""
    no, yes = tokenizer.token_id(NO), tokenizer.token_id(YES)
    if no is None or yes is None:
        raise UnsupportedCheckpointError(
            f"{tokenizer.file}: '{NO if no is None else YES}' is not a single token, which a reranker's score needs; "
            "set the task to embed if this is an embedding model"
        )
    return AnswerIds(no=no, yes=yes)


def _yes_label(raw: Mapping[str, Any], source: str) -> int:
    """Return the index of the label that means yes; the second one if config.json has no labels."""
    labels = {int(index): str(name).lower() for index, name in (raw.get("id2label") or {}).items()}
    if not labels:
        return 1
    for yes in (0, 1):
        if labels.get(yes) in _YES_LABELS and labels.get(1 - yes) in _NO_LABELS:
            return yes
    raise UnsupportedCheckpointError(
        f"{source}: the labels {' and '.join(map(repr, labels.values()))} in config.json do not show which one means "
        "yes; name them 'no' and 'yes' in id2label"
    )


def _with_head(merged: Checkpoint, head: LazyTensor) -> Checkpoint:
    weights = {name: merged.weights[name] for name in merged.config.tensor_shapes()}
    return merged.with_weights(weights | {SCORE_HEAD: head})


def _rows(tensor: LazyTensor, rows: tuple[int, ...]) -> LazyTensor:
    return LazyTensor((len(rows), tensor.shape[1]), torch.float32, lambda: tensor.fp32_rows(rows))
