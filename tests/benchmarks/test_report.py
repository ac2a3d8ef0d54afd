"""The report's figures on a hand-made record, and what it refuses to compare."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from sample_record import OURS, entry, sample_record, sample_round
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.record import TokenizerFacts
from benchmarks.record_file import write_record
from benchmarks.report import EnvironmentsDiffer, render_record, render_report
from benchmarks.samples import Spread
from benchmarks.tables import best_products, loads_table, ours_first, quality_table, ratio_to, share_of_limit


def test_ratio_is_the_paired_one() -> None:
    measured = sample_round()
    other, ours = measured.entries
    assert ratio_to(other, ours, 1) == Spread(low=2.0, median=2.0, high=2.5)


def test_ours_stands_first_and_then_the_fastest() -> None:
    programs = [entry.program for entry in ours_first([*sample_round().entries, entry("third", "s", [0.5])])]
    assert programs == [OURS, "third", "other"]


def test_table_has_speed_percentiles_share_and_cosines() -> None:
    text = render_record(sample_record())
    ours = next(line for line in text.splitlines() if line.startswith(OURS))
    p50, p95, p99, cpu = ours.split()[-11:-7]
    assert (p50, p95, p99, cpu) == ("1,000.0", "2,000.0", "2,000.0", "2,000.0")
    assert ours.split()[-7:] == ["1.00", "1.00", "to", "1.00", "20%", "0.9999999", "0.5000000"]


def test_report_names_what_is_absent_and_not_done() -> None:
    text = render_record(sample_record())
    assert "absent: third: it needs another processor" in text
    assert "not done: perf_analyzer: no wheel" in text


def test_limit_is_the_fastest_library_of_the_contenders_precision() -> None:
    measured = sample_round()
    assert best_products(measured) == {"fp32": 1e11, "int8": 4e11}
    _, ours = measured.entries
    # 2e10 operations at 1e11 a second are 0.2 of the second that the median pass takes
    assert share_of_limit(ours, measured) == pytest.approx(0.2)


def test_load_is_told_by_its_median_speed_and_all_of_its_latencies() -> None:
    (line,) = loads_table(sample_record().loads).lines
    assert line == (
        OURS,
        "a driver",
        "2 in flight",
        "1.5",
        "1.2 to 1.8",
        "15",
        *("1,000.0", "2,000.0", "2,000.0"),
        "2.0",
        "1",
    )


def test_loads_head_names_the_tokenizer_where_one_was_given() -> None:
    given = TokenizerFacts(sha256="0123456789abcdef", vocabulary=151_669)
    assert "\nserved, tiny, one text a request\n" in render_record(sample_record())
    assert ("\nserved, tiny, one text a request, a tokenizer of 151,669 ids (sha256 0123456789ab)\n") in render_record(
        dataclasses.replace(sample_record(), served_tokenizer=given)
    )


def test_quality_has_a_column_a_width() -> None:
    table = quality_table(sample_record().quality)
    assert table.head[:4] == ("task", "weights", "32", "64")
    assert table.lines == (("A_TASK", "int8", "0.4000", "0.5000", "0.990000", "0.995000"),)


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
