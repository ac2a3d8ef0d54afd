"""The README's figures and those of its page are of the newest whole record."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from sample_record import sample_record

from benchmarks.page import render_page
from benchmarks.plots import draw_plots
from benchmarks.readme import BEGIN, END, Links, NoSection, newest_whole_record, put_section, render_section
from benchmarks.record_file import identify, read_record, write_record
from benchmarks.tables import growth_table, limits_table, loads_table, operators_table, quality_table, speed_table

_PAGE, _PLOTS = Path("docs") / "performance.md", Path("benchmarks") / "plots"
_LINKS = Links(plots=_PLOTS, page=_PAGE)
_WRITE = "run: python -m benchmarks report --readme"


def test_section_has_machine_command_tables_and_plots() -> None:
    section = render_section(sample_record(), _LINKS)
    assert section.startswith("Tokens per second in one run on A processor, 2 threads on 2 cores")
    assert "| qwen3-triton fp32 | 100 |" in section
    assert "| other | 33 (2.00) |" in section
    assert "needs another processor" not in section
    assert "benchmarks/plots/throughput_by_peer.svg" in section
    assert f"]({_PAGE})" in section


def test_page_has_every_table_plot_and_what_is_missing() -> None:
    record = sample_record()
    page = render_page(record, name="a-record.json", plots=Path("..") / _PLOTS)
    assert "`a-record.json`" in page
    for table in (
        *(speed_table(measured) for measured in record.rounds),
        limits_table(record.rounds[0]),
        operators_table(record.rounds[0]),
        loads_table(record.loads),
        quality_table(record.quality),
        growth_table(record.growth),
    ):
        assert table.lines and table.markdown() in page
    assert "Not measured: third: it needs another processor." in page
    assert "- perf_analyzer: no wheel." in page


def test_plots_that_are_shown_are_drawn(tmp_path: Path) -> None:
    record = sample_record()
    shown = render_section(record, _LINKS) + render_page(record, name="a-record.json", plots=_PLOTS)
    names = set(re.findall(rf"\]\({_PLOTS}/(\w+)\.svg\)", shown))
    assert names == {file.stem for file in draw_plots(record, tmp_path, "a record")}


def test_section_goes_between_the_markers_and_nowhere_else() -> None:
    readme = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert put_section(readme, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(NoSection, match="no lines"):
        put_section("no markers", "new")


def test_record_without_contenders_makes_no_section() -> None:
    with pytest.raises(NoSection, match="compares no contenders"):
        render_section(dataclasses.replace(sample_record(), rounds=()), _LINKS)


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
    assert render_section(read_record(file), _LINKS) in readme, _WRITE
    page = render_page(read_record(file), name=file.name, plots=Path("..") / _PLOTS)
    assert (project_root / _PAGE).read_text(encoding="utf-8") == page, _WRITE
    shown = set(re.findall(rf"{_PLOTS}/\w+\.svg", readme + page))
    assert shown
    for plot in shown:
        assert identify(file) in (project_root / plot).read_text(encoding="utf-8"), f"{plot}: {_WRITE}"


def test_every_plot_is_drawn_twice_and_alike_each_time(tmp_path: Path) -> None:
    first = draw_plots(sample_record(), tmp_path / "first", "a record")
    second = draw_plots(sample_record(), tmp_path / "second", "a record")
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
