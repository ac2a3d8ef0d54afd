"""The whole machinery on the tiny workload, as continuous integration runs it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.contenders import QUICK
from benchmarks.growth import MODEL, ROWS, TOKENS
from benchmarks.products import KINDS
from benchmarks.record import Record
from benchmarks.record_file import read_record
from benchmarks.tables import is_ours
from qwen3_triton.client.manifest import Task


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    cache = tmp_path_factory.mktemp("cache")
    result = CliRunner().invoke(app, ["run", "--quick", "--cache", str(cache)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "transformers fp32" in result.output
    (file,) = (cache / "results").glob("*-quick.json")
    assert str(cache) not in file.read_text(encoding="utf-8")
    return read_record(file)


def test_every_program_is_measured_and_right(record: Record) -> None:
    assert [measured.workload.task for measured in record.rounds] == [Task.EMBED, Task.RERANK]
    for measured in record.rounds:
        task = measured.workload.task
        assert {entry.program for entry in measured.entries} == {each.program for each in QUICK if each.task == task}
        assert not measured.absent
    embedded, scored = ({entry.program: entry for entry in measured.entries} for measured in record.rounds)
    for program in ("qwen3-triton fp32", "transformers fp32"):
        cosine = embedded[program].min_cosine
        assert cosine is not None and cosine > 0.999999
    error = scored["qwen3-triton fp32"].max_score_error
    assert error is not None and error < 1e-5


def test_ours_does_not_depend_on_company(record: Record) -> None:
    embedded, scored = ([e for e in measured.entries if is_ours(e.program)] for measured in record.rounds)
    assert embedded and scored
    assert all(entry.company_cosine is not None and entry.company_cosine > 0.99999 for entry in embedded)
    assert all(entry.company_score_error is not None and entry.company_score_error < 1e-5 for entry in scored)


def test_every_repetition_is_kept(record: Record) -> None:
    measured = record.rounds[0]
    assert all(len(entry.samples) == 7 and len(entry.warmups) == 1 for entry in measured.entries)
    assert len(measured.load_average) == 7
    assert {gauge.program for gauge in measured.products} == set(KINDS)
    assert all(len(gauge.samples) == 7 for gauge in measured.products)


def test_scan_holds_the_setting_that_was_chosen(record: Record) -> None:
    for entry in record.rounds[0].entries:
        assert entry.setting in [scan.setting for scan in entry.scan]


def test_profile_shows_where_our_time_goes(record: Record) -> None:
    profile = record.rounds[0].profile["qwen3-triton fp32"]
    assert profile["MatMul"] > 0
    assert all(spent >= 0 for spent in profile.values())


def test_server_is_loaded_in_both_loops(record: Record) -> None:
    assert {(load.program, load.loop) for load in record.loads} == {
        (program, loop) for program in ("qwen3-triton fp32", "qwen3-triton int8") for loop in ("closed", "open")
    }
    for load in record.loads:
        assert load.executions > 0
        assert not [error for each in load.repetitions for error in each.error if error]
        assert all(latency > 0 for each in load.repetitions for latency in each.latency_s)


def test_quality_is_that_of_the_demo_model(record: Record) -> None:
    scores = {(score.precision, score.dimension): score for score in record.quality}
    exact, eight = scores["transformers fp32", 256], scores["int8", 256]
    assert exact.min_cosine > 0.9999999
    assert abs(exact.ndcg_at_10 - eight.ndcg_at_10) < 0.01
    assert eight.min_cosine > 0.99


def test_growth_has_every_size_of_every_program(record: Record) -> None:
    assert {(growth.of, len(growth.points)) for growth in record.growth} == {(ROWS, 2), (TOKENS, 2), (MODEL, 2)}
    assert len(record.growth) == 6


def test_what_was_not_done_is_named(record: Record) -> None:
    assert set(record.not_done) == {"perf_analyzer 2.48.0"}
