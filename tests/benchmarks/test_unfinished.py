"""A run that is ended before its time keeps what it has measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_record import sample_record, sample_round

from benchmarks import run
from benchmarks.contenders import QUICK
from benchmarks.growth import GrowthOptions
from benchmarks.model_shape import SHAPES
from benchmarks.quality import QualityOptions
from benchmarks.record import RecordFile, Round, read_record
from benchmarks.run import Part, RunOptions, run_benchmark
from benchmarks.serving.measure import ServingOptions
from benchmarks.workload import WORKLOADS


def _first_workload_alone(*_: object) -> Iterator[Round]:
    measured = sample_round()
    yield dataclasses.replace(measured, workload=dataclasses.replace(measured.workload, name="tiny"))
    raise KeyboardInterrupt


def test_record_has_what_was_measured_and_names_what_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "measure_rounds", _first_workload_alone)
    options = RunOptions(
        shape=SHAPES["tiny"],
        workloads=[WORKLOADS["tiny"], WORKLOADS["tiny-rerank"]],
        served=WORKLOADS["tiny"],
        recipes=QUICK,
        growing=[],
        cache=tmp_path,
        threads=1,
        parts=(Part.PASSES, Part.QUALITY),
        serving=ServingOptions.quick(),
        growth=GrowthOptions.quick(SHAPES["tiny"]),
        quality=QualityOptions.quick(),
    )
    file = tmp_path / "record.json"
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(options, lambda _: None, RecordFile(file).keep)
    kept = read_record(file)
    assert [measured.workload.name for measured in kept.rounds] == ["tiny"]
    assert list(kept.not_done) == ["workload tiny-rerank", "quality"]


def test_file_is_replaced_by_its_own_run_alone(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "record.json")
    file.keep(dataclasses.replace(sample_record(), rounds=()))
    file.keep(sample_record())
    assert read_record(file.file) == sample_record()
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]
    with pytest.raises(FileExistsError):
        RecordFile(file.file).keep(sample_record())
