"""Computed weights are materialised once in a safetensors file, and every consumer reads that file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft_adapters import write_adapter
from safetensors.torch import load_file
from tiny_checkpoint import TinyCheckpoint, write_checkpoint

from qwen3_triton.client import Precision
from qwen3_triton.export import AdapterReference, ExportOptions, SourceReference, export_model
from qwen3_triton.export.passes import merge
from qwen3_triton.export.passes.tensor_change import TensorChange
from qwen3_triton.export.sources.staged_weights import StagedWeights, stage_computed
from qwen3_triton.export.sources.weights import LazyTensor, in_memory, read_safetensors

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers, of a name that PEFT uses


def ignore(_done: int, _total: int) -> None:
    """Progress that is not shown."""


def test_file_is_plain_safetensors_whatever_the_order_of_writing(tmp_path: Path) -> None:
    values = {"a": torch.randn(3, 5), "b": torch.randn(7), "c.weight": torch.randn(2, 2, 2).to(torch.bfloat16)}
    file = tmp_path / "new" / "staged.safetensors"
    with StagedWeights(file, {name: tuple(tensor.shape) for name, tensor in values.items()}) as staged:
        for name in ("c.weight", "a", "b"):
            staged.write(name, values[name])
        read = staged.read()
    held = load_file(file)
    for name, tensor in values.items():
        assert held[name].dtype is torch.float32
        assert torch.equal(held[name], tensor.to(torch.float32))
        assert torch.equal(read[name].fp32(), tensor.to(torch.float32))
        assert read[name].stored


def test_missing_and_misshapen_tensors_are_errors(tmp_path: Path) -> None:
    with StagedWeights(tmp_path / "staged.safetensors", {"a": (2, 3), "b": (4,)}) as staged:
        with pytest.raises(ValueError, match=r"a has shape \[3, 2\]"):
            staged.write("a", torch.zeros(3, 2))
        staged.write("a", torch.zeros(2, 3))
        with pytest.raises(ValueError, match="not written: b"):
            staged.read()


def test_only_computed_tensors_are_staged(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    weights = read_safetensors(source, "*.safetensors")
    file = tmp_path / "staged.safetensors"
    assert stage_computed(weights, file, ignore) == weights
    assert not file.exists()
    changed = weights | {"norm.weight": weights["norm.weight"].changed(lambda values: values * 2)}
    staged = stage_computed(changed, file, ignore)
    assert list(load_file(file)) == ["norm.weight"]
    assert torch.equal(staged["norm.weight"].fp32(), weights["norm.weight"].fp32() * 2)
    assert staged["embed_tokens.weight"] is weights["embed_tokens.weight"]
    assert not in_memory(torch.zeros(2)).stored


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_every_merged_tensor_is_computed_once(
    tmp_path: Path, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reference, passes, calibration, graph and report read what was computed then."""
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint())
    adapter = write_adapter(tmp_path / "adapter", source)
    computed: Counter[str] = Counter()
    original: Callable[..., LazyTensor] = merge._changed

    def counted(merged: LazyTensor, base: LazyTensor, change: TensorChange) -> LazyTensor:
        tensor = original(merged, base, change)

        def load() -> torch.Tensor:
            computed[change.target] += 1
            return tensor.load()

        return LazyTensor(tensor.shape, tensor.dtype, load, tensor.load_rows)

    monkeypatch.setattr(merge, "_changed", counted)
    export_model(
        ExportOptions(
            model=SourceReference(str(source)),
            adapters=(AdapterReference(SourceReference(str(adapter))),),
            repository=tmp_path / "repository",
            name="model",
            max_tokens=64,
            precision=precision,
        )
    )
    assert len(computed) == 14
    assert set(computed.values()) == {1}
