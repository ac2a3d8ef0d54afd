"""Statistics, batches and tables of the part client; a quick run measures it with a real server."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_processors import ZEN_4
from google.protobuf import text_format
from sample_record import sample_client, sample_client_loads, sample_record
from tritonclient.grpc import model_config_pb2, service_pb2

from benchmarks.client.bulk import same_batches
from benchmarks.client.imports import measure_import
from benchmarks.client.options import ClientOptions, bulk_workload, short_workload
from benchmarks.client.results import BatchCount
from benchmarks.client.served import link_threads, thread_model, times_between
from benchmarks.client.tables import bulk_table, client_sections, costs_table, import_table, single_texts_table
from benchmarks.contenders.contender import ContenderUnavailableError, RunContext
from benchmarks.report import render_record
from benchmarks.workload import WORKLOADS
from qwen3_triton.client.manifest import ModelFolder

_MILLISECOND = 1_000_000
_EXPORTED = """name: "benchmark" max_batch_size: 7 instance_group { count: 2 kind: KIND_CPU }
parameters { key: "intra_op_thread_count" value { string_value: "0" } }"""


def test_models_differ_in_threads_and_have_one_instance(tmp_path: Path) -> None:
    source, repository = ModelFolder(tmp_path / "source" / "benchmark"), tmp_path / "repository"
    (source.path / "1").mkdir(parents=True)
    source.graph(1).write_bytes(b"weights")
    source.config.write_text(_EXPORTED)
    repository.mkdir()
    for threads in (1, 8):
        link_threads(source, repository, threads)
        folder = ModelFolder(repository / thread_model(threads))
        assert folder.graph(1).resolve() == source.graph(1).resolve()
        expected = text_format.Parse(_EXPORTED, model_config_pb2.ModelConfig())
        expected.name = thread_model(threads)
        expected.instance_group[0].count = 1
        expected.parameters["intra_op_thread_count"].string_value = str(threads)
        assert text_format.Parse(folder.config.read_text(), model_config_pb2.ModelConfig()) == expected


def _statistics(requests: int, batches: dict[int, int]) -> service_pb2.ModelStatistics:
    """Return statistics in which a batch takes 1 ms for inputs, 2 ms to compute and 3 ms for outputs."""
    statistics = service_pb2.ModelStatistics()
    statistics.inference_stats.success.count = requests
    statistics.inference_stats.queue.ns = 4 * _MILLISECOND * requests
    for rows, count in batches.items():
        batch = statistics.batch_stats.add(batch_size=rows)
        for number, times in enumerate((batch.compute_input, batch.compute_infer, batch.compute_output), 1):
            times.count, times.ns = count, number * _MILLISECOND * count
    return statistics


def test_server_times_are_those_between_two_readings() -> None:
    times = times_between(_statistics(5, {1: 2, 64: 3}), _statistics(12, {1: 2, 7: 1, 64: 7}))
    assert times.requests == 7
    assert times.batches == (BatchCount(rows=7, batches=1), BatchCount(rows=64, batches=4))
    assert (times.queue_s, times.input_s, times.infer_s, times.output_s) == (0.028, 0.005, 0.01, 0.015)


def test_session_gets_batches_of_the_servers_sizes_longest_rows_first() -> None:
    rows = [[5], [1, 2, 3], [7, 8], [9, 10, 11]]
    first, second = same_batches(rows, [BatchCount(rows=3, batches=1), BatchCount(rows=1, batches=1)])
    assert first.tolist() == [[1, 2, 3]]
    assert second.tolist() == [[9, 10, 11], [7, 8, -1], [5, -1, -1]]


def test_rows_that_the_server_computed_twice_are_no_batches_to_compare_with() -> None:
    with pytest.raises(ContenderUnavailableError, match="5 rows for 4 texts"):
        same_batches([[1], [2], [3], [4]], [BatchCount(rows=5, batches=1)])


def test_texts_have_lengths_that_the_served_model_accepts() -> None:
    for options, served in ((ClientOptions(), WORKLOADS["mix"]), (ClientOptions.quick(), WORKLOADS["tiny"])):
        workloads = (bulk_workload(options, 300), short_workload(options))
        assert [len(workload.rows(vocabulary=9)) for workload in workloads] == [300, options.texts_per_repetition]
        assert max(workload.longest for workload in workloads) <= served.longest


def test_import_takes_longer_than_an_empty_process(tmp_path: Path) -> None:
    context = RunContext(
        checkpoint=tmp_path,
        cache=tmp_path,
        threads=1,
        max_tokens=1,
        log=lambda _: None,
        cleanup=ExitStack(),
        processor=ZEN_4,
    )
    imported = measure_import(1, context)
    assert (len(imported.wall_s), len(imported.empty_cpu_s)) == (1, 1)
    assert imported.cpu_s[0] > imported.empty_cpu_s[0] > 0


def test_processor_time_is_that_of_calls_minus_that_of_tokenization() -> None:
    [row] = costs_table(sample_client().costs).rows
    assert row == ("EmbeddingClient", "100", "10.0", "2.0", "40.0", "30.0", "10.0", "10.0 to 10.0")


def test_speed_of_a_bulk_job_is_a_product_of_two_parts() -> None:
    [row] = bulk_table(sample_client().bulk).rows
    # 1 s of the backend in calls of 1 and 2 s, and sessions of 0.8 and 1.2 s
    assert row[:7] == ("2", "100", "33.3", "100.0", "66.7", "70.0%", "60.0% to 80.0%")
    assert row[7:] == ("100.0%", "75.0%", "7.5%", "15.0%", "7.5%", "500.0")


def test_single_texts_are_compared_with_perf_analyzer_in_the_same_repetition() -> None:
    loads = sample_client_loads()
    slower = dataclasses.replace(loads[0], repetitions=(loads[0].repetitions[0],) * 2)
    first, second = single_texts_table((slower, loads[1])).rows
    assert first[:5] == ("EmbeddingClient, 2 threads", "1.0", "1.0 to 1.0", "0.75", "0.50 to 1.00")
    assert second[3:5] == ("1.00", "1.00 to 1.00")
    [alone] = single_texts_table(loads[:1]).rows
    assert alone[3:5] == ("-", "-")


def test_import_is_reported_without_the_interpreter() -> None:
    imported = sample_client().imported
    assert imported is not None
    [row] = import_table([imported]).rows
    assert row == ("`import a_client`", "0.300", "0.200 to 0.400", "0.100", "0.100 to 0.100", "0.100")


def test_report_has_a_table_for_what_was_measured() -> None:
    record = sample_record()
    text = render_record(record)
    assert "client: int8, 2 layers with hidden size 64, random weights with a fixed seed; grpcio 1.0" in text
    sections = client_sections(record)
    assert [section.title for section in sections] == ["Processor time", "Bulk jobs", "Single texts", "Import"]
    assert all(section.table.to_text() in text for section in sections)
    partial = dataclasses.replace(record, client=dataclasses.replace(sample_client(), bulk=()), client_loads=())
    assert [section.title for section in client_sections(partial)] == ["Processor time", "Import"]
    assert client_sections(dataclasses.replace(record, client=None)) == []
