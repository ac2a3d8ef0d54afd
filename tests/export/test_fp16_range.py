"""fp16 beyond the probe texts: tokens that stand out are found in the whole vocabulary, and count for the rescale."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from forked_exports import tiny_options
from safetensors.torch import load_file, save_file
from tiny_checkpoint import CAUSAL, TinyCheckpoint, write_checkpoint

from qwen3_triton.client import ExportRecord, Precision
from qwen3_triton.export import ExportResult, SilentProgress, SourceReference, export_model
from qwen3_triton.export.model_sources import open_sources
from qwen3_triton.export.passes.rescale import FP16_MAX, HEADROOM, NO_RESCALE, ActivationPeaks, Rescale
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.verification.reference import ReferenceModel
from qwen3_triton.export.verification.vocabulary_survey import outstanding_tokens

RARE = 287
"""No probe text has this token."""


def write_rare(folder: Path, size: float) -> Path:
    """A checkpoint in which only RARE uses the last channel, which the first MLP row of the first layer amplifies."""
    tiny = TinyCheckpoint()
    write_checkpoint(folder, tiny)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    table = tensors["embed_tokens.weight"]
    table[:, -1] = 0
    table[RARE] = 0
    table[RARE, -1] = 8
    for index in range(tiny.layers):
        layer = f"layers.{index}."
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            tensors[f"{layer}{name}.weight"][-1] = 0
        for name in ("post_attention_layernorm", "input_layernorm"):
            tensors[f"{layer}{name}.weight"][-1] = 1
    for name in ("gate_proj", "up_proj"):
        row = tensors[f"layers.0.mlp.{name}.weight"]
        row[0] = 0
        row[0, -1] = size
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def peaks_of(folder: Path, rows: list[list[int]]) -> ActivationPeaks:
    model = ReferenceModel(open_checkpoint(SourceReference(str(folder))))
    return model.embed(rows, lambda _done, _all: None, 1).peaks


def export(folder: Path, precision: Precision = Precision.FP16) -> ExportResult:
    return export_model(dataclasses.replace(tiny_options(folder, folder.parent / "repository"), precision=precision))


def test_token_of_large_activations_is_found_in_the_vocabulary(tmp_path: Path) -> None:
    folder = write_rare(tmp_path / "model", 100.0)
    found = outstanding_tokens(open_checkpoint(SourceReference(str(folder))))
    assert found[0] == RARE
    assert len(set(found)) == len(found)
    assert max(found) < 300
    # the rest of the vocabulary is sampled, too
    assert len(found) > 128


def test_rescale_covers_a_token_that_no_probe_text_has(tmp_path: Path) -> None:
    folder = write_rare(tmp_path / "model", 100.0)
    rare = peaks_of(folder, [[RARE]])
    assert rare.intermediate > FP16_MAX
    result = export(folder)
    found = result.record.fp16_range
    assert found is not None
    assert found.mlp_exponent >= 1
    assert math.ldexp(rare.intermediate, -found.mlp_exponent) * HEADROOM <= FP16_MAX
    assert found.headroom >= HEADROOM
    assert found.tokens > 128
    assert ExportRecord.from_json(result.folder.manifest.read_text(encoding="utf-8")).fp16_range == found


def test_ordinary_checkpoint_needs_no_rescale_and_states_its_headroom(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", TinyCheckpoint())
    found = export(folder).record.fp16_range
    assert found is not None
    assert (found.residual_exponent, found.mlp_exponent) == (0, 0)
    assert found.headroom > 100


def test_other_precisions_state_no_range(tmp_path: Path) -> None:
    assert export(write_checkpoint(tmp_path / "model"), Precision.FP32).record.fp16_range is None


@pytest.mark.parametrize(
    ("peaks", "rescale", "headroom"),
    [
        (ActivationPeaks(residual=655.04, intermediate=6.5504, projection=1.0), NO_RESCALE, 100.0),
        (ActivationPeaks(residual=655.04, intermediate=6550.4, projection=1.0), NO_RESCALE, 10.0),
        (ActivationPeaks(residual=65504.0, intermediate=1.0, projection=1.0), Rescale(residual=3), 8.0),
        (ActivationPeaks(residual=1.0, intermediate=65504.0 * 4, projection=13100.8), Rescale(intermediate=6), 5.0),
    ],
)
def test_headroom_is_that_of_the_largest_activation_after_the_rescale(
    peaks: ActivationPeaks, rescale: Rescale, headroom: float
) -> None:
    assert rescale.headroom(peaks) == pytest.approx(headroom)


def test_rows_of_single_tokens_stand_alone_and_after_the_prompt(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", TinyCheckpoint())
    sources = open_sources(tiny_options(folder, tmp_path / "repository"), SilentProgress())
    rows = sources.task.rows_of_tokens([7, 8, 9], after_prompt=2)
    end = sources.tokenizer.end_token_id
    assert rows[:3] == [[7, end], [8, end], [9, end]]
    assert [row[-2:] for row in rows[3:]] == [[7, end], [8, end]]
    assert all(torch.tensor(row).max() < 300 for row in rows)
    reranker = write_checkpoint(
        tmp_path / "reranker", TinyCheckpoint(layout=CAUSAL, end_token=False, answers=True, max_positions=512)
    )
    pairs = open_sources(tiny_options(reranker, tmp_path / "repository"), SilentProgress())
    alone, after = pairs.task.rows_of_tokens([7], after_prompt=1)
    assert alone == [7]
    assert after.count(7) >= 1
    assert len(after) > 30
