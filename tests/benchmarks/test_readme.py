"""The README's figures are those of the newest whole record."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from sample_record import sample_record

from benchmarks.plots import draw_plots
from benchmarks.readme import BEGIN, END, NoSection, newest_whole_record, put_section, render_section
from benchmarks.record import read_record, write_record

_PLOTS = Path("benchmarks") / "plots"


def test_section_has_machine_command_tables_and_plots() -> None:
    section = render_section(sample_record(), _PLOTS)
    assert section.startswith("`python -m benchmarks run` on A processor, 2 threads on 2 cores")
    assert "| qwen3-triton fp32 | 100 |" in section
    assert "| other | 33 (2.00) |" in section
    assert "Not measured on tiny: third: it needs another processor." in section
    assert "benchmarks/plots/throughput_by_peer.svg" in section
    assert "Not done: perf_analyzer: no wheel." in section


def test_section_goes_between_the_markers_and_nowhere_else() -> None:
    readme = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert put_section(readme, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(NoSection, match="no lines"):
        put_section("no markers", "new")


def test_record_without_contenders_makes_no_section() -> None:
    with pytest.raises(NoSection, match="compares no contenders"):
        render_section(dataclasses.replace(sample_record(), rounds=()), _PLOTS)


def test_newest_whole_record_is_taken(tmp_path: Path) -> None:
    with pytest.raises(NoSection, match="no record of a whole run"):
        newest_whole_record(tmp_path)
    whole = sample_record()
    for name, record in (("1", whole), ("2", whole), ("3", dataclasses.replace(whole, loads=()))):
        write_record(record, tmp_path / f"{name}.json")
    assert newest_whole_record(tmp_path).name == "2.json"


def test_readme_is_in_step_with_the_records(project_root: Path) -> None:
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    assert BEGIN in readme
    try:
        file = newest_whole_record(project_root / "benchmarks" / "results")
    except NoSection:
        return
    assert render_section(read_record(file), _PLOTS) in readme, "run: python -m benchmarks report --readme"


def test_every_plot_is_drawn_twice_and_alike_each_time(tmp_path: Path) -> None:
    first = draw_plots(sample_record(), tmp_path / "first")
    second = draw_plots(sample_record(), tmp_path / "second")
    assert {file.name for file in first} == {
        f"{name}.{kind}"
        for name in (
            "throughput_by_peer",
            "throughput_against_latency",
            "throughput_against_clients",
            "quality_against_bytes",
            "growth_rows_of_64_tokens",
            "growth_tokens_of_one_text",
        )
        for kind in ("png", "svg")
    }
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
