"""Int8 exports: calibration, accuracy gate, and manifest."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from outlier_checkpoint import SHAPE, realistic_tensors, with_outliers, write_tensors
from recorded_notes import Notes
from tiny_checkpoint import CAUSAL, END_TOKEN, TinyCheckpoint, write_checkpoint
from watched_graph import group_nodes

from qwen3_triton.client import ExportRecord, ParityReport, Precision, QuantizationReport, ScoreParityReport, Task
from qwen3_triton.export import (
    ExportError,
    ExportOptions,
    ExportResult,
    Int8AccuracyError,
    Int8Options,
    SourceError,
    SourceReference,
    export_model,
)
from qwen3_triton.export.architectures import EMBEDDINGS
from qwen3_triton.export.int8.calibration import BUILT_IN, subsample
from qwen3_triton.export.int8.rounding import NORM_OUTPUT_SCALE

MAX_TOKENS = 64
END_ID = 278


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tensors(tmp_path_factory.mktemp("outliers") / "checkpoint", with_outliers(realistic_tensors()))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    file.write_text("the city of the query\nthe document and the answer\nthe capital\n" * 5, encoding="utf-8")
    return file


def options(source: Path, repository: Path, **changes: object) -> ExportOptions:
    defaults = ExportOptions(
        model=SourceReference(str(source)),
        repository=repository,
        name="model",
        precision=Precision.INT8,
        max_tokens=MAX_TOKENS,
    )
    return dataclasses.replace(defaults, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export_model(options(source, tmp_path_factory.mktemp("repository")))


def quantization_of(result: ExportResult) -> QuantizationReport:
    report = result.record.quantization
    assert report is not None
    return report


def test_products_after_norms_have_one_step_and_others_a_scale_per_token(exported: ExportResult) -> None:
    file = exported.folder.graph(exported.version)
    nodes = group_nodes(onnx.load(file, load_external_data=False))
    producer = {output: node for node in nodes for output in node.output}
    steps = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(file).graph.initializer
        if tensor.name.startswith("constant.")
    }
    for path in ("layers.0.attention.qkv", "layers.0.mlp.gate", "layers.0.mlp.up", "layers.3.attention.k"):
        codes, _, step, *_ = producer[path].input
        assert producer[codes].op_type == "QuantizeLinear"
        assert steps[step] == np.float32(NORM_OUTPUT_SCALE)
    # the last layer needs its norm outputs in floats as well
    codes, *_ = producer["layers.3.attention.k"].input
    assert steps[producer[codes].input[1]] == np.float32(NORM_OUTPUT_SCALE)
    # elsewhere norm and rounding are one division by root mean square times step
    rows, scale, *_ = producer[producer["layers.0.mlp.gate"].input[0]].input
    assert producer[rows].op_type == "Add"
    assert producer[scale].op_type == "Mul"
    assert np.float32(NORM_OUTPUT_SCALE / SHAPE.hidden**0.5) in [steps.get(name) for name in producer[scale].input]
    for path in ("attention.output", "mlp.down"):
        codes, _, step, *_ = producer[f"layers.0.{path}"].input
        assert producer[codes].input[1] in producer
        assert steps[step] == 1


def test_manifest_has_the_quantization_report(exported: ExportResult) -> None:
    assert ExportRecord.from_json(exported.folder.manifest.read_text()) == exported.record
    assert exported.manifest.precision is Precision.INT8
    report = quantization_of(exported)
    assert report.calibration.reference == BUILT_IN
    assert len(report.calibration.sha256) == 64
    assert report.calibration_texts >= 48
    assert isinstance(report.held_out, ParityReport)
    assert report.held_out.cosine_tolerance == 0.01
    assert 0.995 <= report.held_out.min_cosine <= report.held_out.mean_cosine < 0.99999
    assert report.held_out.batched_bit_identical
    assert report.fp32_layers == ()
    assert report.fp32_share == 0
    assert len(report.layer_errors) == 4
    for layer in report.layer_errors:
        assert all(0.0005 < error < 0.05 for error in dataclasses.astuple(layer))
    assert 0.001 < report.table_error < 0.02


def test_files_are_at_most_a_third_of_fp32(exported: ExportResult, source: Path, tmp_path: Path) -> None:
    report = quantization_of(exported)
    whole = export_model(options(source, tmp_path, precision=Precision.FP32))
    assert whole.record.quantization is None
    of_graph = [
        sum(file.stat().st_size for file in result.folder.graph(1).parent.glob("model.onnx*"))
        for result in (exported, whole)
    ]
    assert report.bytes == of_graph[0]
    # the rest of the fp32 graph are its nodes
    assert report.fp32_bytes == pytest.approx(of_graph[1], rel=0.02)
    assert report.bytes <= 0.33 * report.fp32_bytes


def test_custom_calibration_texts_are_used(source: Path, texts: Path, tmp_path: Path) -> None:
    result = export_model(options(source, tmp_path, int8=Int8Options(calibration=texts)))
    report = quantization_of(result)
    assert report.calibration.reference == str(texts)
    assert report.calibration.sha256 == hashlib.sha256(texts.read_bytes()).hexdigest()
    assert report.calibration_texts == 15


def test_a_text_with_an_embedding_of_zeros_is_no_error(tmp_path: Path) -> None:
    """The end token, also used for padding, is a row of zeros in new checkpoints."""
    tensors = realistic_tensors()
    source = write_tensors(tmp_path / "checkpoint", tensors | {EMBEDDINGS: without_row(tensors[EMBEDDINGS], END_ID)})
    texts = tmp_path / "texts.txt"
    texts.write_text(f"the city of the query\n{END_TOKEN}\nthe capital\n", encoding="utf-8")
    result = export_model(options(source, tmp_path / "repository", int8=Int8Options(calibration=texts)))
    report = quantization_of(result)
    assert report.fp32_layers == ()
    assert report.calibration_texts == 3


def without_row(values: torch.Tensor, row: int) -> torch.Tensor:
    kept = values.clone()
    kept[row] = 0
    return kept


def test_stricter_limit_keeps_products_in_fp32_and_lists_them(
    exported: ExportResult, source: Path, tmp_path: Path
) -> None:
    loose = quantization_of(exported).held_out
    assert isinstance(loose, ParityReport)
    limit = 1.5 * (1 - loose.min_cosine)
    notes = Notes()
    report = quantization_of(export_model(options(source, tmp_path, int8=Int8Options(max_error=limit)), notes))
    assert isinstance(report.held_out, ParityReport)
    assert report.fp32_layers
    assert 0 < report.fp32_share <= 0.5
    assert 1 - report.held_out.min_cosine <= limit
    [note] = [note for note in notes.notes if note.startswith("computed in fp32")]
    assert all(path in note for path in report.fp32_layers)
    assert f"{report.fp32_share:.1%} of the multiply-adds" in note
    assert report.bytes > quantization_of(exported).bytes


def test_unreachable_limit_writes_nothing(source: Path, texts: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    with pytest.raises(Int8AccuracyError, match=r"nothing was written: .* \(allowed: 1e-06\)"):
        export_model(options(source, repository, int8=Int8Options(calibration=texts, max_error=1e-6)))
    assert list(repository.iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["repository"]


def test_invalid_calibration_file_fails_before_any_computation(source: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "good"}\n{"txt": "bad"}\n', encoding="utf-8")
    notes = Notes()
    with pytest.raises(SourceError, match=r"calibration texts .*bad.jsonl: line 2 "):
        export_model(options(source, tmp_path / "repository", int8=Int8Options(calibration=bad)), notes)
    assert notes.notes == []


@pytest.mark.parametrize("int8", [Int8Options(max_error=0.5), Int8Options(calibration=Path("texts.txt"))], ids=str)
def test_int8_options_of_another_precision_are_rejected(source: Path, tmp_path: Path, int8: Int8Options) -> None:
    with pytest.raises(ExportError, match="apply to precision int8"):
        export_model(options(source, tmp_path, precision=Precision.FP32, int8=int8))


def test_long_calibration_is_subsampled_evenly() -> None:
    rows = [[index] * 10 for index in range(100)]
    assert subsample(rows, 1000) == rows
    selected = subsample(rows, 200)
    assert len(selected) == 20
    assert [row[0] for row in selected] == list(range(0, 100, 5))
    assert subsample([[1] * 50], 10) == [[1] * 50]


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = TinyCheckpoint(layers=3, hidden=128, intermediate=256, head_dim=32, layout=CAUSAL, end_token=False)
    tiny = dataclasses.replace(tiny, answers=True, max_positions=512, head_scale=0.1, seed=4)
    return write_checkpoint(tmp_path_factory.mktemp("reranker") / "checkpoint", tiny)


def test_reranker_is_verified_by_its_scores(reranker: Path, texts: Path, tmp_path: Path) -> None:
    result = export_model(options(reranker, tmp_path, max_tokens=480, int8=Int8Options(calibration=texts)))
    assert result.manifest.task is Task.RERANK
    assert ExportRecord.from_json(result.folder.manifest.read_text()) == result.record
    held_out = quantization_of(result).held_out
    assert isinstance(held_out, ScoreParityReport)
    assert held_out.score_tolerance == 0.1
    assert 0 < held_out.max_score_error <= 0.1
    assert held_out.max_score - held_out.min_score > 0.05
    assert held_out.batched_bit_identical


def test_reranker_with_an_unreachable_limit_writes_nothing(reranker: Path, texts: Path, tmp_path: Path) -> None:
    limit = Int8Options(calibration=texts, max_error=1e-5)
    with pytest.raises(Int8AccuracyError, match="nothing was written"):
        export_model(options(reranker, tmp_path / "repository", max_tokens=480, int8=limit))
    assert list((tmp_path / "repository").iterdir()) == []
