"""The README's performance section and docs/performance.md match the records that they show."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from sample_record import sample_export, sample_record, sample_soak

from benchmarks.client.tables import client_sections
from benchmarks.cost import core_seconds_table
from benchmarks.environment import Gpu
from benchmarks.model_shape import SHAPES
from benchmarks.page import render_page
from benchmarks.plot_names import PEERS
from benchmarks.plots import draw_plots
from benchmarks.publication import MissingRecordError, Publication, PublishedRecord, WholeModel, read_publication
from benchmarks.readme import BEGIN, END, Links, MissingSectionError, render_section, replace_section
from benchmarks.record import Record
from benchmarks.record_file import write_record
from benchmarks.tables import (
    exports_table,
    latency_table,
    loads_table,
    matmul_table,
    operators_table,
    quality_table,
    scaling_table,
    soak_memory_table,
    soak_outcomes_table,
    speed_table,
)

_PAGE, _PLOTS = Path("docs") / "performance.md", Path("benchmarks") / "plots"
_LINKS = Links(plots=_PLOTS, page=_PAGE)
_GPU = Gpu(name="a GPU", memory_bytes=80_000_000_000, driver="1", cuda="13.0", providers="CUDA")
_HINT = "run: python -m benchmarks report --readme"


def sample_publication() -> Publication:
    """Return records of two processors and a complete one."""
    first = PublishedRecord(file=Path("a-record.json"), record=sample_record())
    environment = dataclasses.replace(first.record.environment, cpu="Another processor")
    other = dataclasses.replace(first.record, environment=environment)
    return Publication(
        whole=tuple(
            WholeModel(records=(each,), comparisons=each.record.comparisons)
            for each in (first, PublishedRecord(file=Path("another.json"), record=other))
        ),
        complete=PublishedRecord(file=Path("complete.json"), record=sample_record()),
        client=PublishedRecord(file=Path("clients.json"), record=sample_record()),
    )


def test_section_has_a_table_for_each_processor_and_a_plot() -> None:
    section = render_section(sample_publication(), _LINKS)
    assert "On A processor, 2 threads on 2 cores" in section
    assert "On Another processor, 2 threads on 2 cores" in section
    assert section.count("| qwen3-triton fp32 | 100 |") == 2
    assert section.count("| other | 33 (2.00) |") == 2
    assert "needs another processor" not in section
    assert "benchmarks/plots/throughput_by_peer.svg" in section
    assert f"]({_PAGE})" in section


def test_page_has_all_tables_and_lists_what_was_not_measured() -> None:
    publication = sample_publication()
    record = publication.complete.record
    page = render_page(publication, plots=Path("..") / _PLOTS)
    for name in ("a-record.json", "another.json", "complete.json", "clients.json"):
        assert f"`{name}`" in page
    for table in (
        *(speed_table(comparison) for comparison in record.comparisons),
        matmul_table(record.comparisons[0]),
        operators_table(record.comparisons[0]),
        core_seconds_table(record),
    ):
        assert table.rows and page.count(table.to_markdown()) == 3
    for table in (
        loads_table(record.loads),
        latency_table(record.overload),
        latency_table(record.batching),
        soak_memory_table(sample_soak()),
        exports_table([sample_export()]),
        soak_outcomes_table(sample_soak()),
        quality_table(record.quality),
        scaling_table(record.scaling),
        *(section.table for section in client_sections(record)),
    ):
        assert table.rows and table.to_markdown() in page
    assert "Not measured: third: it needs another processor." in page
    assert "- perf_analyzer: no wheel." in page


def test_page_without_a_record_of_the_clients_has_no_section_about_them() -> None:
    publication = dataclasses.replace(sample_publication(), client=None)
    assert "## The clients" in render_page(sample_publication(), plots=_PLOTS)
    assert "## The clients" not in render_page(publication, plots=_PLOTS)


def test_all_referenced_plots_are_drawn(tmp_path: Path) -> None:
    publication = sample_publication()
    shown = render_section(publication, _LINKS) + render_page(publication, plots=_PLOTS)
    names = set(re.findall(rf"\]\({_PLOTS}/(\w+)\.svg\)", shown))
    assert names == {file.stem for file in draw_plots(sample_record(), tmp_path, "a record")}
    only = draw_plots(sample_record(), tmp_path, "a record", lambda name: name == PEERS)
    assert {file.stem for file in only} == {PEERS}


def test_section_is_replaced_between_the_markers() -> None:
    readme = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replace_section(readme, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(MissingSectionError, match="lacks the markers"):
        replace_section("no markers", "new")


def test_newest_complete_record_is_selected(tmp_path: Path) -> None:
    with pytest.raises(MissingRecordError, match="no record of a complete run"):
        read_publication(tmp_path)
    complete = _with_shape("0.6b-4-layers")
    for name, record in (("1", complete), ("2", complete), ("3", dataclasses.replace(complete, loads=()))):
        write_record(record, tmp_path / f"{name}.json")
    with pytest.raises(MissingRecordError, match=r"no record of the whole model yet; run: .* --model 0\.6b"):
        read_publication(tmp_path)
    write_record(_with_shape("0.6b"), tmp_path / "0.json")
    publication = read_publication(tmp_path)
    assert publication.complete.file.name == "2.json"
    assert publication.client and publication.client.file.name == "3.json"
    assert [each.file.name for each in publication.whole[0].records] == ["0.json"]


def test_each_processor_has_the_newest_comparison_of_every_workload(tmp_path: Path) -> None:
    whole = _with_shape("0.6b")
    elsewhere = dataclasses.replace(whole.environment, cpu="Another processor")
    changed = dataclasses.replace(whole.environment, packages={"torch": "1"})
    on_gpu = dataclasses.replace(elsewhere, gpu=_GPU)
    records = {
        "1": _with_workloads(whole, "mix", "queries"),
        "2": _with_workloads(whole, "queries", "own"),
        "3": _with_workloads(whole, "mix"),
        "4": dataclasses.replace(_with_workloads(whole, "rerank"), environment=elsewhere),
        "5": dataclasses.replace(_with_workloads(whole, "passages"), environment=changed),
        "6": dataclasses.replace(whole, comparisons=(*whole.comparisons, *_with_shape("0.6b-4-layers").comparisons)),
        "7": dataclasses.replace(whole, comparisons=()),
        "8": dataclasses.replace(whole, environment=on_gpu),
    }
    # the newest record of the processor decides its environment, so a change of a package starts anew
    started = {"1": 2, "2": 4, "3": 3, "4": 5, "5": 1, "6": 6, "7": 7, "8": 8}
    for name, record in records.items():
        write_record(dataclasses.replace(record, started=f"2026-01-0{started[name]}"), tmp_path / f"{name}.json")
    # the processor with the most workloads first
    own, other = read_publication(tmp_path).whole
    assert [each.file.name for each in other.records] == ["4.json"]
    assert [each.file.name for each in own.records] == ["2.json", "3.json"]
    assert [each.workload.name for each in own.comparisons] == ["mix", "queries", "own"]
    assert own.comparisons[0].workload.seed == 3


def test_workload_of_another_record_is_not_missing() -> None:
    record = sample_record()
    pending = {f"workload {name}": "interrupted" for name in (record.comparisons[0].workload.name, "long")}
    published = PublishedRecord(file=Path("a.json"), record=dataclasses.replace(record, not_measured=pending))
    assert WholeModel(records=(published,), comparisons=record.comparisons).not_measured == {
        "workload long": "interrupted"
    }


def _with_workloads(record: Record, *names: str) -> Record:
    """Return a record with the first comparison of `record` under other names, with seed 2 for two names, 3 for one."""
    first = record.comparisons[0]
    comparisons = [
        dataclasses.replace(first, workload=dataclasses.replace(first.workload, name=name, seed=2 + len(names) % 2))
        for name in names
    ]
    return dataclasses.replace(record, comparisons=tuple(comparisons))


def _with_shape(model: str) -> Record:
    """Return the sample record with the shape of a model."""
    record = sample_record()
    shape = dataclasses.asdict(SHAPES[model])
    comparisons = [
        dataclasses.replace(each, workload=dataclasses.replace(each.workload, shape=shape))
        for each in record.comparisons
    ]
    return dataclasses.replace(record, comparisons=tuple(comparisons))


def test_readme_and_page_match_the_records(project_root: Path) -> None:
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    publication = read_publication(project_root / "benchmarks" / "results")
    assert render_section(publication, _LINKS) in readme, _HINT
    page = render_page(publication, plots=Path("..") / _PLOTS)
    assert (project_root / _PAGE).read_text(encoding="utf-8") == page, _HINT
    shown = set(re.findall(rf"{_PLOTS}/(\w+)\.svg", readme + page))
    assert PEERS in shown and len(shown) > 1
    for plot in shown:
        source = (publication.whole[0].newest if plot == PEERS else publication.complete).source
        assert source in (project_root / _PLOTS / f"{plot}.svg").read_text(encoding="utf-8"), f"{plot}: {_HINT}"


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
