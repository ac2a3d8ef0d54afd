"""The whole machinery on the tiny workload, as continuous integration runs it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.contenders import OURS, TRANSFORMERS
from benchmarks.record import Record, read_record


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    cache = tmp_path_factory.mktemp("cache")
    result = CliRunner().invoke(app, ["run", "--quick", "--cache", str(cache)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "times as fast as transformers fp32 at its best" in result.output
    (file,) = (cache / "results").glob("*-tiny.json")
    assert str(cache) not in file.read_text(encoding="utf-8")
    return read_record(file)


def test_both_programs_are_measured_and_right(record: Record) -> None:
    assert {entry.program for entry in record.entries} == {OURS.program, TRANSFORMERS.program}
    assert not record.absent
    assert all(entry.min_cosine > 0.999999 for entry in record.entries)


def test_every_repetition_is_kept(record: Record) -> None:
    assert all(len(entry.samples) == 7 and len(entry.warmups) == 1 for entry in record.entries)
    assert len(record.products.samples) == len(record.load_average) == 7


def test_profile_shows_where_our_time_goes(record: Record) -> None:
    assert record.profile[OURS.program]["MatMul"] > 0
    assert all(spent >= 0 for spent in record.profile[OURS.program].values())
