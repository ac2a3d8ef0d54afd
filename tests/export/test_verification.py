"""`verify`: which lengths an export compares with transformers, what it leaves out, and what it says about that."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_checkpoint import TinyCheckpoint, write_checkpoint

from qwen3_triton.cli.reports import show_reports
from qwen3_triton.client import ExportRecord, ParityReport, Precision
from qwen3_triton.export import (
    Device,
    EvaluationOptions,
    ExportError,
    ExportOptions,
    ExportResult,
    Int8Options,
    ParityError,
    SilentProgress,
    SourceReference,
    Verification,
    WitnessChoice,
    export_model,
    open_checkpoint,
    reference_evidence,
)
from qwen3_triton.export.architectures import DecoderConfig
from qwen3_triton.export.artifacts import graph_file
from qwen3_triton.export.graph.rope import RopeTables, compute_rope_tables
from qwen3_triton.export.passes.rescale import ActivationPeaks
from qwen3_triton.export.sources.checkpoint import Checkpoint
from qwen3_triton.export.tasks.task import ReferenceRun
from qwen3_triton.export.verification import lengths
from qwen3_triton.export.verification.lengths import longest_text
from qwen3_triton.export.verification.parity import cosines, split_batches
from qwen3_triton.export.verification.reference import ReferenceOutputs

LIMIT, QUICK = 900, 512
"""Tokens: the limit of the checkpoint here, and what `quick` compares of a large model."""
LARGE = {
    "0.6B": {"layers": 28, "hidden": 1024, "intermediate": 3072, "heads": 16, "kv_heads": 8, "head_dim": 128},
    "4B": {"layers": 36, "hidden": 2560, "intermediate": 9728, "heads": 32, "kv_heads": 8, "head_dim": 128},
    "8B": {"layers": 36, "hidden": 4096, "intermediate": 12288, "heads": 32, "kv_heads": 8, "head_dim": 128},
}


class Steps(SilentProgress):
    """Records stages and the last step of each."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)
        self.steps.append((0, 0))

    def step(self, done: int, total: int) -> None:
        assert done == self.steps[-1][0] + 1
        self.steps[-1] = (done, total)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny", TinyCheckpoint(max_positions=LIMIT))


@pytest.fixture
def like_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every model as if `quick` could afford only the smallest length."""
    monkeypatch.setattr(lengths, "_QUICK_FLOP", 0)


def export(source: Path, folder: Path, progress: SilentProgress | None = None, **changes: Any) -> ExportResult:
    options = ExportOptions(model=SourceReference(str(source)), repository=folder, name="model")
    return export_model(dataclasses.replace(options, **changes), progress)


def read(result: ExportResult) -> ExportRecord:
    return ExportRecord.from_json(result.folder.manifest.read_text(encoding="utf-8"))


def config_of(source: Path, **shape: Any) -> DecoderConfig:
    return dataclasses.replace(open_checkpoint(SourceReference(str(source))).config, **shape)


@pytest.mark.parametrize(("model", "tokens"), [("0.6B", 1024), ("4B", QUICK), ("8B", QUICK)], ids=["0.6B", "4B", "8B"])
def test_length_follows_from_the_size_of_the_model(source: Path, model: str, tokens: int) -> None:
    config = config_of(source, **LARGE[model])
    assert longest_text(Verification.QUICK, config, 8192) == tokens
    assert longest_text(Verification.QUICK, config, 300) == 300
    assert longest_text(Verification.FULL, config, 8192) == 8192
    assert longest_text(Verification.QUICK, config_of(source), 8192) == 8192


@pytest.mark.usefixtures("like_large")
def test_full_finds_a_fault_that_only_longer_texts_have(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong_beyond(checkpoint: Checkpoint, positions: int) -> RopeTables:
        tables = compute_rope_tables(checkpoint, positions)
        tables.sin[600:] *= -1
        return tables

    monkeypatch.setattr(graph_file, "compute_rope_tables", wrong_beyond)
    assert export(source, tmp_path, verify=Verification.QUICK).record.verified_tokens == QUICK
    with pytest.raises(ParityError) as caught:
        export(source, tmp_path, verify=Verification.FULL, overwrite=True)
    assert isinstance(caught.value.report, ParityReport)
    assert caught.value.report.longest_tokens == LIMIT


@pytest.mark.usefixtures("like_large")
def test_progress_names_each_text_of_the_reference_and_counts_layers(tmp_path: Path, source: Path) -> None:
    steps = Steps()
    record = read(export(source, tmp_path, steps, verify=Verification.FULL))
    assert (record.verification, record.verified_tokens) == (Verification.FULL, LIMIT)
    done = dict(zip(steps.stages, steps.steps, strict=True))
    layers, total = done[f"computing the reference in transformers fp32: 33 texts of up to {LIMIT} tokens"]
    assert layers == total
    assert total >= 2 * 2
    assert done[f"comparing the written file with the reference, on texts of up to {LIMIT} tokens"] == (4, 4)


@pytest.mark.parametrize(
    ("precision", "device"),
    [
        (Precision.FP32, Device.CPU),
        (Precision.FP16, Device.CPU),
        (Precision.INT8, Device.CPU),
        (Precision.FP16, Device.CUDA),
        (Precision.INT8, Device.CUDA),
    ],
)
def test_none_computes_no_reference(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, device: Device
) -> None:
    monkeypatch.delattr(reference_evidence, "ReferenceModel")
    result = export(source, tmp_path, verify=Verification.NONE, precision=precision, device=device, max_tokens=64)
    record = read(result)
    assert record == result.record
    assert (record.verification, record.parity, record.verified_tokens) == (Verification.NONE, None, 0)
    assert record.fp16_range is None
    if (precision, device) == (Precision.INT8, Device.CPU):
        assert record.quantization is not None
        assert record.quantization.held_out is None
        assert len(record.quantization.layer_errors) == 2


def test_none_rescales_fp16_of_an_unusual_scale_like_quick(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(residual_shift=14))
    found = [
        export(source, tmp_path / choice, verify=choice, precision=Precision.FP16, max_tokens=64)
        for choice in (Verification.QUICK, Verification.NONE)
    ]
    quick, unverified = (read(result) for result in found)
    assert unverified.parity is None
    assert unverified.fp16_range == quick.fp16_range
    assert quick.fp16_range is not None
    assert quick.fp16_range.residual_exponent > 0
    graphs = [result.folder.graph(1).with_name("model.onnx.data").read_bytes() for result in found]
    assert hashlib.sha256(graphs[0]).digest() == hashlib.sha256(graphs[1]).digest()


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"witness": WitnessChoice.OPTIMUM}, "the witness optimum"),
        ({"evaluation": EvaluationOptions(folder=Path("set"))}, "an evaluation"),
        ({"precision": Precision.INT8, "int8": Int8Options(max_error=0.1)}, "max_error of int8"),
    ],
    ids=["witness", "evaluation", "int8"],
)
def test_none_rejects_what_compares_with_the_reference(
    tmp_path: Path, source: Path, changes: dict[str, Any], option: str
) -> None:
    with pytest.raises(ExportError, match=f"^{option} needs the comparison with transformers, and verify is none"):
        export(source, tmp_path, verify=Verification.NONE, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("like_large")
def test_reports_say_in_red_which_texts_were_not_compared(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = export(source, tmp_path).record
    gap = "  not verified: texts of 513 to 900 tokens"
    advice = "; --verify full compares them"
    expected = [
        (quick, f"{gap}{advice}\n"),
        (dataclasses.replace(quick, verification=None), f"{gap}{advice}\n"),
        # the texts of a tokenizer that makes few tokens of them
        (dataclasses.replace(quick, verification=Verification.FULL), f"{gap}\n"),
        (
            dataclasses.replace(quick, verification=Verification.NONE, parity=None),
            "not verified: the written graph was not compared with transformers (--verify none)\n",
        ),
    ]
    for record, warning in expected:
        show_reports(record)
        assert warning in capsys.readouterr().out
    show_reports(dataclasses.replace(quick, manifest=dataclasses.replace(quick.manifest, max_tokens=QUICK)))
    shown = capsys.readouterr().out
    assert ", verify quick: 33 texts, up to 512 tokens" in shown
    assert "not verified" not in shown
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    show_reports(quick)
    assert f"\x1b[31m{gap}" in capsys.readouterr().out


def test_two_vectors_of_zeros_are_equal() -> None:
    zeros, ones, nan = np.zeros(4, np.float32), np.ones(4, np.float32), np.full(4, np.nan, np.float32)
    pairs = [(zeros, zeros), (zeros, ones), (ones, zeros), (ones, 2 * ones), (ones, -ones), (nan, zeros), (zeros, nan)]
    found = cosines(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs]))
    np.testing.assert_array_equal(found, [1.0, 0.0, 0.0, 1.0, -1.0, np.nan, np.nan])


@pytest.mark.parametrize(("longest", "batches"), [(100, 1), (1024, 1), (8192, 2)])
@pytest.mark.parametrize("place", [0, 5, 32])
def test_long_rows_are_batched_with_few_others(longest: int, batches: int, place: int) -> None:
    tokens = [10 + index for index in range(33)]
    tokens[place] = longest
    order = list(reversed(range(33)))
    found = split_batches(order, tokens)
    assert sorted(index for batch in found for index in batch) == sorted(order)
    assert len(found) == batches
    assert [len(batch) for batch in found if place in batch] == [2 if longest == 8192 else 33]


def test_a_run_without_its_long_rows_keeps_their_activations() -> None:
    peaks = ActivationPeaks(residual=3.0, intermediate=2.0)
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    run = ReferenceRun(rows=[[1], [1, 2, 3], [4, 5]], outputs=ReferenceOutputs(vectors, peaks)).up_to(2)
    assert run.rows == [[1], [4, 5]]
    assert run.outputs.vectors.tolist() == [[0, 1], [4, 5]]
    assert run.outputs.peaks == peaks
