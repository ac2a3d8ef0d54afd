"""The report of a hand-written record, and the rejection of records from different environments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from sample_record import OURS, entry, sample_comparison, sample_export, sample_record, sample_soak
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.cost import CorePrice, core_seconds_table, cost_table
from benchmarks.environment import Gpu
from benchmarks.record import TokenizerInfo
from benchmarks.record_file import write_record
from benchmarks.report import EnvironmentMismatchError, render_record, render_report
from benchmarks.samples import Quartiles
from benchmarks.tables import (
    exports_table,
    fraction_of_peak,
    latency_table,
    loads_table,
    ours_first,
    peak_flops_per_s,
    quality_table,
    ratio_to,
    soak_memory_table,
    soak_outcomes_table,
)


def test_ratio_is_paired() -> None:
    comparison = sample_comparison()
    other, ours = comparison.entries
    assert ratio_to(other, ours, 1) == Quartiles(low=2.0, median=2.0, high=3.0)


def test_own_entries_come_first_and_others_by_speed() -> None:
    programs = [entry.program for entry in ours_first([*sample_comparison().entries, entry("third", "s", [0.5])])]
    assert programs == [OURS, "third", "other"]


def test_table_has_percentiles_fraction_of_peak_and_cosines() -> None:
    text = render_record(sample_record())
    ours = next(line for line in text.splitlines() if line.startswith(OURS))
    p50, p95, p99, cpu = ours.split()[-11:-7]
    assert (p50, p95, p99, cpu) == ("1,000.0", "2,000.0", "2,000.0", "2,000.0")
    assert ours.split()[-7:] == ["1.00", "1.00", "to", "1.00", "20%", "0.9999999", "0.5000000"]


def test_report_lists_what_was_not_measured() -> None:
    text = render_record(sample_record())
    assert "not measured: third: it needs another processor" in text
    assert "not measured: perf_analyzer: no wheel" in text


def test_peak_is_that_of_the_fastest_library_in_the_contenders_precision() -> None:
    comparison = sample_comparison()
    assert peak_flops_per_s(comparison) == {"fp32": 1e11, "int8": 4e11}
    _, ours = comparison.entries
    # 2e10 FLOP at 1e11 FLOP/s take 0.2 s, and the median pass takes 1 s
    assert fraction_of_peak(ours, comparison) == pytest.approx(0.2)


def test_load_is_summarized_by_median_throughput_and_all_latencies() -> None:
    (row,) = loads_table(sample_record().loads).rows
    assert row == (
        OURS,
        "a driver",
        "2 in flight",
        "1.5",
        "1.0 to 2.0",
        "15",
        *("1,000.0", "2,000.0", "2,000.0"),
        "2.0",
        "1",
    )


def test_overload_is_compared_with_the_first_case_of_the_load_by_repetition() -> None:
    first, other = latency_table(sample_record().overload).rows
    assert first[:2] == ("bursts", "no limits")
    assert first[6:] == ("1.00", "1.00 to 1.00", "-", "0")
    assert other == (
        *("bursts", "a limit"),
        *("3,000.0", "3,000.0", "3,000.0", "3,000.0"),
        *("2.25", "1.50 to 3.00"),
        *("15.0", "0"),
    )


def test_exports_are_compared_with_copies_without_their_forward_passes() -> None:
    [row] = exports_table([sample_export()]).rows
    assert row[1:8] == ("15.00", "15.20", "15.10", "20.0 / 30.0", "50.0", "2.0", "300.0")
    assert exports_table([sample_export()]).to_text() in render_record(sample_record())


def test_soak_has_the_memory_in_thirds_and_what_became_of_the_requests() -> None:
    memory = soak_memory_table(sample_soak())
    assert memory.rows[1] == ("backend", "100", "110", "120", "120", "+0.0")
    assert [row[-1] for row in memory.rows] == ["+0.0", "+0.0", "+0.0"]
    assert soak_outcomes_table(sample_soak()).rows == (
        ("query", "right", "1,000"),
        ("raw request", "answered", "7"),
    )
    text = render_record(sample_record())
    assert memory.to_text() in text
    assert soak_outcomes_table(sample_soak()).to_text() in text


def test_loads_header_names_the_tokenizer_if_one_was_given() -> None:
    given = TokenizerInfo(sha256="0123456789abcdef", vocabulary=151_669)
    assert "\nserved: workload tiny, one text per request\n" in render_record(sample_record())
    text = render_record(dataclasses.replace(sample_record(), served_tokenizer=given))
    assert "\nserved: workload tiny, one text per request, tokenizer with 151,669 ids (sha256 0123456789ab)\n" in text


def test_quality_has_one_column_per_dimension() -> None:
    table = quality_table(sample_record().quality)
    assert table.header[:4] == ("task", "precision", "32", "64")
    assert table.rows == (("A_TASK", "int8", "0.4000", "0.5000", "0.990000", "0.995000"),)


def test_records_from_one_environment_are_reported_together() -> None:
    assert render_report([sample_record(), sample_record()]).count("one packed batch") == 2


def test_records_from_different_environments_are_rejected() -> None:
    with pytest.raises(EnvironmentMismatchError, match="threads"):
        render_report([sample_record(), sample_record(threads=4)])


def test_command_rejects_different_environments_with_one_line(tmp_path: Path) -> None:
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


def test_cost_follows_from_median_texts_per_core_second_and_price() -> None:
    record = sample_record()
    # 6 texts in 1 and 3 s on 2 cores
    assert core_seconds_table(record).rows == ((OURS, "3.00"), ("other", "1.00"))
    price = CorePrice(per_core_hour=0.036, source="a price list of today")
    assert cost_table(record, price).rows == ((OURS, "3.33"), ("other", "10.0"))
    text = render_report([record], price)
    assert f"cost at 0.036 per core-hour (a price list of today)\n{cost_table(record, price).to_text()}" in text
    assert core_seconds_table(record).to_text() in render_record(record)


def test_time_on_a_gpu_has_no_price_by_core() -> None:
    gpu = Gpu(name="A GPU", memory_bytes=1, driver="1", cuda="1", providers="")
    environment = dataclasses.replace(sample_record().environment, gpu=gpu)
    record = dataclasses.replace(sample_record(), environment=environment)
    assert "cost" not in render_report([record], CorePrice(per_core_hour=1.0, source="a list"))


@pytest.mark.parametrize(
    "options", [["--price-per-core-hour", "1"], ["--price-source", "a list"], ["--price-per-core-hour", "-1"]]
)
def test_price_without_source_is_rejected(options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_record(sample_record(), file)
    given = ["--price-per-core-hour", "0.036", "--price-source", "a list"]
    assert "cost at 0.036" in CliRunner().invoke(app, ["report", str(file), *given]).output
    assert CliRunner().invoke(app, ["report", str(file), "--readme", *given]).exit_code == 2
    assert CliRunner().invoke(app, ["report", str(file), *options]).exit_code == 2
