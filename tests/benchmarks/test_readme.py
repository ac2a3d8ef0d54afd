"""The README's performance section and docs/performance.md match the newest complete record."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from sample_record import sample_export, sample_record, sample_soak

from benchmarks.cost import core_seconds_table
from benchmarks.page import render_page
from benchmarks.plots import draw_plots
from benchmarks.readme import (
    BEGIN,
    END,
    Links,
    MissingSectionError,
    newest_complete_record,
    render_section,
    replace_section,
)
from benchmarks.record_file import fingerprint, read_record, write_record
from benchmarks.tables import (
    exports_table,
    loads_table,
    matmul_table,
    operators_table,
    latency_table,
    quality_table,
    scaling_table,
    soak_memory_table,
    soak_outcomes_table,
    speed_table,
)

_PAGE, _PLOTS = Path("docs") / "performance.md", Path("benchmarks") / "plots"
_LINKS = Links(plots=_PLOTS, page=_PAGE)
_HINT = "run: python -m benchmarks report --readme"


def test_section_has_machine_table_and_plot() -> None:
    section = render_section(sample_record(), _LINKS)
    assert section.startswith("Tokens per second in one run on A processor, 2 threads on 2 cores")
    assert "| qwen3-triton fp32 | 100 |" in section
    assert "| other | 33 (2.00) |" in section
    assert "needs another processor" not in section
    assert "benchmarks/plots/throughput_by_peer.svg" in section
    assert f"]({_PAGE})" in section


def test_page_has_all_tables_and_lists_what_was_not_measured() -> None:
    record = sample_record()
    page = render_page(record, name="a-record.json", plots=Path("..") / _PLOTS)
    assert "`a-record.json`" in page
    for table in (
        *(speed_table(comparison) for comparison in record.comparisons),
        matmul_table(record.comparisons[0]),
        operators_table(record.comparisons[0]),
        core_seconds_table(record),
        loads_table(record.loads),
        latency_table(record.overload),
        soak_memory_table(sample_soak()),
        exports_table([sample_export()]),
        soak_outcomes_table(sample_soak()),
        quality_table(record.quality),
        scaling_table(record.scaling),
    ):
        assert table.rows and table.to_markdown() in page
    assert "Not measured: third: it needs another processor." in page
    assert "- perf_analyzer: no wheel." in page


def test_all_referenced_plots_are_drawn(tmp_path: Path) -> None:
    record = sample_record()
    shown = render_section(record, _LINKS) + render_page(record, name="a-record.json", plots=_PLOTS)
    names = set(re.findall(rf"\]\({_PLOTS}/(\w+)\.svg\)", shown))
    assert names == {file.stem for file in draw_plots(record, tmp_path, "a record")}


def test_section_is_replaced_between_the_markers() -> None:
    readme = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replace_section(readme, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(MissingSectionError, match="lacks the markers"):
        replace_section("no markers", "new")


def test_record_without_contenders_has_no_section() -> None:
    with pytest.raises(MissingSectionError, match="compares no contenders"):
        render_section(dataclasses.replace(sample_record(), comparisons=()), _LINKS)


def test_newest_complete_record_is_selected(tmp_path: Path) -> None:
    with pytest.raises(MissingSectionError, match="no record of a complete run"):
        newest_complete_record(tmp_path)
    complete = sample_record()
    for name, record in (("1", complete), ("2", complete), ("3", dataclasses.replace(complete, loads=()))):
        write_record(record, tmp_path / f"{name}.json")
    assert newest_complete_record(tmp_path).name == "2.json"


def test_readme_and_page_match_the_newest_complete_record(project_root: Path) -> None:
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    assert BEGIN in readme
    try:
        file = newest_complete_record(project_root / "benchmarks" / "results")
    except MissingSectionError:
        return
    assert render_section(read_record(file), _LINKS) in readme, _HINT
    page = render_page(read_record(file), name=file.name, plots=Path("..") / _PLOTS)
    assert (project_root / _PAGE).read_text(encoding="utf-8") == page, _HINT
    shown = set(re.findall(rf"{_PLOTS}/\w+\.svg", readme + page))
    assert shown
    for plot in shown:
        assert fingerprint(file) in (project_root / plot).read_text(encoding="utf-8"), f"{plot}: {_HINT}"


def test_plots_are_reproducible(tmp_path: Path) -> None:
    first = draw_plots(sample_record(), tmp_path / "first", "a record")
    second = draw_plots(sample_record(), tmp_path / "second", "a record")
    assert {file.name for file in first} == {
        f"{name}.{kind}"
        for name in (
            "throughput_by_peer",
            "throughput_against_latency",
            "throughput_against_clients",
            "quality_against_bytes",
            "scaling_rows_of_64_tokens",
            "scaling_tokens_in_one_text",
        )
        for kind in ("png", "svg")
    }
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
