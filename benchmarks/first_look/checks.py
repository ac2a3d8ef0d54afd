"""The checks of a first look. Every result is saved at once, and a check that fails is listed with its reason."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen3Model

from qwen3_triton.client.manifest import Precision
from qwen3_triton.export import (
    CudaAttention,
    CudaProfile,
    Device,
    GraphOptions,
    RuntimeVersion,
    SilentProgress,
    SourceReference,
    open_checkpoint,
    weight_format,
    write_graph,
)
from qwen3_triton.export.verification.parity import cosines

from ..checkpoint import cached_checkpoint
from ..contenders.ours import feed_rows
from ..cuda_session import CUDA_PROVIDER
from ..environment import Environment
from ..model_shape import SHAPES, ModelShape
from ..rows import Rows, Vectors
from ..workload import WORKLOADS
from .results import Accuracy, FirstLook, NewShapes, VariantTime
from .silu import OPERATORS, activation_errors
from .variant import Variant

_DEMO = Path(__file__).resolve().parent.parent.parent / "examples" / "demo" / "checkpoint"
_TINY = {
    "8 query heads, 2 key heads of 128": ModelShape(
        layers=3, hidden=256, intermediate=384, heads=8, kv_heads=2, head_dim=128, vocabulary=512
    ),
    "3 query heads, 3 key heads of 64": ModelShape(
        layers=2, hidden=128, intermediate=256, heads=3, kv_heads=3, head_dim=64, vocabulary=512
    ),
}
PRECISIONS = (Precision.FP16, Precision.BF16, Precision.INT8)
_MAX_TOKENS = 2048
_BATCHES = (1, 7, 64)
_WIDTHS = tuple(range(37, 57))
_WIDTH_ROWS = 8
_PASSES = 15
_SANITIZER = "compute-sanitizer"
_SANITIZER_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLookOptions:
    """Where to run and what to write."""

    runtime: RuntimeVersion
    cache: Path
    device: str
    """cuda, or cpu to test the checks themselves."""
    environment: Environment
    shape: ModelShape = SHAPES["0.6b-4-layers"]
    """Model of the timed checks."""
    timed: tuple[str, ...] = ("mix", "256-of-64", "mix-256", "text-20")
    """Workloads of the timed checks."""


class _Look:
    """The state of a look in progress."""

    def __init__(
        self, options: FirstLookOptions, log: Callable[[str], None], save: Callable[[FirstLook], None]
    ) -> None:
        self.options = options
        self.results = FirstLook(environment=options.environment)
        self._log = log
        self._save = save
        self._folder = Path(tempfile.mkdtemp(prefix="first-look-", dir=options.cache))

    def check(self, name: str, run: Callable[[], FirstLook]) -> None:
        """Run a check and save its results; a failure is listed."""
        self._log(name)
        started = time.perf_counter()
        try:
            self.results = run()
        except Exception as exc:  # noqa: BLE001 - the other checks go on, whatever fails
            message = str(exc).strip() or "no message"
            reason = f"{type(exc).__name__}: {message.splitlines()[0][:300]}"
            self._log(f"  failed: {reason}")
            self.results = dataclasses.replace(self.results, failures={**self.results.failures, name: reason})
        self._log(f"  {time.perf_counter() - started:.1f} s")
        self._save(self.results)

    def close(self) -> None:
        """Remove the graphs."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, checkpoint: Path, variant: Variant) -> Path:
        """Write the graph of `variant`, unless that was done before."""
        folder = self._folder / f"{checkpoint.name}-{variant.name}".replace(" ", "-")
        if not folder.exists():
            source = open_checkpoint(SourceReference(str(checkpoint)))
            options = GraphOptions(format=variant.format, max_tokens=_MAX_TOKENS, cuda=variant.profile)
            write_graph(source, folder / "model.onnx", options, SilentProgress())
        return folder / "model.onnx"

    def open(self, checkpoint: Path, variant: Variant, profile: str = "") -> Any:
        """Open a session on the graph of `variant`."""
        return variant.open(self.write(checkpoint, variant), self.options.device, profile)

    def profile(self, attention: CudaAttention, runtime: RuntimeVersion | None = None, **fields: bool) -> CudaProfile:
        """Return the build options of a graph for the runtime that is looked at, or for an earlier one."""
        on_cpu = self.options.device == "cpu"
        return CudaProfile(runtime=runtime or self.options.runtime, attention=attention, cpu_twin=on_cpu, **fields)


def look_first(
    options: FirstLookOptions, log: Callable[[str], None], save: Callable[[FirstLook], None] = lambda _: None
) -> FirstLook:
    """Run all checks.

    Args:
        options: where to run.
        log: receives lines of progress.
        save: receives the results after every check.
    """
    options.cache.mkdir(parents=True, exist_ok=True)
    look = _Look(options, log, save)
    try:
        _check_all(look)
    finally:
        look.close()
    return look.results


def _check_all(look: _Look) -> None:
    for operator in OPERATORS:
        look.check(f"silu by {operator}", lambda: _activation_errors(look, operator))  # noqa: B023
    sources = {"demo": _DEMO} | {name: cached_checkpoint(shape, look.options.cache) for name, shape in _TINY.items()}
    for name, checkpoint in sources.items():
        references: dict[int, tuple[Rows, Vectors]] = {}
        look.check(f"reference of {name}", lambda: _references(look, checkpoint, references))  # noqa: B023
        for precision in PRECISIONS:
            for attention in CudaAttention:
                variant = Variant(format=weight_format(precision, Device.CUDA), profile=look.profile(attention))
                look.check(
                    f"accuracy of {variant.name} on {name}",
                    lambda: _accuracy(look, name, checkpoint, variant, references),  # noqa: B023
                )
    timed = cached_checkpoint(look.options.shape, look.options.cache)
    for workload in look.options.timed:
        look.check(f"variants on {workload}", lambda: _variant_times(look, timed, workload))  # noqa: B023
    look.check("new shapes", lambda: _new_shapes(look, timed))
    look.check(_SANITIZER, lambda: _sanitize(look, sources["3 query heads, 3 key heads of 64"]))


# --- accuracy


def _references(look: _Look, checkpoint: Path, found: dict[int, tuple[Rows, Vectors]]) -> FirstLook:
    """Fill `found` with rows and their embeddings by transformers fp32, one unpadded row at a time."""
    model = Qwen3Model.from_pretrained(checkpoint, dtype=torch.float32).to(look.options.device)  # type: ignore[arg-type]
    model.train(False)
    rng = random.Random(5)
    for count in _BATCHES:
        lengths = [rng.choice((1, 2, 3, 17, 64, 65, 130, 257, 300)) for _ in range(count - 1)] + [513]
        rows = [[rng.randrange(1, model.config.vocab_size) for _ in range(length)] for length in lengths]
        vectors = []
        with torch.inference_mode():
            for row in rows:
                ids = torch.tensor([row], device=look.options.device)
                state = model(input_ids=ids, use_cache=False).last_hidden_state[0, -1].double()
                vectors.append((state / state.norm()).float().cpu().numpy())
        found[count] = (rows, np.stack(vectors))
    return look.results


def _accuracy(
    look: _Look, name: str, checkpoint: Path, variant: Variant, references: Mapping[int, tuple[Rows, Vectors]]
) -> FirstLook:
    prefix = str(look.write(checkpoint, variant).parent / "profile")
    session = look.open(checkpoint, variant, prefix)
    found = []
    for count, (rows, reference) in references.items():
        batched = session.run(None, feed_rows(rows))[0]
        alone = np.concatenate([session.run(None, feed_rows([row]))[0] for row in rows])
        found.append(
            (count, cosines(batched, reference).min(), cosines(batched, alone).min(), (batched == alone).all())
        )
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    placed = {event["name"]: event["args"]["provider"] for event in events if event.get("args", {}).get("provider")}
    on_gpu = sum(provider == CUDA_PROVIDER for provider in placed.values())
    entries = [
        Accuracy(
            checkpoint=name,
            graph=variant.name,
            rows=count,
            min_cosine=float(cosine),
            min_batched_cosine=float(batched_cosine),
            bit_identical=bool(identical),
            cpu_nodes=len(placed) - on_gpu,
            gpu_nodes=on_gpu,
        )
        for count, cosine, batched_cosine, identical in found
    ]
    return dataclasses.replace(look.results, accuracy=(*look.results.accuracy, *entries))


# --- operators


def _activation_errors(look: _Look, operator: str) -> FirstLook:
    errors = activation_errors(look.options.device, operator)
    return dataclasses.replace(look.results, activations=(*look.results.activations, *errors))


# --- time


def _variants(look: _Look) -> Iterator[Variant]:
    rows, pages = CudaAttention
    fp16, bf16, int8 = (weight_format(precision, Device.CUDA) for precision in PRECISIONS)
    for attention in (rows, pages):
        yield Variant(format=fp16, profile=look.profile(attention))
        always_packed = look.profile(attention, dense_batches=False)
        yield Variant(format=fp16, profile=always_packed, note="always packed")
        earlier = look.profile(attention, RuntimeVersion(1, 27))
        yield Variant(format=fp16, profile=earlier, note="operators of 1.27")
        yield Variant(format=bf16, profile=look.profile(attention))
        inexact = dataclasses.replace(bf16, silu_by_exp=False)
        yield Variant(format=inexact, profile=look.profile(attention), note="QuickGelu")
        yield Variant(format=int8, profile=look.profile(attention))
    without = {"sdpa_kernel": ""}
    yield Variant(format=fp16, profile=look.profile(rows), note="any sdpa_kernel", provider=without)
    fused_products = {"ORT_FPA_INTB_GEMM": "1"}
    yield Variant(format=int8, profile=look.profile(pages), note="fpA_intB", environment=fused_products)


def _variant_times(look: _Look, checkpoint: Path, workload: str) -> FirstLook:
    """Time all variants that can run, in turns."""
    rows = WORKLOADS[workload].rows(look.options.shape.vocabulary)
    feed = feed_rows(rows)
    sessions, failures = {}, dict(look.results.failures)
    for variant in _variants(look):
        try:
            sessions[variant.name] = look.open(checkpoint, variant)
            for _ in range(3):
                sessions[variant.name].run(None, feed)
        except Exception as exc:  # noqa: BLE001 - the other variants go on
            sessions.pop(variant.name, None)
            failures[f"{variant.name} on {workload}"] = f"{type(exc).__name__}: {exc}"[:300]
    walls: dict[str, list[float]] = {name: [] for name in sessions}
    rng = random.Random(3)
    for _ in range(_PASSES):
        for name in rng.sample(list(sessions), len(sessions)):
            walls[name].append(_milliseconds(sessions[name], feed))
    tokens = sum(map(len, rows))
    entries = [
        VariantTime(workload=workload, variant=name, tokens=tokens, wall_ms=tuple(each)) for name, each in walls.items()
    ]
    variants = (*look.results.variants, *entries)
    return dataclasses.replace(look.results, variants=variants, failures=failures)


def _new_shapes(look: _Look, checkpoint: Path) -> FirstLook:
    """Time the first and second pass at each of many widths, with and without a choice of the attention kernel."""
    entries = []
    fp16 = weight_format(Precision.FP16, Device.CUDA)
    for note, attention, provider in (
        ("", CudaAttention.ROWS, {}),
        ("any sdpa_kernel", CudaAttention.ROWS, {"sdpa_kernel": ""}),
        ("", CudaAttention.PAGES, {}),
    ):
        variant = Variant(format=fp16, profile=look.profile(attention), note=note, provider=provider)
        session = look.open(checkpoint, variant)
        session.run(None, feed_rows([[1] * 512] * _WIDTH_ROWS))
        times = []
        for width in _WIDTHS:
            feed = feed_rows([[1] * width] * _WIDTH_ROWS)
            times.append((_milliseconds(session, feed), _milliseconds(session, feed)))
        first, second = zip(*times, strict=True)
        entries.append(NewShapes(graph=variant.name, first_ms=first, second_ms=second))
    return dataclasses.replace(look.results, new_shapes=tuple(entries))


def _milliseconds(session: Any, feed: Mapping[str, NDArray[np.generic]]) -> float:
    started = time.perf_counter()
    session.run(None, feed)
    return round(1000 * (time.perf_counter() - started), 4)


# --- memory errors


def _sanitize(look: _Look, checkpoint: Path) -> FirstLook:
    tool = shutil.which(_SANITIZER)
    if tool is None or look.options.device == "cpu":
        raise FileNotFoundError(f"{_SANITIZER} is not installed, or nothing runs on a GPU")
    variant = Variant(format=weight_format(Precision.FP16, Device.CUDA), profile=look.profile(CudaAttention.PAGES))
    file = look.write(checkpoint, variant)
    command = [tool, "--tool", "memcheck", "--error-exitcode", "1"]
    command += [sys.executable, "-m", "benchmarks.workers.one_pass", str(file), json.dumps(variant.provider_options())]
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=_SANITIZER_S, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    summary = [line.strip("= ") for line in lines if "ERROR SUMMARY" in line] or lines[-1:]
    if done.returncode != 0:
        raise RuntimeError(f"exit status {done.returncode}: {' '.join(summary)}")
    return dataclasses.replace(look.results, sanitizer=" ".join(summary))
