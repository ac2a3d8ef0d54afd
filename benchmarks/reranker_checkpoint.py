"""Rerankers derived from the benchmark checkpoint in the two common forms: causal LM and sequence classifier.

Both give the same scores: the classifier's single row is W_yes − W_no, so its logit is the difference of the logits of
yes and no.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer

from .staging import write_once
from .workload import END_TOKEN_ID

NO, YES = "no", "yes"
_CONFIG, _WEIGHTS, _TOKENIZER, _TOKENIZER_CONFIG = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
_EMBEDDINGS = "embed_tokens.weight"


def cached_reranker(checkpoint: Path, cache: Path) -> Path:
    """Return the checkpoint as a causal LM with a tied head and a tokenizer that has both answer tokens."""
    return write_once(cache / "rerankers" / checkpoint.name, lambda folder: _write_causal(checkpoint, folder))


def cached_classifier(checkpoint: Path, cache: Path) -> Path:
    """Return the checkpoint as a sequence classifier with one label, padded with the end token."""
    reranker = cached_reranker(checkpoint, cache)
    return write_once(cache / "classifiers" / checkpoint.name, lambda folder: _write_classifier(reranker, folder))


def answer_ids(reranker: Path) -> dict[str, int]:
    """Return the token ids of the answers `no` and `yes`."""
    tokenizer = Tokenizer.from_file(str(reranker / _TOKENIZER))
    ids = {answer: tokenizer.token_to_id(answer) for answer in (NO, YES)}
    return {answer: id_ for answer, id_ in ids.items() if id_ is not None}


def _write_causal(checkpoint: Path, folder: Path) -> None:
    os.link(checkpoint / _WEIGHTS, folder / _WEIGHTS)
    shutil.copy(checkpoint / _TOKENIZER_CONFIG, folder)
    config = json.loads((checkpoint / _CONFIG).read_text(encoding="utf-8"))
    _write_json(folder / _CONFIG, {**config, "architectures": ["Qwen3ForCausalLM"]})
    # rows of a reranker end with the prompt's suffix, not with an end token
    described = json.loads((checkpoint / _TOKENIZER).read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_str(json.dumps({**described, "post_processor": None}))
    tokenizer.add_tokens([AddedToken(answer, single_word=True, normalized=False) for answer in (NO, YES)])
    tokenizer.save(str(folder / _TOKENIZER))


def _write_classifier(reranker: Path, folder: Path) -> None:
    tensors = load_file(reranker / _WEIGHTS)
    ids = answer_ids(reranker)
    score = tensors[_EMBEDDINGS][ids[YES]] - tensors[_EMBEDDINGS][ids[NO]]
    renamed = {f"model.{name}": tensor for name, tensor in tensors.items()}
    save_file({**renamed, "score.weight": score[None].contiguous()}, folder / _WEIGHTS, metadata={"format": "pt"})
    config = json.loads((reranker / _CONFIG).read_text(encoding="utf-8"))
    _write_json(
        folder / _CONFIG,
        {
            **config,
            "architectures": ["Qwen3ForSequenceClassification"],
            "num_labels": 1,
            "id2label": {"0": YES},
            "label2id": {YES: 0},
            "pad_token_id": END_TOKEN_ID,
        },
    )
    for name in (_TOKENIZER, _TOKENIZER_CONFIG):
        shutil.copy(reranker / name, folder)


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
