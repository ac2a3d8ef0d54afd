"""fp16 without measured activations, for weights of the usual scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_exports import tiny_options
from recorded_notes import Notes
from safetensors.torch import load_file, save_file
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from written_graph import min_cosine, official_vectors, random_rows

from qwen3_triton.client import Precision
from qwen3_triton.export import SourceReference, UnsupportedCheckpointError, Verification, export_model
from qwen3_triton.export.passes.rescale import FP16_MAX
from qwen3_triton.export.passes.usual_scale import has_usual_scale
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.verification.reference import ReferenceModel
from qwen3_triton.export.verification.runtime import WrittenModel

SHAPE = TinyCheckpoint(layers=3, hidden=64, intermediate=96, head_dim=32, dtype=torch.bfloat16)
QWEN2 = TinyCheckpoint(model_type="qwen2", head_dim=10)
ROWS = random_rows([1, 4, 17, 40])
Change = Callable[[dict[str, torch.Tensor]], None]


def write(folder: Path, change: Change, shape: TinyCheckpoint = SHAPE) -> Path:
    write_checkpoint(folder, shape)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def is_usual(folder: Path) -> bool:
    checkpoint = open_checkpoint(SourceReference(str(folder)))
    return has_usual_scale(checkpoint.weights, checkpoint.config)


def unverified_vectors(
    folder: Path, repository: Path
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], Notes]:
    options = dataclasses.replace(tiny_options(folder, repository), precision=Precision.FP16, verify=Verification.NONE)
    notes = Notes()
    result = export_model(options, notes)
    assert result.record.fp16_range is None
    return WrittenModel(result.folder.graph(result.version), threads=1).run(ROWS), notes


def unchanged(_tensors: dict[str, torch.Tensor]) -> None:
    """Change nothing."""


def grow(tensors: dict[str, torch.Tensor]) -> None:
    """Make one channel of the stream so large that plain fp16 overflows."""
    for layer in range(SHAPE.layers):
        tensors[f"layers.{layer}.mlp.up_proj.weight"] *= 8
        tensors[f"layers.{layer}.mlp.gate_proj.weight"] *= 8
        tensors[f"layers.{layer}.mlp.down_proj.weight"][5] *= 600


@pytest.mark.parametrize(("change", "shape"), [(unchanged, SHAPE), (unchanged, QWEN2), (grow, SHAPE)])
def test_equals_the_reference(tmp_path: Path, change: Change, shape: TinyCheckpoint) -> None:
    folder = write(tmp_path / "model", change, shape)
    assert is_usual(folder)
    peaks = ReferenceModel(open_checkpoint(SourceReference(str(folder)))).embed(ROWS, lambda _done, _total: None).peaks
    assert (max(peaks.residual, peaks.intermediate) > FP16_MAX) == (change is grow)
    vectors, notes = unverified_vectors(folder, tmp_path / "repository")
    assert any(note.startswith("activations are not measured: rescaled by residual 2^-5") for note in notes.notes)
    assert min_cosine(vectors, official_vectors(folder, ROWS)) >= 0.9999


def scale(name: str, factor: float) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] *= factor

    return change


@pytest.mark.parametrize("factor", [2.0**-12, 2.0**12])
@pytest.mark.parametrize(
    "name",
    [
        "embed_tokens.weight",
        "layers.2.self_attn.q_proj.weight",
        "layers.1.self_attn.o_proj.weight",
        "layers.0.mlp.gate_proj.weight",
        "layers.2.mlp.down_proj.weight",
        "layers.1.input_layernorm.weight",
        "layers.1.self_attn.k_norm.weight",
    ],
)
def test_each_weight_of_another_scale_is_unusual(tmp_path: Path, name: str, factor: float) -> None:
    assert not is_usual(write(tmp_path / "model", scale(name, factor)))


def test_weight_beyond_the_sample_that_fp16_cannot_hold_is_named(tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        # the sample has every sixth row
        tensors["layers.1.mlp.up_proj.weight"][1, 3] = 1e8

    folder = write(tmp_path / "model", change)
    assert is_usual(folder)
    with pytest.raises(UnsupportedCheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight: weights are"):
        unverified_vectors(folder, tmp_path / "repository")
    assert not list((tmp_path / "repository").glob("*"))
