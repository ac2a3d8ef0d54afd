"""The report's figures on a hand-made record, and what it refuses to compare."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_record import OURS, entry, sample_record, sample_round
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.record import write_record
from benchmarks.report import EnvironmentsDiffer, ours_first, ratio_to, render_record, render_report
from benchmarks.samples import Spread


def test_ratio_is_the_paired_one() -> None:
    measured = sample_round()
    other, ours = measured.entries
    assert ratio_to(other, ours, 1) == Spread(low=2.0, median=2.0, high=2.5)


def test_ours_stands_first_and_then_the_fastest() -> None:
    programs = [entry.program for entry in ours_first([*sample_round().entries, entry("third", "s", [0.5])])]
    assert programs == [OURS, "third", "other"]


def test_table_has_speed_percentiles_absent_products_and_profile() -> None:
    text = render_record(sample_record())
    ours = next(line for line in text.splitlines() if line.startswith(OURS))
    assert ours.split()[-10:] == [
        "1,000.0",
        "2,000.0",
        "2,000.0",
        "2,000.0",
        "1.00",
        "1.00",
        "to",
        "1.00",
        "0.9999999",
        "0.5000000",
    ]
    assert "absent: third: it needs another processor" in text
    assert "matrix products alone, GFLOP/s: onnxruntime fp32 100 (100 to 100)" in text
    assert "MatMul 90.0 %" in text


def test_records_of_one_environment_stand_together() -> None:
    assert render_report([sample_record(), sample_record()]).count("one packed batch") == 2


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
    assert "one packed batch" in result.output
