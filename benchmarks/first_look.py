"""A few minutes' look at the graphs for GPUs: accuracy, operators that round badly, stalls on new shapes, variants.

Every check is saved as soon as it is done, and one that fails is listed with its reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
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
    SourceReference,
    cuda_provider_options,
    open_checkpoint,
    weight_format,
    write_graph,
)
from qwen3_triton.export.formats import WeightFormat
from qwen3_triton.export.verification.parity import cosines

from .checkpoint import cached_checkpoint
from .contenders.ours import feed_rows
from .environment import Environment
from .model_shape import SHAPES, ModelShape
from .rows import Rows, Vectors
from .workload import WORKLOADS

_DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo" / "checkpoint"
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
_TIMED = ("mix", "256-of-64")
_PASSES = 15
_GATE_ROWS, _GATE_WIDTH = 64, 1024
_SANITIZER = "compute-sanitizer"
_SANITIZER_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """One graph's embeddings against transformers fp32."""

    checkpoint: str
    graph: str
    rows: int
    min_cosine: float
    """Smallest cosine to the reference, in one batch."""
    min_batched_cosine: float
    """Smallest cosine between a row alone and the same row in the batch."""
    bit_identical: bool
    """Whether rows alone and in the batch are equal."""
    cpu_nodes: int
    """Nodes that ran on the CPU."""
    gpu_nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationError:
    """Error of an implementation of silu on gates from N(-3, 1.5)."""

    operator: str
    dtype: str
    relative_error: float
    """‖silu - exact‖ / ‖exact‖, with the exact silu of the rounded gates in fp64."""
    largest_error: float
    """Largest absolute error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewShapes:
    """Time of a graph's first and second pass at each of many new widths."""

    graph: str
    first_ms: tuple[float, ...]
    second_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantTime:
    """Passes of a variant of a four-layer graph, in turns with the other variants."""

    workload: str
    variant: str
    tokens: int
    wall_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Median pass."""
        return statistics.median(self.wall_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLook:
    """Results of all checks."""

    environment: Environment
    accuracy: tuple[Accuracy, ...] = ()
    activations: tuple[ActivationError, ...] = ()
    new_shapes: tuple[NewShapes, ...] = ()
    variants: tuple[VariantTime, ...] = ()
    sanitizer: str = ""
    """Last line of compute-sanitizer on one pass with paged attention."""
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Check → reason."""

    def save(self, file: Path) -> None:
        """Write the results as JSON, replacing earlier ones."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """How to build and run a graph."""

    format: WeightFormat
    profile: CudaProfile
    note: str = ""
    provider: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Additional options of the CUDA provider; an empty value removes one."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Environment variables that ONNX Runtime reads when it opens a session."""

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.format.precision, self.profile.attention, self.note) if part)

    def provider_options(self) -> dict[str, str]:
        options = {**cuda_provider_options(self.format.precision, self.profile.runtime), **self.provider}
        return {key: value for key, value in options.items() if value}


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

    def write(self, checkpoint: Path, variant: _Variant) -> Path:
        """Write the graph of `variant`, unless that was done before."""
        folder = self._folder / f"{checkpoint.name}-{variant.name}".replace(" ", "-")
        if not folder.exists():
            source = open_checkpoint(SourceReference(str(checkpoint)))
            options = GraphOptions(format=variant.format, max_tokens=_MAX_TOKENS, cuda=variant.profile)
            write_graph(source, folder / "model.onnx", options, lambda _done, _total: None)
        return folder / "model.onnx"

    def open(self, checkpoint: Path, variant: _Variant, profile: str = "") -> Any:
        """Open a session on the graph of `variant`."""
        file = self.write(checkpoint, variant)
        with _environment(variant.environment):
            return _open(file, self.options.device, variant.provider_options(), profile)

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
    look.check("silu in 16 bits", lambda: _activation_errors(look))
    sources = {"demo": _DEMO} | {name: cached_checkpoint(shape, look.options.cache) for name, shape in _TINY.items()}
    for name, checkpoint in sources.items():
        references: dict[int, tuple[Rows, Vectors]] = {}
        look.check(f"reference of {name}", lambda: _references(look, checkpoint, references))  # noqa: B023
        for precision in PRECISIONS:
            for attention in CudaAttention:
                variant = _Variant(format=weight_format(precision, Device.CUDA), profile=look.profile(attention))
                look.check(
                    f"accuracy of {variant.name} on {name}",
                    lambda: _accuracy(look, name, checkpoint, variant, references),  # noqa: B023
                )
    timed = cached_checkpoint(look.options.shape, look.options.cache)
    for workload in _TIMED:
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
    look: _Look, name: str, checkpoint: Path, variant: _Variant, references: Mapping[int, tuple[Rows, Vectors]]
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
    on_gpu = sum(provider.startswith("CUDA") for provider in placed.values())
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


def _activation_errors(look: _Look) -> FirstLook:
    gates = (torch.randn(_GATE_ROWS, _GATE_WIDTH, generator=torch.Generator().manual_seed(1)) * 1.5 - 3).double()
    entries = []
    for dtype, kind in ((torch.bfloat16, ir.DataType.BFLOAT16), (torch.float16, ir.DataType.FLOAT16)):
        rounded = gates.to(dtype)
        exact = torch.nn.functional.silu(rounded.double())
        for operator in ("QuickGelu", "Exp", "GatedRMSNorm"):
            result = _run_silu(look.options.device, operator, kind, rounded)
            error = result.double() - exact
            entries.append(
                ActivationError(
                    operator=operator,
                    dtype=str(dtype).removeprefix("torch."),
                    relative_error=float(error.norm() / exact.norm()),
                    largest_error=float(error.abs().max()),
                )
            )
    return dataclasses.replace(look.results, activations=tuple(entries))


def _run_silu(device: str, operator: str, dtype: ir.DataType, gates: torch.Tensor) -> torch.Tensor:
    """Compute silu of 16-bit `gates`; the graph casts from and to fp32, which is exact."""
    fp32 = ir.DataType.FLOAT
    gate, result = (
        ir.Value(name=name, type=ir.TensorType(fp32), shape=ir.Shape(["rows", _GATE_WIDTH]))
        for name in ("gate", "result")
    )
    nodes = [ir.node("Cast", [gate], attributes={"to": dtype})]
    constants = {"zero": np.asarray(0.0), "one": np.asarray(1.0), "gain": np.full(_GATE_WIDTH, 2.0**15)}
    values = {
        name: ir.Value(
            name=name,
            type=ir.TensorType(dtype),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array.astype(dtype.numpy()), name=name),
        )
        for name, array in constants.items()
    }
    if operator == "QuickGelu":
        nodes.append(ir.node("QuickGelu", [nodes[0].outputs[0]], domain="com.microsoft", attributes={"alpha": 1.0}))
    elif operator == "GatedRMSNorm":
        # of ones, with the epsilon that the graphs use
        nodes.append(ir.node("Mul", [nodes[0].outputs[0], values["zero"]]))
        nodes.append(ir.node("Add", [nodes[1].outputs[0], values["one"]]))
        inputs = [nodes[2].outputs[0], values["gain"], nodes[0].outputs[0]]
        attributes = {"activation": "silu", "epsilon": 2.0**30}
        nodes.append(ir.node("GatedRMSNorm", inputs, domain="com.microsoft", attributes=attributes))
    else:
        # x / (1 + exp(-x)); the graphs negate weights instead of the gate
        nodes.append(ir.node("Neg", [nodes[0].outputs[0]]))
        nodes.append(ir.node("Exp", [nodes[1].outputs[0]]))
        nodes.append(ir.node("Add", [nodes[2].outputs[0], values["one"]]))
        nodes.append(ir.node("Div", [nodes[0].outputs[0], nodes[3].outputs[0]]))
    nodes.append(ir.Node("", "Cast", [nodes[-1].outputs[0]], [ir.AttrInt64("to", fp32)], outputs=[result]))
    used = {value for node in nodes for value in node.inputs}
    initializers = [value for value in values.values() if value in used]
    opsets = {"": 18, "com.microsoft": 1}
    graph = ir.Graph([gate], [result], nodes=nodes, initializers=initializers, opset_imports=opsets, name="silu")
    model = bytes(ir.serde.serialize_model(ir.Model(graph, ir_version=10)).SerializeToString())
    session = _open(model, device, {}, "")
    return torch.from_numpy(session.run(None, {"gate": gates.float().numpy()})[0])


# --- time


def _variants(look: _Look) -> Iterator[_Variant]:
    rows, pages = CudaAttention
    fp16, bf16, int8 = (weight_format(precision, Device.CUDA) for precision in PRECISIONS)
    for attention in (rows, pages):
        yield _Variant(format=fp16, profile=look.profile(attention))
        always_packed = look.profile(attention, dense_batches=False)
        yield _Variant(format=fp16, profile=always_packed, note="always packed")
        earlier = look.profile(attention, RuntimeVersion(1, 27))
        yield _Variant(format=fp16, profile=earlier, note="operators of 1.27")
        yield _Variant(format=bf16, profile=look.profile(attention))
        inexact = dataclasses.replace(bf16, silu_by_exp=False)
        yield _Variant(format=inexact, profile=look.profile(attention), note="QuickGelu")
        yield _Variant(format=int8, profile=look.profile(attention))
    without = {"sdpa_kernel": ""}
    yield _Variant(format=fp16, profile=look.profile(rows), note="any sdpa_kernel", provider=without)
    fused_products = {"ORT_FPA_INTB_GEMM": "1"}
    yield _Variant(format=int8, profile=look.profile(pages), note="fpA_intB", environment=fused_products)


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
        variant = _Variant(format=fp16, profile=look.profile(attention), note=note, provider=provider)
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
    variant = _Variant(format=weight_format(Precision.FP16, Device.CUDA), profile=look.profile(CudaAttention.PAGES))
    file = look.write(checkpoint, variant)
    command = [tool, "--tool", "memcheck", sys.executable, "-m", "benchmarks.workers.one_pass", str(file)]
    command.append(json.dumps(variant.provider_options()))
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=_SANITIZER_S, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    text = f"exit status {done.returncode}: " + " | ".join(lines[-3:])
    return dataclasses.replace(look.results, sanitizer=text)


# --- sessions


def _open(model: Path | bytes, device: str, provider: Mapping[str, str], profile: str) -> Any:
    # torch was imported first and has loaded its CUDA libraries
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    source = model if isinstance(model, bytes) else str(model)
    if device == "cpu":
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    providers = [("CUDAExecutionProvider", dict(provider)), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(source, options, providers=providers)
    if "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError(f"ONNX Runtime fell back to {', '.join(session.get_providers())}")
    return session


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# --- report


def render_first_look(look: FirstLook) -> str:
    """Return the results as lines of text."""
    gpu = look.environment.gpu
    lines = [f"{gpu.name if gpu else 'CPU'}, {', '.join(f'{k} {v}' for k, v in look.environment.packages.items())}"]
    lines += ["", "silu of gates from N(-3, 1.5): relative error, largest error"]
    lines += [
        f"  {each.dtype:9} {each.operator:10} {each.relative_error:.2e}  {each.largest_error:.2e}"
        for each in look.activations
    ]
    lines += ["", "accuracy: cosine to transformers fp32, cosine alone to batched, nodes on GPU + CPU"]
    lines += [
        f"  {each.checkpoint:34} {each.graph:12} {each.rows:3} rows"
        f"  {each.min_cosine:.7f}  {each.min_batched_cosine:.7f}"
        f"{' identical' if each.bit_identical else ''}  {each.gpu_nodes} + {each.cpu_nodes}"
        for each in look.accuracy
    ]
    lines += ["", "variants, four layers: median ms, tokens/s"]
    for each in look.variants:
        per_second = each.tokens / each.median_ms * 1000
        lines.append(f"  {each.workload:10} {each.variant:32} {each.median_ms:8.3f}  {per_second:11,.0f}")
    lines += ["", "20 new widths: median and largest ms of the first pass, of the second"]
    for shapes in look.new_shapes:
        first, second = (_median_and_largest(times) for times in (shapes.first_ms, shapes.second_ms))
        lines.append(f"  {shapes.graph:32} {first}   {second}")
    lines += ["", f"{_SANITIZER}: {look.sanitizer or 'not run'}"]
    lines += [f"failed: {name}: {reason}" for name, reason in look.failures.items()]
    return "\n".join(lines)


def _median_and_largest(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.2f} {max(times):.2f}"
