"""A hand-written record with round numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from benchmarks.client.results import (
    BatchCount,
    BulkRepetition,
    BulkSpeed,
    CallCost,
    ClientMeasurements,
    CpuTurns,
    ImportTime,
    ServerTimes,
)
from benchmarks.environment import CodeState, Environment
from benchmarks.model_shape import SHAPES
from benchmarks.record import (
    Comparison,
    Entry,
    ExportCost,
    ExportStage,
    LatencyCase,
    Load,
    MatmulProbe,
    MemorySample,
    QualityScore,
    Record,
    Request,
    Requests,
    Sample,
    ScalingCurve,
    ScalingPoint,
    ScalingVariable,
    Scan,
    Soak,
    WorkloadInfo,
)

OURS = "qwen3-triton fp32"


def entry(program: str, setting: str, walls_s: Sequence[float]) -> Entry:
    """Return an entry whose CPU time is twice its wall time."""
    samples = tuple(Sample(wall_s=wall, cpu_s=2 * wall) for wall in walls_s)
    return Entry(
        program=program,
        setting=setting,
        versions={"thing": "1.0"},
        min_cosine=0.9999999,
        batched_cosine=0.5,
        warmups=samples[:1],
        samples=samples,
        scan=(Scan(setting=setting, samples=samples[:1]),),
    )


def sample_comparison() -> Comparison:
    """Return a comparison in which OURS takes 1, 2 and 1 s, and the other contender 2, 4 and 3 s."""
    shape = SHAPES["tiny"]
    return Comparison(
        workload=WorkloadInfo(
            name="tiny",
            seed=1,
            texts=6,
            tokens=100,
            shortest=2,
            longest=24,
            shape={"layers": shape.layers, "hidden": shape.hidden, "vocabulary": shape.vocabulary},
            needed_flops=2 * 10**10,
        ),
        entries=(
            entry("other", "sorted padded batches of 2", [2.0, 4.0, 3.0]),
            entry(OURS, "one packed batch", [1.0, 2.0, 1.0]),
        ),
        not_measured={"third": "it needs another processor"},
        matmuls=(
            MatmulProbe(program="slow fp32", flops=10**9, samples=(Sample(wall_s=0.02, cpu_s=0.02),)),
            MatmulProbe(program="fast fp32", flops=10**9, samples=(Sample(wall_s=0.01, cpu_s=0.02),)),
            MatmulProbe(program="only int8", flops=10**9, samples=(Sample(wall_s=0.0025, cpu_s=0.02),)),
        ),
        profile_us={OURS: {"MatMul": 900, "Loop": 100}},
        load_average=(0.5, 1.5, 1.0),
    )


def sample_load() -> Load:
    """Return a load with repetitions at one and at two texts per second, and one failed request."""
    slow = [
        Request(start_s=0.0, latency_s=1.0, text_index=0, error=None),
        Request(start_s=0.0, latency_s=0.1, text_index=1, error="ServerTimeoutError"),
        Request(start_s=0.0, latency_s=2.0, text_index=0, error=None),
    ]
    fast = [Request(start_s=0.0, latency_s=0.5, text_index=0, error=None)]
    return Load(
        program=OURS,
        driver="a driver",
        workload="tiny",
        tokens=(5, 15),
        loop="closed",
        in_flight=2,
        rate_per_s=None,
        warmups=Requests.of([]),
        repetitions=(Requests.of(slow), Requests.of(fast)),
        rows=6,
        executions=3,
    )


def sample_overload() -> tuple[LatencyCase, LatencyCase]:
    """Return a baseline whose slowest requests take 1 and 2 s, and a case whose slowest ones take 3 s each."""

    def repetition(*latencies_s: float) -> Requests:
        return Requests.of([Request(start_s=0.0, latency_s=each, text_index=0, error=None) for each in latencies_s])

    return (
        LatencyCase(setting="no limits", load="bursts", repetitions=(repetition(0.5, 1.0), repetition(2.0))),
        LatencyCase(
            setting="a limit",
            load="bursts",
            repetitions=(repetition(3.0, 0.5), repetition(3.0)),
            bulk_texts_per_s=(10.0, 20.0),
        ),
    )


def sample_client() -> ClientMeasurements:
    """Return calls that take 10 µs a text without tokenization, and a bulk job at 0.8 and 0.6 of a session's speed."""
    server = ServerTimes(
        requests=4,
        batches=(BatchCount(rows=30, batches=2), BatchCount(rows=40, batches=1)),
        queue_s=2.0,
        input_s=0.1,
        infer_s=1.0,
        output_s=0.2,
    )
    return ClientMeasurements(
        precision="int8",
        shape={"layers": 2, "hidden": 64, "vocabulary": 512},
        versions={"grpcio": "1.0"},
        costs=(
            CallCost(
                client="EmbeddingClient",
                texts=100,
                tokens=2_000,
                calls=12,
                requests=24,
                repetitions=(
                    CpuTurns(calls_s=(0.002, 0.004), tokenizations_s=(0.001, 0.003)),
                    CpuTurns(calls_s=(0.005, 0.005), tokenizations_s=(0.004, 0.004)),
                ),
            ),
        ),
        bulk=(
            BulkSpeed(
                threads=2,
                texts=100,
                tokens=1_000,
                repetitions=tuple(
                    BulkRepetition(
                        client_wall_s=wall_s,
                        client_cpu_s=0.1,
                        tokenization_wall_s=0.1,
                        server=server,
                        session_wall_s=session_s,
                        session_cpu_s=1.0,
                    )
                    for wall_s, session_s in ((1.0, 0.8), (2.0, 1.2))
                ),
            ),
        ),
        imported=ImportTime(
            statement="import a_client",
            wall_s=(0.3, 0.5),
            cpu_s=(0.2, 0.2),
            empty_wall_s=(0.1, 0.1),
            empty_cpu_s=(0.1, 0.1),
        ),
    )


def sample_client_loads() -> tuple[Load, Load]:
    """Return a client and perf_analyzer with the same requests."""
    return (
        dataclasses.replace(sample_load(), driver="EmbeddingClient, 2 threads"),
        dataclasses.replace(sample_load(), driver="perf_analyzer 1.0"),
    )


def sample_export() -> ExportCost:
    return ExportCost(
        setting="fp16 for cuda",
        checkpoint_bytes=15_000_000_000,
        written_bytes=15_100_000_000,
        copies_s=(20.0, 30.0),
        stages=(
            ExportStage(name="reading", wall_s=1.0, forward=False),
            ExportStage(name="computing the reference", wall_s=300.0, forward=True),
            ExportStage(name="writing", wall_s=49.0, forward=False),
        ),
        cpu_s=120.0,
        peak_mb=1500.0,
        peak_allocated_mb=1400.0,
        load_average=(0.1, 1.5),
        disk_read_bytes=15_200_000_000,
    )


def sample_soak() -> Soak:
    """Return a run whose backend grows from 100 to 120 MB in its first third."""
    backend_mb = [100.0, 120.0, 120.0, 120.0, 121.0, 119.0]
    return Soak(
        precision="fp32",
        duration_s=1800.0,
        outcomes={"query: right": 1_000, "raw request: answered": 7},
        memory=tuple(
            MemorySample(elapsed_s=300.0 * number, server_mb=10.0, backend_mb=mb, clients_mb=50.0)
            for number, mb in enumerate(backend_mb)
        ),
    )


def _score(dimension: int, ndcg: float) -> QualityScore:
    return QualityScore(
        model="demo",
        precision="int8",
        task="A_TASK",
        dimension=dimension,
        ndcg_at_10=ndcg,
        queries=4,
        documents=9,
        min_cosine=0.99,
        mean_cosine=0.995,
    )


def _point(size: float, wall_s: float) -> ScalingPoint:
    return ScalingPoint(size=size, samples=(Sample(wall_s=wall_s, cpu_s=wall_s),))


def sample_record(*, threads: int = 2) -> Record:
    """Return a record with one comparison."""
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
        command="python -m benchmarks run",
        comparisons=(sample_comparison(),),
        loads=(sample_load(),),
        overload=sample_overload(),
        batching=sample_overload()[1:],
        client=sample_client(),
        client_loads=sample_client_loads(),
        soak=sample_soak(),
        exports=(sample_export(),),
        quality=(_score(32, 0.4), _score(64, 0.5)),
        scaling=(
            ScalingCurve(
                program=OURS, variable=ScalingVariable.TOKENS, points=(_point(1, 3.0), _point(2, 7.0), _point(4, 21.0))
            ),
            ScalingCurve(program=OURS, variable=ScalingVariable.ROWS, points=(_point(1, 3.0), _point(2, 5.0))),
        ),
        not_measured={"perf_analyzer": "no wheel"},
    )
