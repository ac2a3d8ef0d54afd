"""Staged weights are written once to a safetensors file, and every consumer reads that file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen3_triton.export.sources.staged_weights import StagedWeights
from qwen3_triton.export.sources.weights import read_safetensors


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


def test_missing_and_misshapen_tensors_are_errors(tmp_path: Path) -> None:
    with StagedWeights(tmp_path / "staged.safetensors", {"a": (2, 3), "b": (4,)}) as staged:
        with pytest.raises(ValueError, match=r"a has shape \[3, 2\]"):
            staged.write("a", torch.zeros(3, 2))
        staged.write("a", torch.zeros(2, 3))
        with pytest.raises(ValueError, match="not written: b"):
            staged.read()


def test_parts_of_a_tensor_are_written_like_the_whole(tmp_path: Path) -> None:
    values = {"table": torch.randn(1500, 1024)}
    save_file(values, tmp_path / "source.safetensors")
    table = read_safetensors(tmp_path, "source.safetensors")["table"]
    assert len(list(table.fp32_parts())) == 2
    with StagedWeights(tmp_path / "staged.safetensors", {"a": (1,), "table": table.shape}) as staged:
        staged.write_parts("table", table)
        staged.write("a", torch.zeros(1))
        read = staged.read()
    assert torch.equal(read["table"].fp32(), values["table"])
