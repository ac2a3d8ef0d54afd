"""Settings, peer environments, profiles, and reasons of contenders that cannot run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_engine import FakeEngine, fake_contender
from fake_processors import ZEN_4

from benchmarks.contenders.contender import Contender, ContenderUnavailableError, Recipe, RunContext, prepare_all
from benchmarks.contenders.ours import exporter_sources
from benchmarks.contenders.peer_environment import require_no_cuda
from benchmarks.contenders.reasons import public_reason
from benchmarks.contenders.session import exclusive_durations


def test_settings_are_the_distinct_batch_sizes() -> None:
    contender = fake_contender(FakeEngine(), options="fast")
    names = [setting.name for setting in contender.settings(5)]
    assert names == ["fast, one padded batch", "fast, sorted padded batches of 1", "fast, sorted padded batches of 2"]
    assert [setting.name for setting in contender.settings(1)] == ["fast, one text"]
    assert [setting.batch_rows for setting in contender.settings(2)] == [2, 1]


def test_unavailable_program_is_listed_with_its_reason(tmp_path: Path) -> None:
    def prepare(_bench: RunContext) -> Sequence[Contender]:
        raise ContenderUnavailableError("no such processor")

    lines: list[str] = []
    with ExitStack() as cleanup:
        context = RunContext(
            checkpoint=tmp_path,
            cache=tmp_path,
            threads=1,
            max_tokens=9,
            log=lines.append,
            cleanup=cleanup,
            processor=ZEN_4,
        )
        prepared = prepare_all([Recipe(program="p", prepare=prepare)], context)
    assert prepared.not_measured == {"p": "no such processor"}
    assert lines == ["preparing p", "p cannot run: no such processor"]


def test_cuda_packages_are_rejected_before_installation() -> None:
    require_no_cuda(["torch", "numpy", "tritonclient"])
    with pytest.raises(ContenderUnavailableError, match="nvidia-cublas"):
        require_no_cuda(["torch", "nvidia-cublas", "triton"])


def test_reasons_contain_no_paths() -> None:
    assert public_reason("no /some/where/model.onnx at https://host/x or a/b") == "no <path> at <path> or a/b"


def test_long_reason_is_shortened_in_the_middle() -> None:
    cause = "Failed to allocate memory for requested buffer of size 17179869184"
    reason = public_reason(f"RuntimeException: node failed\n{'at some_function ' * 40}{cause}")
    assert len(reason) <= 240
    assert reason.startswith("RuntimeException: node failed at some_function") and reason.endswith(cause)


def test_cached_exports_depend_on_all_files_of_exporter_and_manifest(project_root: Path) -> None:
    folders = [project_root / "export", project_root / "client" / "manifest"]
    expected = [file for folder in folders for pattern in ("*.py", "*.so") for file in folder.rglob(pattern)]
    assert {".py", ".so"} == {file.suffix for file in expected}
    assert {file.resolve() for file in exporter_sources()} == {file.resolve() for file in expected}


def test_time_inside_a_loop_is_counted_once() -> None:
    def kernel(name: str, start: int, duration: int) -> dict[str, object]:
        args = {"op_name": name}
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": duration, "args": args}

    events = [kernel("MatMul", 0, 10), kernel("Loop", 10, 50), kernel("Add", 12, 20), kernel("Mul", 40, 5)]
    events.append(kernel("MatMul", 60, 7))
    durations = [dict(event) for event in exclusive_durations(events)]
    assert durations == [{"MatMul": 10}, {"Loop": 25}, {"Add": 20}, {"Mul": 5}, {"MatMul": 7}]
