"""A run that is ended before its time keeps what it has measured, and can go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sample_record import sample_record, sample_round
from typer.testing import CliRunner

from benchmarks import run
from benchmarks.__main__ import app
from benchmarks.contenders import QUICK
from benchmarks.growth import Grown
from benchmarks.model_shape import SHAPES
from benchmarks.record import Round, TokenizerFacts
from benchmarks.record_file import RecordFile, read_record
from benchmarks.run import Part, RunOptions, run_benchmark
from benchmarks.steps import CannotResume
from benchmarks.tables import code_line
from benchmarks.workload import WORKLOADS, Workload


def _round(workload: Workload) -> Round:
    measured = sample_round()
    return dataclasses.replace(measured, workload=dataclasses.replace(measured.workload, name=workload.name))


def _first_workload_alone(workloads: Sequence[Workload], *_: object) -> Iterator[Round]:
    yield _round(workloads[0])
    raise KeyboardInterrupt


def _options(cache: Path, *, threads: int = 1) -> RunOptions:
    return RunOptions(
        shape=SHAPES["tiny"],
        workloads=[WORKLOADS["tiny"], WORKLOADS["tiny-rerank"]],
        served=WORKLOADS["tiny"],
        recipes=QUICK,
        growing=[],
        cache=cache,
        threads=threads,
        parts=(Part.PASSES, Part.GROWTH),
        command="python -m benchmarks run",
    )


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "measure_rounds", _first_workload_alone)
    file = tmp_path / "record.json"
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(_options(tmp_path), lambda _: None, RecordFile(file).keep)
    return file


def test_record_has_what_was_measured_and_names_what_was_not(ended: Path) -> None:
    kept = read_record(ended)
    assert [measured.workload.name for measured in kept.rounds] == ["tiny"]
    assert list(kept.not_done) == ["workload tiny-rerank", "growth"]


def test_run_goes_on_where_it_ended(ended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def measure(workloads: Sequence[Workload], *_: object) -> Iterator[Round]:
        asked.extend(workload.name for workload in workloads)
        yield from map(_round, workloads)

    monkeypatch.setattr(run, "measure_rounds", measure)
    grown = sample_record().growth
    monkeypatch.setattr(run, "measure_growth", lambda *_: Grown(growth=grown, not_done={"x": "no memory"}))
    keep = RecordFile(ended, begun=True).keep
    whole = run_benchmark(_options(tmp_path), lambda _: None, keep, read_record(ended))
    assert asked == ["tiny-rerank"]
    assert [measured.workload.name for measured in whole.rounds] == ["tiny", "tiny-rerank"]
    assert (whole.growth, whole.not_done) == (grown, {"x": "no memory"})
    assert read_record(ended) == whole
    assert ", resumed " in code_line(whole)
    with pytest.raises(CannotResume, match="reached its end"):
        run_benchmark(_options(tmp_path), lambda _: None, keep, whole)


def test_run_of_another_machine_or_command_does_not_go_on(ended: Path, tmp_path: Path) -> None:
    begun = read_record(ended)
    with pytest.raises(CannotResume, match="threads"):
        run_benchmark(_options(tmp_path, threads=2), lambda _: None, ended=begun)
    other = dataclasses.replace(begun, command="python -m benchmarks run --model 0.6b")
    with pytest.raises(CannotResume, match=r"begun by '.* --model 0\.6b'"):
        run_benchmark(_options(tmp_path), lambda _: None, ended=other)
    served = dataclasses.replace(begun, served_tokenizer=TokenizerFacts(sha256="0f", vocabulary=9))
    with pytest.raises(CannotResume, match=r"begun with the --tokenizer of sha256 0f .* this run has no --tokenizer"):
        run_benchmark(_options(tmp_path), lambda _: None, ended=served)


def test_command_says_in_one_line_why_it_does_not_go_on(ended: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", "--quick", "--cache", str(tmp_path), "--resume", str(ended)])
    assert result.exit_code == 2
    assert "--resume" in result.output


def test_file_is_replaced_by_its_own_run_alone(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "record.json")
    file.keep(dataclasses.replace(sample_record(), rounds=()))
    file.keep(sample_record())
    assert read_record(file.file) == sample_record()
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]
    with pytest.raises(FileExistsError):
        RecordFile(file.file).keep(sample_record())
