"""Limits of a batch: how they are chosen at export, and written to the model's folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from recorded_notes import Notes
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from tritonclient.grpc import model_config_pb2 as triton

from qwen3_triton.client import Precision, RecommendedLoad
from qwen3_triton.export import (
    CudaAttention,
    Device,
    ExportError,
    ExportOptions,
    ExportResult,
    ServerArchitecture,
    ServingOptions,
    SourceReference,
    export_model,
)
from qwen3_triton.export.architectures import QWEN3, DecoderConfig, RopeSettings
from qwen3_triton.export.batching.library import SOURCE, library_file
from qwen3_triton.export.batching.limits import (
    BatchLimits,
    check_batch_rows,
    choose_token_budget,
    estimate_gpu_tokens_per_s,
    indexable_rows,
    limit_batches,
)


def qwen3(layers: int, hidden: int, intermediate: int, heads: int) -> DecoderConfig:
    return DecoderConfig(
        architecture=QWEN3,
        model_class="Qwen3Model",
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=8,
        head_dim=128,
        vocabulary=151_669,
        max_positions=32_768,
        norm_eps=1e-6,
        tied=True,
        rope=RopeSettings(theta=1e6, scaling={}),
        sliding_window=None,
    )


SMALL = qwen3(28, 1024, 3072, 16)
LARGE = qwen3(36, 4096, 12_288, 32)


def export_tiny(folder: Path, serving: ServingOptions, **options: Any) -> tuple[ExportResult, Any, list[str]]:
    source = write_checkpoint(folder / "tiny", TinyCheckpoint())
    notes = Notes()
    written = export_model(
        ExportOptions(
            model=SourceReference(str(source)),
            repository=folder / "repository",
            max_tokens=50,
            serving=serving,
            **options,
        ),
        notes,
    )
    config = text_format.Parse(written.folder.config.read_text(encoding="utf-8"), triton.ModelConfig())
    return written, config, notes.notes


@pytest.mark.parametrize(
    ("device", "tokens_per_s", "budget"),
    [
        (Device.CPU, 3, 512),
        (Device.CPU, 1023, 512),
        (Device.CPU, 1025, 1024),
        (Device.CPU, 50_000, 32_768),
        (Device.CPU, 1e9, 65_536),
        (Device.CUDA, 3, 4096),
        (Device.CUDA, 100_000, 8192),
        (Device.CUDA, 330_000, 32_768),
    ],
)
def test_budget_is_what_the_device_computes_in_the_turnaround_time(
    device: Device, tokens_per_s: float, budget: int
) -> None:
    assert choose_token_budget(device, tokens_per_s) == budget


def test_speed_of_an_absent_gpu_is_estimated_from_the_model_size() -> None:
    # 0.44 and 6.95 billion weights in the products
    assert estimate_gpu_tokens_per_s(SMALL) == pytest.approx(100e12 / (2 * 0.440e9), rel=0.01)
    assert estimate_gpu_tokens_per_s(LARGE) == pytest.approx(100e12 / (2 * 6.946e9), rel=0.01)


@pytest.mark.parametrize("attention", [None, *CudaAttention])
@pytest.mark.parametrize("config", [SMALL, LARGE], ids=["0.6B", "8B"])
@pytest.mark.parametrize("budget", [512, 65_536, 2**40])
def test_tensors_of_a_gpu_batch_are_indexable_with_32_bits(
    config: DecoderConfig, attention: CudaAttention | None, budget: int
) -> None:
    limits = limit_batches(ServingOptions(), config, 8192, attention, budget)
    if attention is None:
        assert limits == BatchLimits(rows=64, tokens=budget)
        return
    assert limits.rows == (64 if config is SMALL else 21)
    assert limits.tokens == budget
    # even if every row is as long as possible
    widest = max(config.intermediate, config.query_width, config.hidden)
    assert limits.rows * 8192 * widest < 2**31
    assert limits.cells == (4 * budget if attention is CudaAttention.ROWS else None)


def test_rows_that_a_gpu_can_index_depend_on_the_length() -> None:
    assert [indexable_rows(SMALL, tokens) for tokens in (8192, 512)] == [85, 1365]
    assert [indexable_rows(LARGE, tokens) for tokens in (32_768, 8192, 512)] == [5, 21, 341]
    check_batch_rows(ServingOptions(), LARGE, 32_768)
    check_batch_rows(ServingOptions(max_batch_rows=21), LARGE, 8192)
    with pytest.raises(
        ExportError, match=r"max_batch_rows 22: .* enough for 21 rows of 8,192 tokens .* use fewer rows"
    ):
        check_batch_rows(ServingOptions(max_batch_rows=22), LARGE, 8192)


@pytest.mark.parametrize(("budget", "rows"), [(16_384, 2), (512, 1), (2**30, 64)])
def test_without_a_token_budget_rows_are_limited_by_the_longest_row(budget: int, rows: int) -> None:
    limits = limit_batches(ServingOptions(token_budget=False), SMALL, 8192, None, budget)
    assert limits == BatchLimits(rows=rows, tokens=None)


def test_export_writes_the_budget_and_the_library(tmp_path: Path) -> None:
    written, config, notes = export_tiny(tmp_path, ServingOptions(max_batch_tokens=777, max_batch_rows=9))
    assert config.parameters["max_batch_tokens"].string_value == "777"
    assert "max_batch_cells" not in config.parameters
    assert config.max_batch_size == 9
    library = written.folder.batch_strategy(1)
    assert library.read_bytes() == library_file(ServerArchitecture.X86_64).read_bytes()
    assert library.stat().st_mode & 0o777 == 0o755
    assert "a batch has at most 777 tokens in 9 rows, as configured" in notes


def test_export_measures_the_budget(tmp_path: Path) -> None:
    _, config, notes = export_tiny(tmp_path, ServingOptions())
    budget = int(config.parameters["max_batch_tokens"].string_value)
    assert 512 <= budget <= 65_536
    assert budget & (budget - 1) == 0
    [note] = [note for note in notes if note.startswith("a batch has at most")]
    assert note.startswith(f"a batch has at most {budget:,} tokens in 64 rows, measured at ")


def test_export_without_a_token_budget_limits_rows(tmp_path: Path) -> None:
    written, config, notes = export_tiny(tmp_path, ServingOptions(max_batch_tokens=160, token_budget=False))
    assert config.max_batch_size == 3
    assert "max_batch_tokens" not in config.parameters
    assert not written.folder.batch_strategy(1).exists()
    assert "a batch has at most 3 rows of up to 50 tokens, as configured" in notes


def test_export_for_another_architecture_has_its_library(tmp_path: Path) -> None:
    serving = ServingOptions(max_batch_tokens=600, server_architecture=ServerArchitecture.AARCH64)
    written, _, _ = export_tiny(tmp_path, serving)
    library = written.folder.batch_strategy(1).read_bytes()
    assert library == library_file(ServerArchitecture.AARCH64).read_bytes()


def test_export_for_a_gpu_limits_padding_and_reports_memory(tmp_path: Path) -> None:
    _, config, notes = export_tiny(
        tmp_path, ServingOptions(gpu_memory_bytes=1), device=Device.CUDA, precision=Precision.FP16
    )
    assert config.parameters["max_batch_tokens"].string_value == "65536"
    assert config.parameters["max_batch_cells"].string_value == str(4 * 65_536)
    assert "a batch has at most 65,536 tokens in 64 rows, estimated for a data-centre GPU" in notes
    assert any("for a batch of 65,536 tokens" in note for note in notes)
    assert any("does not fit into gpu_memory_bytes, 0.0 GB" in note for note in notes)


@pytest.mark.parametrize("architecture", ServerArchitecture)
def test_binaries_are_built_from_the_source(architecture: ServerArchitecture) -> None:
    binary = library_file(architecture).read_bytes()
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    assert f"batch_strategy.c sha256:{digest}".encode() in binary, "run `make batch-strategy` and commit the binaries"
    machine = {ServerArchitecture.X86_64: 62, ServerArchitecture.AARCH64: 183}[architecture]
    assert binary[:4] == b"\x7fELF"
    assert int.from_bytes(binary[18:20], "little") == machine
    # lowest glibc versions of the two architectures; all images are newer
    versions = {part.split(b"\0")[0] for part in binary.split(b"GLIBC_")[1:]}
    assert versions <= {b"2.2.5", b"2.17"}


@pytest.mark.parametrize(("instances", "threads", "warns"), [(1, 0, False), (2, 0, True), (2, 1, False)])
def test_instances_that_share_every_core_are_noted(tmp_path: Path, instances: int, threads: int, warns: bool) -> None:
    serving = ServingOptions(max_batch_tokens=777, instances=instances, threads=threads)
    _, _, notes = export_tiny(tmp_path, serving)
    assert any("each of 2 instances uses every core" in note for note in notes) == warns


def test_the_recommended_load_is_a_batch_for_each_instance_and_one_that_waits() -> None:
    assert BatchLimits(rows=64, tokens=2_048).recommended_load(8_192, 3) == RecommendedLoad(
        request_tokens=2_048, tokens_in_flight=3 * 2 * 2_048
    )
    assert BatchLimits(rows=4, tokens=None).recommended_load(500, 1).request_tokens == 2_000
