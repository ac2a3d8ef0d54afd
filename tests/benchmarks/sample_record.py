"""A hand-made record with round figures."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.environment import CodeState, Environment
from benchmarks.model_shape import SHAPES
from benchmarks.record import Entry, ProductGauge, Record, Round, Sample, Scan, WorkloadFacts

OURS = "qwen3-triton fp32"


def entry(program: str, setting: str, walls_s: Sequence[float]) -> Entry:
    """An entry whose processor time is twice its wall time."""
    samples = tuple(Sample(wall_s=wall, cpu_s=2 * wall) for wall in walls_s)
    return Entry(
        program=program,
        setting=setting,
        versions={"thing": "1.0"},
        min_cosine=0.9999999,
        company_cosine=0.5,
        warmups=samples[:1],
        samples=samples,
        scan=(Scan(setting=setting, samples=samples[:1]),),
    )


def sample_round() -> Round:
    """Ours takes 1, 2 and 1 s; the other one 2, 4 and 3 s."""
    shape = SHAPES["tiny"]
    return Round(
        workload=WorkloadFacts(
            name="tiny",
            seed=1,
            texts=6,
            tokens=100,
            shortest=2,
            longest=24,
            shape={"layers": shape.layers, "hidden": shape.hidden, "vocabulary": shape.vocabulary},
        ),
        entries=(
            entry("other", "sorted padded batches of 2", [2.0, 4.0, 3.0]),
            entry(OURS, "one packed batch", [1.0, 2.0, 1.0]),
        ),
        absent={"third": "it needs another processor"},
        products=(ProductGauge(program="onnxruntime fp32", flops=10**9, samples=(Sample(wall_s=0.01, cpu_s=0.02),)),),
        profile={OURS: {"MatMul": 900, "Loop": 100}},
        load_average=(0.5, 1.5, 1.0),
    )


def sample_record(*, threads: int = 2) -> Record:
    """A record of one round."""
    return Record(
        started="2026-01-02T03:04:05+00:00",
        code=CodeState(commit="0123456789abcdef", modified=False),
        environment=Environment(
            cpu="A processor",
            cores=2,
            threads=threads,
            system="Linux x86_64",
            python="3.11.0",
            packages={"onnxruntime": "1.23.2", "torch": "2.13.0"},
        ),
        rounds=(sample_round(),),
    )
