"""The report's figures on a hand-made record, and what it refuses to compare."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_record import sample_record
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.record import write_record
from benchmarks.report import EnvironmentsDiffer, best_against, our_entry, render_record, render_report


def test_ratio_is_the_paired_one_to_the_best_setting() -> None:
    record = sample_record()
    ours = our_entry(record)
    assert ours is not None
    best = best_against(record, "other", ours)
    assert best is not None
    assert best.entry.setting == "sorted batches of 2"
    assert best.ratio.median == 2.0
    assert "is 2.00 times as fast as other at its best (sorted batches of 2)" in render_record(record)


def test_table_has_speed_spread_absent_products_and_profile() -> None:
    text = render_record(sample_record())
    assert "100,000.0" not in text
    assert "1,000.0 to 1,500.0" in text
    assert "absent: third: it needs another processor" in text
    assert "matrix products alone: 100.0 GFLOP/s" in text
    assert "MatMul 90.0 %" in text


def test_records_of_one_environment_stand_together() -> None:
    assert render_report([sample_record(), sample_record()]).count("one packed call") == 2


def test_records_of_different_environments_are_not_mixed() -> None:
    with pytest.raises(EnvironmentsDiffer, match="threads"):
        render_report([sample_record(), sample_record(threads=4)])


def test_command_refuses_to_mix_with_one_line(tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    write_record(sample_record(), files[0])
    write_record(sample_record(threads=4), files[1])
    result = CliRunner().invoke(app, ["report", *map(str, files)])
    assert result.exit_code == 1
    assert result.output.strip().count("\n") == 0
    assert "differ in threads" in result.output


def test_command_prints_a_record(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_record(sample_record(), file)
    result = CliRunner().invoke(app, ["report", str(file)])
    assert result.exit_code == 0
    assert "one packed call" in result.output
