"""Checkpoints that are written for the peers."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM, Qwen3ForSequenceClassification

from benchmarks.checkpoint import cached_checkpoint
from benchmarks.contenders import ALL
from benchmarks.model_shape import SHAPES
from benchmarks.reranker_checkpoint import NO, YES, answer_ids, cached_classifier, cached_reranker
from qwen3_triton.client.manifest import Task


def test_classifier_and_causal_lm_give_the_same_scores(tmp_path: Path) -> None:
    checkpoint = cached_checkpoint(SHAPES["tiny"], tmp_path)
    reranker, classifier = cached_reranker(checkpoint, tmp_path), cached_classifier(checkpoint, tmp_path)
    ids = answer_ids(reranker)
    causal = Qwen3ForCausalLM.from_pretrained(reranker, dtype=torch.float32)
    one_row = Qwen3ForSequenceClassification.from_pretrained(classifier, dtype=torch.float32)
    row = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        logits = causal(input_ids=row).logits[0, -1]
        score = one_row(input_ids=row).logits[0, 0]
    assert torch.allclose(logits[ids[YES]] - logits[ids[NO]], score, atol=1e-5)


def test_reranker_tokenizer_appends_no_end_token(tmp_path: Path) -> None:
    reranker = cached_reranker(cached_checkpoint(SHAPES["tiny"], tmp_path), tmp_path)
    tokenizer = Tokenizer.from_file(str(reranker / "tokenizer.json"))
    assert len(tokenizer.encode("ab").ids) == 2
    assert tokenizer.encode("yes").ids == [answer_ids(reranker)[YES]]


def test_program_names_are_unique_within_a_task() -> None:
    for task in Task:
        programs = [recipe.program for recipe in ALL if recipe.task is task]
        assert len(programs) == len(set(programs))
