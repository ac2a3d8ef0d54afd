"""`python -m benchmarks gpu --first-look` without a GPU: what a CPU can run is checked, the rest is listed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.environment import read_environment
from benchmarks.first_look import FirstLook, FirstLookOptions, look_first, render_first_look
from benchmarks.first_look.results import VariantTime
from benchmarks.model_shape import SHAPES
from qwen3_triton.export import RuntimeVersion


@pytest.mark.slow
def test_dry_first_look_checks_what_a_cpu_supports_and_lists_the_rest(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["gpu", "--first-look", "--dry", "--cache", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (file,) = (tmp_path / "results").glob("*-first-look.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    graphs = {(entry["checkpoint"], entry["graph"], entry["rows"]) for entry in found["accuracy"]}
    assert len(graphs) == 3 * 2 * 3
    assert {graph for _, graph, _ in graphs} == {"fp16 rows", "int8 rows"}
    for entry in found["accuracy"]:
        assert entry["min_cosine"] > (0.999 if entry["graph"] == "int8 rows" else 0.99999)
        assert entry["min_batched_cosine"] > 0.99999
        assert entry["gpu_nodes"] == 0
        assert entry["cpu_nodes"] > 50
    timed = {entry["variant"]: entry["wall_ms"] for entry in found["variants"]}
    assert {"fp16 rows", "fp16 rows always packed", "int8 rows"} <= set(timed)
    assert all(wall > 0 for walls in timed.values() for wall in walls)
    for check in (
        "silu by Exp",
        "accuracy of bf16 rows on demo",
        "accuracy of fp16 pages on demo",
        "compute-sanitizer",
    ):
        assert found["failures"][check]
    assert "demo" in result.output
    assert "failed: accuracy of fp16 pages on demo" in result.output
    # the graphs are removed
    assert not list(tmp_path.glob("first-look-*"))


def test_results_are_saved_after_every_check_and_failures_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Path:
        raise OSError("no space left")

    monkeypatch.setattr("benchmarks.first_look.checks.write_graph", broken)
    saved: list[FirstLook] = []
    options = FirstLookOptions(
        runtime=RuntimeVersion(1, 23, 2),
        cache=tmp_path,
        device="cpu",
        environment=read_environment(1),
        shape=SHAPES["tiny"],
        timed=("tiny",),
    )
    lines: list[str] = []
    look = look_first(options, lines.append, saved.append)
    assert len(saved) == sum(not line.startswith("  ") for line in lines)
    assert saved[-1] == look
    assert look.failures["accuracy of fp16 rows on demo"] == "OSError: no space left"
    assert look.failures["fp16 rows on tiny"] == "OSError: no space left"
    assert len(look.failures) > len(saved[0].failures) > 0
    assert not look.accuracy


def test_report_has_the_median_of_every_variant() -> None:
    times = VariantTime(workload="mix", variant="fp16 pages", tokens=1000, wall_ms=(9.0, 2.0, 4.0))
    look = dataclasses.replace(FirstLook(environment=read_environment(1)), variants=(times,))
    assert "mix        fp16 pages                          4.000      250,000" in render_first_look(look)
