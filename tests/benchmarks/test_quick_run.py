"""The whole machinery on the tiny workload, as continuous integration runs it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.contenders import QUICK
from benchmarks.record import Record, read_record


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    cache = tmp_path_factory.mktemp("cache")
    result = CliRunner().invoke(app, ["run", "--quick", "--cache", str(cache)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "transformers fp32" in result.output
    (file,) = (cache / "results").glob("*-quick.json")
    assert str(cache) not in file.read_text(encoding="utf-8")
    return read_record(file)


def test_every_program_is_measured_and_right(record: Record) -> None:
    (measured,) = record.rounds
    assert {entry.program for entry in measured.entries} == {recipe.program for recipe in QUICK}
    assert not measured.absent
    assert all(entry.min_cosine > 0.999999 for entry in measured.entries if "fp32" in entry.program)


def test_ours_does_not_depend_on_company(record: Record) -> None:
    ours = [entry for entry in record.rounds[0].entries if entry.program.startswith("qwen3-triton")]
    assert ours
    assert all(entry.company_cosine is not None and entry.company_cosine > 0.99999 for entry in ours)


def test_every_repetition_is_kept(record: Record) -> None:
    (measured,) = record.rounds
    assert all(len(entry.samples) == 7 and len(entry.warmups) == 1 for entry in measured.entries)
    assert len(measured.products.samples) == len(measured.load_average) == 7


def test_scan_holds_the_setting_that_was_chosen(record: Record) -> None:
    for entry in record.rounds[0].entries:
        assert entry.setting in [scan.setting for scan in entry.scan]


def test_profile_shows_where_our_time_goes(record: Record) -> None:
    profile = record.rounds[0].profile["qwen3-triton fp32"]
    assert profile["MatMul"] > 0
    assert all(spent >= 0 for spent in profile.values())
