"""Exports for GPUs on a machine without a GPU: what is verified, the configuration, and rejected options."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from forked_exports import tiny_options
from google.protobuf import text_format
from graph_branches import all_nodes
from recorded_notes import Notes
from tiny_checkpoint import CAUSAL, TinyCheckpoint, write_checkpoint
from tritonclient.grpc import model_config_pb2 as triton

from qwen3_triton.client import ExportRecord, ParityReport, Precision, ScoreParityReport
from qwen3_triton.export import (
    CudaAttention,
    Device,
    ExportError,
    ExportOptions,
    RuntimeVersion,
    ServingOptions,
    SourceReference,
    TritonRelease,
    export_model,
)
from qwen3_triton.export.artifacts.cuda_options import cuda_provider_options
from qwen3_triton.export.artifacts.memory import estimate_memory
from qwen3_triton.export.formats import weight_format
from qwen3_triton.export.graph import CudaProfile
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.verification.runtime import RUNTIME_NAME
from qwen3_triton.export.verification.written_check import cpu_can_run

ITSELF, TWIN = "on a CPU, not on a GPU", "on a CPU, the graph's fp32 twin, not on a GPU"
CASES = [
    (Precision.FP32, CudaAttention.ROWS, ITSELF),
    (Precision.FP32, CudaAttention.PAGES, ITSELF),
    (Precision.FP16, CudaAttention.ROWS, TWIN),
    (Precision.INT8, CudaAttention.ROWS, TWIN),
    (Precision.BF16, CudaAttention.ROWS, TWIN),
    (Precision.FP16, CudaAttention.PAGES, TWIN),
    (Precision.INT8, CudaAttention.PAGES, TWIN),
]
"""Precision, attention, and what runs in the check of an export: the CPU provider has all operators only in fp32."""
EXACT_FP32 = {"use_tf32": "0"}
FLASH = EXACT_FP32 | {"sdpa_kernel": "1"}
STRICT = FLASH | {"enable_skip_layer_norm_strict_mode": "1"}
HALF_OPTIONS = {
    RuntimeVersion(1, 23, 0): STRICT,
    RuntimeVersion(1, 23, 1): STRICT,
    RuntimeVersion(1, 23, 2): STRICT,
    RuntimeVersion(1, 24, 1): STRICT,
    RuntimeVersion(1, 24, 2): STRICT,
    RuntimeVersion(1, 24, 4): STRICT,
    RuntimeVersion(1, 27, 0): FLASH,
    RuntimeVersion(1, 28, 0): FLASH,
    RuntimeVersion(1, 31, 1): FLASH,
}
"""Provider options of precisions with 16-bit activations by ONNX Runtime release."""


def cuda_options(source: Path, repository: Path, precision: Precision, **changes: Any) -> ExportOptions:
    options = tiny_options(source, repository)
    return dataclasses.replace(options, precision=precision, device=Device.CUDA, **changes)


def parse(file: Path) -> Any:
    return text_format.Parse(file.read_text(encoding="utf-8"), triton.ModelConfig())


@pytest.mark.parametrize(("precision", "attention", "description"), CASES)
def test_report_names_the_runtime_of_the_check(
    tmp_path: Path, tiny_source: Path, precision: Precision, attention: CudaAttention, description: str
) -> None:
    notes = Notes()
    options = cuda_options(tiny_source, tmp_path / "repository", precision, cuda_attention=attention)
    result = export_model(options, notes)
    parity = result.record.parity
    assert parity is not None
    assert parity.runtime == f"{RUNTIME_NAME} {description}"
    assert parity.passed
    [note] = [note for note in notes.notes if note.startswith("no GPU here: ")]
    assert ("fp32 twin" in note) == (description == TWIN)
    assert any(note.startswith("GPU memory: weights") for note in notes.notes)
    stored = ExportRecord.from_json(result.folder.manifest.read_text(encoding="utf-8"))
    assert stored == result.record
    assert (stored.device, stored.triton_release) == (Device.CUDA, "25.11")
    # the twin is not part of the model
    assert sorted(entry.name for entry in result.folder.path.iterdir()) == [
        "1",
        "config.pbtxt",
        "manifest.json",
        "tokenizer.json",
    ]
    written = {entry.name for entry in result.folder.graph(1).parent.iterdir()}
    described = {file.name for file in result.folder.version(1).files}
    assert written == {"batchstrategy.so", "model.onnx", "model.onnx.data"} | described
    assert [entry.name for entry in tmp_path.iterdir()] == ["repository"]


@pytest.mark.parametrize(
    "runtime", [RuntimeVersion(1, 23, 2), RuntimeVersion(1, 28), RuntimeVersion(1, 31, 1)], ids=str
)
@pytest.mark.parametrize("attention", CudaAttention)
@pytest.mark.parametrize("precision", Precision)
def test_a_cpu_can_run_fp32_graphs_and_fp16_twins(
    precision: Precision, attention: CudaAttention, runtime: RuntimeVersion
) -> None:
    """Others have RestorePadding before ONNX Runtime 1.31, norms in attention from 1.28, or attention over pages."""
    format = weight_format(precision, Device.CUDA)
    profile = CudaProfile(runtime=runtime, attention=attention)
    assert cpu_can_run(format, profile) == (precision is Precision.FP32)
    twin = dataclasses.replace(profile, cpu_twin=True)
    assert cpu_can_run(format.fp32_twin(), twin)
    assert cpu_can_run(format, twin) == (
        precision is not Precision.BF16 and (precision is Precision.FP32 or attention is CudaAttention.ROWS)
    )


@pytest.mark.parametrize(
    ("precision", "attention"),
    [(Precision.FP16, CudaAttention.ROWS), (Precision.INT8, CudaAttention.ROWS), (Precision.BF16, CudaAttention.PAGES)],
)
def test_reranker_export_for_gpus_passes_its_checks(
    tmp_path: Path, precision: Precision, attention: CudaAttention
) -> None:
    tiny = TinyCheckpoint(layers=3, hidden=128, intermediate=256, head_dim=32, layout=CAUSAL, end_token=False)
    tiny = dataclasses.replace(tiny, answers=True, max_positions=512, head_scale=0.1, seed=4)
    source = write_checkpoint(tmp_path / "reranker", tiny)
    options = cuda_options(source, tmp_path / "repository", precision, cuda_attention=attention, max_tokens=480)
    result = export_model(options)
    parity = result.record.parity
    assert isinstance(parity, ScoreParityReport)
    assert parity.max_score - parity.min_score > 0.05
    assert parity.max_score_error <= parity.score_tolerance == weight_format(precision, Device.CUDA).tolerance.score
    assert parity.batched_score_tolerance == (5e-2 if precision is Precision.BF16 else 1e-3)
    assert ExportRecord.from_json(result.folder.manifest.read_text(encoding="utf-8")) == result.record


def test_config_for_gpus(tmp_path: Path, tiny_source: Path) -> None:
    serving = ServingOptions(instances=2, max_batch_rows=24, gpu_memory_bytes=3 * 10**9)
    options = cuda_options(tiny_source, tmp_path / "repository", Precision.FP16, serving=serving, max_tokens=200)
    config = parse(export_model(options).folder.config)
    [group] = config.instance_group
    assert (group.kind, group.count) == (triton.ModelInstanceGroup.KIND_GPU, 2)
    [accelerator] = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "cuda"
    assert dict(accelerator.parameters) == STRICT
    assert config.parameters["gpu_mem_limit"].string_value == "3000000000"
    assert config.parameters["arena_extend_strategy"].string_value == "1"
    warmed = [(sample.batch_size, sample.inputs["input_ids"].dims[0]) for sample in config.model_warmup]
    # the largest batch allocates the memory for all others
    assert warmed == [(24, 200), (1, 200), (24, 128), (1, 128), (24, 16), (1, 16)]
    assert len({sample.name for sample in config.model_warmup}) == len(warmed)
    assert all(sample.inputs["input_ids"].zero_data for sample in config.model_warmup)


@pytest.mark.parametrize("runtime", HALF_OPTIONS, ids=str)
def test_provider_options_follow_precision_and_release(runtime: RuntimeVersion) -> None:
    half = HALF_OPTIONS[runtime]
    assert {precision: cuda_provider_options(precision, runtime) for precision in Precision} == {
        Precision.FP32: EXACT_FP32,
        Precision.FP16: half,
        Precision.BF16: half,
        Precision.INT8: half,
    }


def test_provider_options_are_tested_for_every_release() -> None:
    assert {release.runtime for release in TritonRelease} <= HALF_OPTIONS.keys()


def test_cpu_config_has_no_gpu_settings(tmp_path: Path, tiny_source: Path) -> None:
    result = export_model(tiny_options(tiny_source, tmp_path / "repository"))
    config = parse(result.folder.config)
    assert config.instance_group[0].kind == triton.ModelInstanceGroup.KIND_CPU
    assert not config.optimization.execution_accelerators.gpu_execution_accelerator
    assert len(config.model_warmup) == 1
    assert (result.record.device, result.record.triton_release) == (Device.CPU, None)


def test_manifest_without_a_device_is_for_a_cpu(tmp_path: Path, tiny_source: Path) -> None:
    result = export_model(tiny_options(tiny_source, tmp_path / "repository"))
    fields = json.loads(result.record.to_json())
    del fields["device"], fields["triton_release"]
    assert ExportRecord.from_json(json.dumps(fields)) == result.record


def test_warmup_begins_with_a_batch_of_the_whole_budget(tmp_path: Path, tiny_source: Path) -> None:
    serving = ServingOptions(max_batch_rows=24, max_batch_tokens=24 * 70)
    options = cuda_options(tiny_source, tmp_path / "repository", Precision.FP16, serving=serving, max_tokens=200)
    config = parse(export_model(options).folder.config)
    warmed = [(sample.batch_size, sample.inputs["input_ids"].dims[0]) for sample in config.model_warmup]
    assert warmed == [(24, 70), (1, 200), (1, 128), (24, 16), (1, 16)]


@pytest.mark.parametrize(
    ("release", "chosen", "cells"),
    [
        ("25.11", None, True),
        ("26.06", None, True),
        ("26.07", None, False),
        ("26.07", "rows", True),
        ("25.11", "pages", False),
    ],
)
def test_default_attention_follows_the_release(
    tmp_path: Path, tiny_source: Path, release: str, chosen: str | None, cells: bool
) -> None:
    """Only attention over rows has a limit of cells."""
    options = cuda_options(
        tiny_source,
        tmp_path / "repository",
        Precision.FP16,
        triton_release=TritonRelease(release),
        cuda_attention=None if chosen is None else CudaAttention(chosen),
    )
    result = export_model(options)
    assert ("max_batch_cells" in parse(result.folder.config).parameters) is cells
    operators = {node.op_type for node in all_nodes(onnx.load(result.folder.graph(1), load_external_data=False).graph)}
    assert ("PagedAttention" in operators) is not cells
    # batches of nearly equal lengths use rows
    assert "GroupQueryAttention" in operators


def test_rows_beyond_32_bit_indices_are_rejected_before_the_reference_runs(tmp_path: Path, tiny_source: Path) -> None:
    serving = ServingOptions(max_batch_rows=1 << 26)
    options = cuda_options(
        tiny_source,
        tmp_path / "repository",
        Precision.FP16,
        serving=serving,
        max_tokens=50,
        cuda_attention=CudaAttention.ROWS,
    )
    notes = Notes()
    message = r"max_batch_rows 67108864: CUDA kernels index with 32 bits, which is enough for [0-9]+ rows of 50 tokens"
    with pytest.raises(ExportError, match=message):
        export_model(options, notes)
    assert not (tmp_path / "repository").exists()


def test_paged_caches_count_in_the_memory_estimate(tiny_source: Path) -> None:
    source = open_checkpoint(SourceReference(str(tiny_source))).config
    plain = estimate_memory(source, weight_format(Precision.FP16, Device.CUDA), 1000)
    paged = estimate_memory(source, weight_format(Precision.FP16, Device.CUDA), 1000, paged_rows=8)
    pages = 1000 // 256 + 8
    assert paged.workspace - plain.workspace == 2 * 2 * pages * 256 * source.kv_width
    assert paged.weights == plain.weights


def test_incompatible_options_are_rejected(tmp_path: Path, tiny_source: Path) -> None:
    bf16 = dataclasses.replace(tiny_options(tiny_source, tmp_path / "repository"), precision=Precision.BF16)
    with pytest.raises(ExportError, match="bf16 is not available on device cpu"):
        export_model(bf16)
    paged = cuda_options(
        tiny_source,
        tmp_path / "repository",
        Precision.FP16,
        cuda_attention=CudaAttention.PAGES,
        serving=ServingOptions(max_batch_rows=257),
    )
    with pytest.raises(ExportError, match="at most 256 rows; use fewer rows, or attention over rows"):
        export_model(paged)
    assert not (tmp_path / "repository").exists()


def test_fp16_activations_with_8_bit_weights_are_rescaled(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(residual_shift=14))
    notes = Notes()
    result = export_model(cuda_options(source, tmp_path / "repository", Precision.INT8), notes)
    assert any(note.startswith("rescaled to fp16's range") for note in notes.notes)
    parity = result.record.parity
    assert isinstance(parity, ParityReport)
    assert parity.min_cosine >= 0.999


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_weight_memory_matches_the_estimate(tmp_path: Path, precision: Precision) -> None:
    tiny = TinyCheckpoint(layers=2, hidden=256, intermediate=512, heads=2, kv_heads=1, head_dim=128, vocabulary=900)
    source = write_checkpoint(tmp_path / "tiny", tiny)
    options = cuda_options(source, tmp_path / "repository", precision)
    result = export_model(options)
    config = open_checkpoint(options.model).config
    estimate = estimate_memory(config, weight_format(precision, Device.CUDA), 64 * 48)
    data = result.folder.graph(1).with_name("model.onnx.data").stat().st_size
    assert estimate.weights == pytest.approx(data, rel=0.03)
    assert estimate.batch_tokens == 64 * 48
    assert estimate.workspace > 64 * 48 * config.intermediate * 4


def test_releases_map_to_runtime_versions() -> None:
    assert TritonRelease.R25_11.runtime == RuntimeVersion(1, 23, 2)
    assert RuntimeVersion.parse("1.31.1+cu13") == RuntimeVersion(1, 31, 1)
    assert RuntimeVersion(1, 9) < RuntimeVersion(1, 23)
    with pytest.raises(ValueError, match="'none' is not a version"):
        RuntimeVersion.parse("none")
