"""Scores by transformers with the recipe of Qwen3-Reranker's model card, independent of the exporter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, Qwen3ForCausalLM, Qwen3ForSequenceClassification

Scores = NDArray[np.float32]

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def official_rows(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    max_tokens: int,
    *,
    instruction: str = INSTRUCTION,
    gap: str = "\n",
) -> list[list[int]]:
    """Return the token ids of prefix, truncated body and suffix for each pair."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    prefix, suffix = (tokenizer.encode(text, add_special_tokens=False) for text in (PREFIX, SUFFIX))
    bodies = [
        gap.join([f"<Instruct>: {instruction}", f"<Query>: {query}", f"<Document>: {document}"])
        for query, document in pairs
    ]
    body_tokens = max_tokens - len(prefix) - len(suffix)
    cut = tokenizer(bodies, padding=False, truncation="longest_first", max_length=body_tokens)["input_ids"]
    return [prefix + ids + suffix for ids in cut]


def official_scores(folder: Path, rows: Sequence[Sequence[int]]) -> Scores:
    """Return the scores [n] of rows in left-padded batches of three, with the model loaded from `folder`."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model: Any = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return causal_scores(model, tokenizer, rows)


@torch.inference_mode()
def causal_scores(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]]) -> Scores:
    """Return the scores [n] of rows like `official_scores`, with a loaded model."""
    model.eval()
    no, yes = (tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes"))
    scores: list[float] = []
    for start in range(0, len(rows), 3):
        batch = tokenizer.pad({"input_ids": [list(row) for row in rows[start : start + 3]]}, return_tensors="pt")
        logits = model(**batch).logits[:, -1, :]
        both = torch.stack([logits[:, no], logits[:, yes]], dim=1)
        scores += torch.nn.functional.log_softmax(both, dim=1)[:, 1].exp().tolist()
    return np.asarray(scores, np.float32)


def classifier_scores(folder: Path, rows: Sequence[Sequence[int]]) -> Scores:
    """Return the scores [n] of the sequence classifier in `folder`: sigmoid of one logit, or second of a softmax."""
    return model_classifier_scores(Qwen3ForSequenceClassification.from_pretrained(folder, dtype=torch.float32), rows)


@torch.inference_mode()
def model_classifier_scores(model: Any, rows: Sequence[Sequence[int]]) -> Scores:
    """Return the scores [n] of rows like `classifier_scores`, with a loaded model, row by row and unpadded."""
    model.eval()
    logits = torch.cat([model(input_ids=torch.tensor([list(row)])).logits for row in rows])
    scores = torch.sigmoid(logits[:, 0]) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)[:, 1]
    result: Scores = scores.numpy()
    return result
