"""Graphs for GPUs in the benchmark's cache."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_processors import ZEN_4

from benchmarks.contenders import ContenderUnavailableError, RunContext, cuda_graph
from qwen3_triton.client.manifest import Precision
from qwen3_triton.export import CudaAttention, CudaProfile, ExportError, GraphOptions, RuntimeVersion

_PROFILE = CudaProfile()


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(
        checkpoint=tmp_path / "checkpoint",
        cache=tmp_path,
        threads=1,
        max_tokens=9,
        log=lambda _: None,
        cleanup=ExitStack(),
        processor=ZEN_4,
    )


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[GraphOptions]:
    """Options of the graphs that were written."""
    options: list[GraphOptions] = []

    def write(_checkpoint: object, file: Path, given: GraphOptions, _on_tensor: object) -> None:
        file.parent.mkdir()
        file.write_text(str(len(options)), encoding="utf-8")
        options.append(given)

    monkeypatch.setattr(cuda_graph, "open_checkpoint", lambda _: None)
    monkeypatch.setattr(cuda_graph, "write_graph", write)
    return options


def test_graph_with_the_same_options_is_written_once(context: RunContext, written: list[GraphOptions]) -> None:
    file = cuda_graph._write(context, Precision.FP16, _PROFILE)
    assert cuda_graph._write(context, Precision.FP16, CudaProfile()) == file
    assert file.read_text(encoding="utf-8") == "0"
    assert len(written) == 1


def test_every_option_is_part_of_the_key(context: RunContext, written: list[GraphOptions]) -> None:
    profiles = [
        _PROFILE,
        dataclasses.replace(_PROFILE, runtime=RuntimeVersion(1, 20)),
        dataclasses.replace(_PROFILE, attention=CudaAttention.PAGES),
        dataclasses.replace(_PROFILE, dense_batches=False),
        dataclasses.replace(_PROFILE, cpu_twin=True),
    ]
    files = [cuda_graph._write(context, Precision.FP16, profile) for profile in profiles]
    files.append(cuda_graph._write(context, Precision.BF16, _PROFILE))
    files.append(cuda_graph._write(dataclasses.replace(context, max_tokens=10), Precision.FP16, _PROFILE))
    other = dataclasses.replace(context, checkpoint=context.cache / "other")
    files.append(cuda_graph._write(other, Precision.FP16, _PROFILE))
    assert len(set(files)) == len(written) == len(files)
    assert all(file.is_file() for file in files)


def test_graph_of_another_exporter_is_replaced(
    context: RunContext, written: list[GraphOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    outdated = cuda_graph._write(context, Precision.FP16, _PROFILE)
    monkeypatch.setattr(cuda_graph, "exporter_fingerprint", lambda: "changed")
    assert cuda_graph._write(context, Precision.FP16, _PROFILE).is_file()
    assert not outdated.exists()
    assert len(written) == 2


def test_failed_export_is_a_reason_and_leaves_nothing(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_checkpoint(_: object) -> None:
        raise ExportError("no such operator")

    monkeypatch.setattr(cuda_graph, "open_checkpoint", open_checkpoint)
    with pytest.raises(ContenderUnavailableError, match="no such operator"):
        cuda_graph._write(context, Precision.FP16, _PROFILE)
    assert not list((context.cache / "cuda_graphs").iterdir())
