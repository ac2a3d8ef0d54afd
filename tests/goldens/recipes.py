"""The recipes of the model cards in transformers, in fp32, with the texts and figures that are published for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

TASK = "Given a web search query, retrieve relevant passages that answer the query"
QUERIES = ("What is the capital of China?", "Explain gravity")
DOCUMENTS = (
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects and is "
    "responsible for the movement of planets around the sun.",
)
CARD_SIMILARITIES = ((0.7645568251609802, 0.14142508804798126), (0.13549736142158508, 0.5999549627304077))
"""Printed below the transformers code in the card of Qwen3-Embedding-0.6B, each query with both documents."""

CARD_PAIRS = tuple(zip(QUERIES, DOCUMENTS, strict=True))
"""In the card of Qwen3-Reranker-0.6B, which prints no scores for them."""
PLANET_PAIRS = tuple(
    ("Which planet is known as the Red Planet?", document)
    for document in (
        "Venus is often called Earth's twin because of its similar size and proximity.",
        "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
        "Jupiter, the largest planet in our solar system, has a prominent red spot.",
        "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
    )
)
PLANET_LOGITS = (-3.109297752380371, 7.120389938354492, -0.3787546157836914, 3.541637420654297)
"""In the tests of sentence-transformers (tests/cross_encoder), for Qwen/Qwen3-Reranker-0.6B and for
tomaarsen/Qwen3-Reranker-0.6B-seq-cls, with the prompt of the card."""

_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


@torch.inference_mode()
def embedding_similarities(folder: Path) -> NDArray[np.float32]:
    """Return the similarities [2, 2] of QUERIES and DOCUMENTS."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    texts = [*(f"Instruct: {TASK}\nQuery:{query}" for query in QUERIES), *DOCUMENTS]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=8192, return_tensors="pt")
    last = model(**batch).last_hidden_state[:, -1]
    vectors = torch.nn.functional.normalize(last, p=2, dim=1)
    found: NDArray[np.float32] = (vectors[:2] @ vectors[2:].T).numpy()
    return found


@torch.inference_mode()
def pair_scores(folder: Path, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    """Return the scores [n] of pairs by the causal LM, or the sequence classifier, in `folder`."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
    prefix, suffix = (tokenizer.encode(text, add_special_tokens=False) for text in (_PREFIX, _SUFFIX))
    bodies = [f"<Instruct>: {TASK}\n<Query>: {query}\n<Document>: {document}" for query, document in pairs]
    cut = tokenizer(bodies, padding=False, truncation="longest_first", max_length=8192 - len(prefix) - len(suffix))
    batch = tokenizer.pad({"input_ids": [prefix + ids + suffix for ids in cut["input_ids"]]}, return_tensors="pt")
    if "SequenceClassification" in AutoConfig.from_pretrained(folder).architectures[0]:
        classifier: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        classifier.eval()
        classifier.config.pad_token_id = tokenizer.pad_token_id
        scores = torch.sigmoid(classifier(**batch).logits[:, 0])
    else:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model.eval()
        no, yes = (tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes"))
        scores = torch.softmax(model(**batch).logits[:, -1, [no, yes]], dim=1)[:, 1]
    found: NDArray[np.float32] = scores.numpy()
    return found
