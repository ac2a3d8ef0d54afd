"""LoRA adapters of rerankers, of both task types of PEFT, against PEFT's forward pass."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_reranker import causal_scores, model_classifier_scores, official_rows, official_scores
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from test_reranker import MAX_TOKENS, PAIRS, as_reranker, export_reranker, options_for, run
from tiny_checkpoint import CLASSIFIER, MODEL, TinyCheckpoint, write_checkpoint
from transformers import AutoTokenizer, Qwen3ForCausalLM, Qwen3ForSequenceClassification
from written_graph import Vectors

from qwen3_triton.export import (
    AdapterMismatchError,
    AdapterReference,
    MergeOptions,
    SourceReference,
    TaskChoice,
    export_model,
    write_merged_checkpoint,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # from transformers, about a name that PEFT uses

LINEAR = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
CAUSAL_KINDS: dict[str, dict[str, Any]] = {
    "body": {},
    "lm-head": {"target_modules": [*LINEAR, "lm_head"]},
    "embeddings": {"target_modules": [*LINEAR, "embed_tokens"]},
    "saved-lm-head": {"modules_to_save": ["lm_head"]},
    "dora-lm-head": {"target_modules": [*LINEAR, "lm_head"], "use_dora": True},
    "tokens": {"trainable_token_indices": list(range(0, 300, 3))},
    "tied-by-peft": {"target_modules": [*LINEAR, "embed_tokens"], "ensure_weight_tying": True},
}


CAUSAL_CASES = pytest.mark.parametrize(
    ("kind", "tied"),
    [
        pytest.param(kind, tied, id=f"{name}-{'tied' if tied else 'untied'}")
        for name, kind in CAUSAL_KINDS.items()
        for tied in (True, False)
        # an untied model has no weights to tie
        if tied or "ensure_weight_tying" not in kind
    ],
)


def load(source: Path, *, classifier: bool) -> Any:
    # a head that is not in the checkpoint is initialized randomly
    torch.manual_seed(1)
    if classifier:
        return Qwen3ForSequenceClassification.from_pretrained(source, dtype=torch.float32, num_labels=1)
    return Qwen3ForCausalLM.from_pretrained(source, dtype=torch.float32)


def write_adapter(folder: Path, source: Path, *, classifier: bool = False, **settings: Any) -> Path:
    """Save an adapter with random values in all its tensors."""
    fields: dict[str, Any] = {"r": 3, "lora_alpha": 5, "target_modules": LINEAR} | settings
    fields["task_type"] = "SEQ_CLS" if classifier else "CAUSAL_LM"
    rng = torch.Generator().manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(load(source, classifier=classifier), LoraConfig(**fields))
        for name, parameter in model.named_parameters():
            if "lora_" in name or parameter.requires_grad:
                # in place: tied parameters are views of one another
                parameter.data.add_(torch.randn(parameter.shape, generator=rng) * 0.2)
        model.save_pretrained(str(folder))
    return folder


def peft_scores(source: Path, adapter: Path, rows: list[list[int]], *, classifier: bool = False) -> Vectors:
    """Return the scores of PEFT with the unmerged adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(load(source, classifier=classifier), adapter)
    if classifier:
        return model_classifier_scores(model, rows)
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left")
    return causal_scores(model, tokenizer, rows)


def reference(folder: Path) -> tuple[AdapterReference, ...]:
    return (AdapterReference(SourceReference(str(folder)), 1.0),)


@CAUSAL_CASES
def test_causal_adapter_equals_peft(tmp_path: Path, kind: dict[str, Any], tied: bool) -> None:
    source = write_checkpoint(tmp_path / "tiny", as_reranker(TinyCheckpoint(tied=tied)))
    adapter = write_adapter(tmp_path / "adapter", source, **kind)
    rows = official_rows(source, PAIRS, MAX_TOKENS)
    scores = run(export_reranker(source, tmp_path / "repository", adapters=reference(adapter)), rows)
    assert np.abs(scores - peft_scores(source, adapter, rows)).max() <= 1e-4
    assert np.abs(scores - official_scores(source, rows)).max() > 1e-2


@pytest.mark.parametrize("layout", ["causal", CLASSIFIER, MODEL])
def test_classifier_adapter_equals_peft_and_adds_its_head(tmp_path: Path, layout: str) -> None:
    tiny = as_reranker(TinyCheckpoint())
    if layout != "causal":
        tiny = dataclasses.replace(tiny, layout=layout)
    source = write_checkpoint(tmp_path / "tiny", tiny)
    adapter = write_adapter(tmp_path / "adapter", source, classifier=True)
    assert json.loads((adapter / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
    rows = official_rows(source, PAIRS, MAX_TOKENS)
    scores = run(export_reranker(source, tmp_path / "repository", adapters=reference(adapter)), rows)
    assert np.abs(scores - peft_scores(source, adapter, rows, classifier=True)).max() <= 1e-4
    assert scores.max() - scores.min() > 0.01


def test_classifier_adapter_without_a_head_is_rejected(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", as_reranker(TinyCheckpoint()))
    adapter = write_adapter(tmp_path / "adapter", source, classifier=True)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if "score" not in name}, file)
    with pytest.raises(
        AdapterMismatchError, match=r"trained as a classifier, but neither it nor its base has score.weight"
    ):
        export_reranker(source, tmp_path / "repository", adapters=reference(adapter))


def merge(source: Path, adapter: Path, output: Path) -> Path:
    return write_merged_checkpoint(
        MergeOptions(model=SourceReference(str(source)), adapters=reference(adapter), output=output)
    ).folder


@CAUSAL_CASES
def test_merged_causal_lm_equals_base_with_adapter(tmp_path: Path, kind: dict[str, Any], tied: bool) -> None:
    source = write_checkpoint(tmp_path / "tiny", as_reranker(TinyCheckpoint(tied=tied)))
    adapter = write_adapter(tmp_path / "adapter", source, **kind)
    merged = merge(source, adapter, tmp_path / "merged")
    rows = official_rows(source, PAIRS, MAX_TOKENS)
    scores = run(export_reranker(source, tmp_path / "a", adapters=reference(adapter)), rows)
    assert np.abs(run(export_reranker(merged, tmp_path / "b"), rows) - scores).max() <= 1e-6
    assert np.abs(official_scores(merged, rows) - scores).max() <= 1e-4
    # PEFT trains tokens of tied tables together
    stays_tied = tied and kind in (CAUSAL_KINDS["body"], CAUSAL_KINDS["tokens"])
    assert json.loads((merged / "config.json").read_text())["tie_word_embeddings"] is stays_tied
    assert ("lm_head.weight" in load_file(merged / "model.safetensors")) is not stays_tied


@pytest.mark.parametrize("layout", ["causal", CLASSIFIER, MODEL])
def test_merged_classifier_equals_base_with_adapter(tmp_path: Path, layout: str) -> None:
    """The adapter adds the head, so the merged checkpoint is a classifier for every kind of base."""
    tiny = as_reranker(TinyCheckpoint())
    if layout != "causal":
        tiny = dataclasses.replace(tiny, layout=layout)
    source = write_checkpoint(tmp_path / "tiny", tiny)
    adapter = write_adapter(tmp_path / "adapter", source, classifier=True)
    merged = merge(source, adapter, tmp_path / "merged")
    assert json.loads((merged / "config.json").read_text())["architectures"] == [CLASSIFIER]
    rows = official_rows(source, PAIRS, MAX_TOKENS)
    scores = run(export_reranker(source, tmp_path / "a", adapters=reference(adapter)), rows)
    assert np.abs(run(export_reranker(merged, tmp_path / "b"), rows) - scores).max() <= 1e-6
    model = Qwen3ForSequenceClassification.from_pretrained(merged, dtype=torch.float32)
    assert model.config.num_labels == 1
    assert np.abs(model_classifier_scores(model, rows) - scores).max() <= 1e-4


def test_merging_a_classifier_adapter_without_a_head_is_rejected(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", as_reranker(TinyCheckpoint()))
    adapter = write_adapter(tmp_path / "adapter", source, classifier=True)
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor for name, tensor in tensors.items() if "score" not in name}, file)
    with pytest.raises(AdapterMismatchError, match="trained as a classifier, but neither it nor its base"):
        merge(source, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("kind", ["lm-head", "saved-lm-head"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_embedding_export_ignores_an_adapter_on_the_lm_head(tmp_path: Path, kind: str, tied: bool) -> None:
    source = write_checkpoint(tmp_path / "tiny", as_reranker(TinyCheckpoint(tied=tied)))
    adapter = write_adapter(tmp_path / "adapter", source, **CAUSAL_KINDS[kind])
    options = options_for(source, tmp_path / "a", adapters=reference(adapter), task=TaskChoice.EMBED)
    result = export_model(options)
    assert result.record.parity is not None
    assert result.record.parity.passed
