"""A complete quick run, as `make bench-quick` executes it, and the record that it writes."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.contenders import QUICK
from benchmarks.record import Record, ScalingVariable
from benchmarks.record_file import read_json, read_record
from benchmarks.roofline import CPU_PROBES
from benchmarks.tables import is_ours
from qwen3_triton.client.manifest import Task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    cache = tmp_path_factory.mktemp("cache")
    result = CliRunner().invoke(app, ["run", "--quick", "--cache", str(cache)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "transformers fp32" in result.output
    (file,) = (cache / "results").glob("*-quick.json.xz")
    assert str(cache) not in read_json(file).decode()
    return read_record(file)


def test_every_program_is_measured_and_correct(record: Record) -> None:
    assert [comparison.workload.task for comparison in record.comparisons] == [Task.EMBED, Task.RERANK]
    for comparison in record.comparisons:
        task = comparison.workload.task
        assert {entry.program for entry in comparison.entries} == {each.program for each in QUICK if each.task == task}
        assert not comparison.not_measured
    embedded, scored = ({entry.program: entry for entry in comparison.entries} for comparison in record.comparisons)
    for program in ("qwen3-triton fp32", "transformers fp32"):
        cosine = embedded[program].min_cosine
        assert cosine is not None and cosine > 0.999999
    error = scored["qwen3-triton fp32"].max_score_error
    assert error is not None and error < 1e-5


def test_own_graphs_are_batch_invariant(record: Record) -> None:
    embedded, scored = ([e for e in comparison.entries if is_ours(e.program)] for comparison in record.comparisons)
    assert embedded and scored
    assert all(entry.batched_cosine is not None and entry.batched_cosine > 0.99999 for entry in embedded)
    assert all(entry.batched_score_error is not None and entry.batched_score_error < 1e-5 for entry in scored)


def test_every_repetition_is_recorded(record: Record) -> None:
    comparison = record.comparisons[0]
    assert all(len(entry.samples) == 7 and len(entry.warmups) == 1 for entry in comparison.entries)
    assert len(comparison.load_average) == 7
    assert {probe.program for probe in comparison.matmuls} == set(CPU_PROBES)
    assert all(len(probe.samples) == 7 for probe in comparison.matmuls)


def test_scan_contains_the_selected_setting(record: Record) -> None:
    for entry in record.comparisons[0].entries:
        assert entry.setting in [scan.setting for scan in entry.scan]


def test_profile_contains_operator_times(record: Record) -> None:
    profile_us = record.comparisons[0].profile_us["qwen3-triton fp32"]
    assert profile_us["MatMul"] > 0
    assert all(spent >= 0 for spent in profile_us.values())


def test_server_is_measured_in_both_loops(record: Record) -> None:
    assert {(load.program, load.loop) for load in record.loads} == {
        (program, loop) for program in ("qwen3-triton fp32", "qwen3-triton int8") for loop in ("closed", "open")
    }
    for load in record.loads:
        assert load.executions > 0
        assert not [error for each in load.repetitions for error in each.error if error]
        assert all(latency > 0 for each in load.repetitions for latency in each.latency_s)


def test_single_texts_are_measured_with_every_setting_and_beside_bulk_jobs(record: Record) -> None:
    loads = [case.load for case in record.overload]
    assert [loads.count(load) for load in dict.fromkeys(loads)] == [4, 4, 6]
    for case in record.overload:
        assert not [error for each in case.repetitions for error in each.error if error]
        assert bool(case.bulk_texts_per_s) == (case.load == loads[-1] and case.setting != "no bulk job")


def test_single_texts_are_measured_with_every_token_budget(record: Record) -> None:
    assert [case.setting for case in record.batching] == ["one text", "64 tokens"]
    for case in record.batching:
        assert case.load.endswith("50% of the throughput")
        assert not [error for each in case.repetitions for error in each.error if error]


def test_clients_are_measured_in_every_way(record: Record) -> None:
    client = record.client
    assert client is not None and client.imported is not None
    assert [cost.client for cost in client.costs] == ["AsyncEmbeddingClient", "EmbeddingClient"]
    for cost in client.costs:
        # 2 calls of 8 texts in each of 2 repetitions, each with two others
        assert (cost.texts, cost.calls, cost.requests) == (8, 12, 12)
        assert [len(turns.calls_s) for turns in cost.repetitions] == [2, 2]
        assert all(min(turns.calls_s + turns.tokenizations_s) > 0 for turns in cost.repetitions)
    for speed in client.bulk:
        for each in speed.repetitions:
            assert sum(count.rows * count.batches for count in each.server.batches) == speed.texts
            assert 0 < each.server.infer_s < each.client_wall_s
            assert min(each.session_wall_s, each.tokenization_wall_s) > 0
    assert [load.driver for load in record.client_loads] == [
        "AsyncEmbeddingClient, 4 tasks",
        "EmbeddingClient, 4 threads",
    ]
    for load in record.client_loads:
        assert not [error for each in load.repetitions for error in each.error if error]
        assert load.rows >= sum(len(each.start_s) for each in load.repetitions)
    assert min(client.imported.wall_s) > max(client.imported.empty_wall_s)


def test_exports_run_beside_copies(record: Record) -> None:
    [export] = record.exports
    assert export.written_bytes > 0
    assert len(export.copies_s) == 2
    assert export.peak_mb > 0
    assert export.peak_allocated_mb > 0
    assert any(stage.name.startswith("writing") for stage in export.stages)
    # neither fp16 nor what is not compared needs the reference
    assert not [stage.name for stage in export.stages if stage.forward]


def test_soak_checks_results_and_samples_the_memory(record: Record) -> None:
    assert record.soak is not None
    outcomes = record.soak.outcomes
    assert {key.partition(": ")[0] for key in outcomes} >= {"query", "bulk window", "new client", "raw request"}
    assert not [key for key in outcomes if key.endswith(("wrong", "UNAVAILABLE", "INTERNAL", "UNKNOWN"))]
    assert len(record.soak.memory) > 1
    assert all(min(sample.server_mb, sample.backend_mb, sample.clients_mb) > 0 for sample in record.soak.memory)


def test_quality_of_int8_is_close_to_the_reference(record: Record) -> None:
    scores = {(score.precision, score.dimension): score for score in record.quality}
    reference, int8 = scores["transformers fp32", 256], scores["int8", 256]
    assert reference.min_cosine > 0.9999999
    assert abs(reference.ndcg_at_10 - int8.ndcg_at_10) < 0.01
    assert int8.min_cosine > 0.99


def test_scaling_has_every_size_of_every_program(record: Record) -> None:
    assert {(curve.variable, len(curve.points)) for curve in record.scaling} == {(each, 2) for each in ScalingVariable}
    assert len(record.scaling) == 6


def test_everything_not_measured_is_listed(record: Record) -> None:
    assert set(record.not_measured) == {"perf_analyzer 2.48.0"}
