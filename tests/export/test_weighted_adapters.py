"""Several adapters with weights add up as in PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from merged_adapters import Form, assert_equal, make, merge, reference
from peft import PeftModel
from peft_adapters import load_base, write_adapter
from tiny_checkpoint import write_checkpoint

from qwen3_triton.export import SourceReference
from qwen3_triton.export.sources.adapter import open_adapter
from qwen3_triton.export.sources.checkpoint import open_checkpoint

# from PEFT about tied embeddings, and from transformers about a name that PEFT uses
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("UserWarning", "FutureWarning")]


def test_weights_and_the_combinations_of_peft(tmp_path: Path) -> None:
    """Weights scale the changes, which is PEFT's `cat`; `linear` multiplies sums of factors, with mixed products."""
    source, first = make(tmp_path, Form(settings={"target_modules": ["q_proj"]}))
    second = write_adapter(tmp_path / "second", source, seed=1, target_modules=["q_proj"], lora_alpha=2)
    name = "layers.0.self_attn.q_proj.weight"
    base = open_checkpoint(SourceReference(str(source))).weights[name].fp32()
    combined = {kind: combine(source, {first: 0.5, second: 0.5}, kind)[name] for kind in ("cat", "linear")}
    merged = merge(source, reference(first, 0.5), reference(second, 0.5)).weights[name].fp32()
    torch.testing.assert_close(merged, combined["cat"], rtol=1e-5, atol=2e-6)
    adapters = [open_adapter(reference(folder)) for folder in (first, second)]
    factors = [(0.5 * adapter.scaling("q_proj")) ** 0.5 for adapter in adapters]
    a, b = (
        [adapter.tensors[name.replace("weight", f"lora_{side}.weight")].fp32() for adapter in adapters] for side in "AB"
    )
    sums = [sum(factor * each for factor, each in zip(factors, side, strict=True)) for side in (a, b)]
    torch.testing.assert_close(base + sums[1] @ sums[0], combined["linear"], rtol=1e-5, atol=2e-6)
    assert (combined["linear"] - merged).abs().max() > 0.01


def combine(source: Path, adapters: dict[Path, float], kind: str) -> dict[str, torch.Tensor]:
    """Return the tensors of PEFT's combination of weighted adapters, merged."""
    first, *others = adapters
    model: Any = PeftModel.from_pretrained(load_base(source), first, adapter_name=first.name)
    for folder in others:
        model.load_adapter(folder, adapter_name=folder.name)
    names, weights = [folder.name for folder in adapters], list(adapters.values())
    model.add_weighted_adapter(names, weights, adapter_name="both", combination_type=kind)
    model.set_adapter("both")
    merged: dict[str, torch.Tensor] = model.merge_and_unload().state_dict()
    return merged


def test_adapters_of_different_forms_add_up_as_in_peft(tmp_path: Path) -> None:
    """With ranks, alphas, modules and weights of their own, one of them rank-stabilized, and a negative weight."""
    source = write_checkpoint(tmp_path / "base")
    settings: list[dict[str, Any]] = [
        {"target_modules": ["q_proj", "up_proj", "embed_tokens"]},
        {"r": 5, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj", "embed_tokens"]},
        {"r": 2, "lora_alpha": 9, "use_rslora": True, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    ]
    folders = [write_adapter(tmp_path / f"a{i}", source, seed=i, **kind) for i, kind in enumerate(settings)]
    adapters = dict(zip(folders, (0.7, -0.4, 1.5), strict=True))
    truth = combine(source, adapters, "cat")
    for order in (folders, folders[::-1]):
        assert_equal(merge(source, *(reference(folder, adapters[folder]) for folder in order)), truth)


def test_adapters_of_different_modules_add_up_as_linear_in_peft(tmp_path: Path) -> None:
    """Where no module has two adapters, `linear` has no mixed products, and is the same sum. Ranks must be equal."""
    source = write_checkpoint(tmp_path / "base")
    settings: list[dict[str, Any]] = [
        {"target_modules": ["q_proj", "up_proj"]},
        {"lora_alpha": 2, "target_modules": ["v_proj"]},
        {"lora_alpha": 9, "use_rslora": True, "target_modules": ["k_proj", "embed_tokens"]},
    ]
    folders = [write_adapter(tmp_path / f"a{i}", source, seed=i, **kind) for i, kind in enumerate(settings)]
    adapters = dict(zip(folders, (0.7, -0.4, 1.5), strict=True))
    truth = combine(source, adapters, "linear")
    assert_equal(merge(source, *(reference(folder, weight) for folder, weight in adapters.items())), truth)
