"""An interrupted run keeps its measurements and can be resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sample_record import sample_comparison, sample_record
from typer.testing import CliRunner

from benchmarks import run
from benchmarks.__main__ import app
from benchmarks.contenders import QUICK
from benchmarks.model_shape import SHAPES
from benchmarks.record import Comparison, TokenizerInfo
from benchmarks.record_file import RecordFile, read_record
from benchmarks.run import Part, RunOptions, run_benchmark
from benchmarks.scaling import ScalingResults
from benchmarks.steps import ResumeError
from benchmarks.tables import code_line
from benchmarks.workload import WORKLOADS, Workload


def _comparison(workload: Workload) -> Comparison:
    comparison = sample_comparison()
    return dataclasses.replace(comparison, workload=dataclasses.replace(comparison.workload, name=workload.name))


def _interrupted_after_one_workload(workloads: Sequence[Workload], *_: object) -> Iterator[Comparison]:
    yield _comparison(workloads[0])
    raise KeyboardInterrupt


def _options(cache: Path, *, threads: int = 1) -> RunOptions:
    return RunOptions(
        shape=SHAPES["tiny"],
        workloads=[WORKLOADS["tiny"], WORKLOADS["tiny-rerank"]],
        served=WORKLOADS["tiny"],
        recipes=QUICK,
        scaling_recipes=[],
        cache=cache,
        threads=threads,
        parts=(Part.PASSES, Part.SCALING),
        command="python -m benchmarks run",
    )


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "compare_contenders", _interrupted_after_one_workload)
    file = tmp_path / "record.json"
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(_options(tmp_path), lambda _: None, RecordFile(file).save)
    return file


def test_record_has_the_measurements_and_lists_the_pending_steps(interrupted: Path) -> None:
    record = read_record(interrupted)
    assert [comparison.workload.name for comparison in record.comparisons] == ["tiny"]
    assert list(record.not_measured) == ["workload tiny-rerank", "scaling"]


def test_resumed_run_measures_pending_steps(interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(workloads: Sequence[Workload], *_: object) -> Iterator[Comparison]:
        compared.extend(workload.name for workload in workloads)
        yield from map(_comparison, workloads)

    monkeypatch.setattr(run, "compare_contenders", compare)
    scaling = ScalingResults(curves=sample_record().scaling, not_measured={"x": "no memory"})
    monkeypatch.setattr(run, "measure_scaling", lambda *_: scaling)
    save = RecordFile(interrupted, resuming=True).save
    complete = run_benchmark(_options(tmp_path), lambda _: None, save, read_record(interrupted))
    assert compared == ["tiny-rerank"]
    assert [comparison.workload.name for comparison in complete.comparisons] == ["tiny", "tiny-rerank"]
    assert (complete.scaling, complete.not_measured) == (scaling.curves, {"x": "no memory"})
    assert read_record(interrupted) == complete
    assert ", resumed " in code_line(complete)
    with pytest.raises(ResumeError, match="already complete"):
        run_benchmark(_options(tmp_path), lambda _: None, save, complete)


def test_run_with_another_environment_or_command_cannot_resume(interrupted: Path, tmp_path: Path) -> None:
    started = read_record(interrupted)
    with pytest.raises(ResumeError, match="threads"):
        run_benchmark(_options(tmp_path, threads=2), lambda _: None, interrupted=started)
    other = dataclasses.replace(started, command="python -m benchmarks run --model 0.6b")
    with pytest.raises(ResumeError, match=r"started by '.* --model 0\.6b'"):
        run_benchmark(_options(tmp_path), lambda _: None, interrupted=other)
    served = dataclasses.replace(started, served_tokenizer=TokenizerInfo(sha256="0f", vocabulary=9))
    with pytest.raises(ResumeError, match=r"started with a --tokenizer with sha256 0f, this run has no --tokenizer"):
        run_benchmark(_options(tmp_path), lambda _: None, interrupted=served)


def test_command_that_cannot_resume_names_the_option(interrupted: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", "--quick", "--cache", str(tmp_path), "--resume", str(interrupted)])
    assert result.exit_code == 2
    assert "--resume" in result.output


def test_only_its_own_run_replaces_a_file(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "record.json")
    file.save(dataclasses.replace(sample_record(), comparisons=()))
    file.save(sample_record())
    assert read_record(file.file) == sample_record()
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]
    with pytest.raises(FileExistsError):
        RecordFile(file.file).save(sample_record())
