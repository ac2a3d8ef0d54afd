"""optimum-intel's OpenVINO export with 8-bit weights and without, in every precision that the processor supports."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen3_triton.client.manifest import Task

from ..batches import BATCH_ROWS
from ..processor import Processor
from ..reranker_checkpoint import cached_classifier
from ..staging import write_once
from .contender import Contender, Recipe, RunContext, in_layouts
from .layout import Layout
from .peer_environment import TORCH, InstalledPeer, PeerEnvironment
from .worker import Worker

INT8_WEIGHTS, UNQUANTIZED = "OpenVINO int8 weights", "OpenVINO unquantized"
_ENVIRONMENT = PeerEnvironment(
    name="openvino",
    pins=(TORCH, "optimum-intel==2.2.0", "openvino==2026.4.1", "nncf==3.4.0", "transformers==5.5.4"),
    # installed as a dependency in a CUDA build, which does not match the CPU build of torch and breaks transformers
    unwanted=("torchvision",),
)
_EXPORT = (
    "-c",
    "from optimum.commands.optimum_cli import main; main()",
    *("export", "openvino", "--library", "transformers", "--task"),
)
_WEIGHT_FORMATS = {INT8_WEIGHTS: "int8", UNQUANTIZED: "fp32"}
_GROUPS = (128, 32, 0)
_ARITHMETIC = {"bf16": "bf16", "f16": "fp16", "f32": "fp32"}
_GATES = {"bf16": (0.99, 5e-2), "f16": (0.99, 5e-2), "f32": (0.9999, 1e-3)}
_INT8_GATES = (0.95, 0.1)
"""Minimum cosine and maximum score error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoOptions:
    """Options that change what OpenVINO computes."""

    precision: str
    """Inference precision: bf16, f16 or f32."""
    group: int = 0
    """Group size with which activations are quantized for products with 8-bit weights: 32 is the default and more
    accurate, 128 is faster, 0 multiplies in the inference precision."""

    @property
    def quantizes_activations(self) -> bool:
        """Whether products are computed in int8."""
        return self.group > 0


def openvino_options(program: str, processor: Processor) -> tuple[OpenVinoOptions, ...]:
    """Return the options that are tried, probably the fastest first."""
    groups = _GROUPS if program == INT8_WEIGHTS else (0,)
    return tuple(
        OpenVinoOptions(precision=precision, group=group)
        for group in groups
        for precision in openvino_precisions(processor)
    )


def openvino_precisions(processor: Processor) -> tuple[str, ...]:
    """Return the inference precisions that OpenVINO computes in on a processor.

    It computes in bf16 with AVX-512 even where each product needs conversions, and replaces a precision that it does
    not support by another one without an error.
    """
    half = processor.has_avx2_vnni_2 or "avx512_fp16" in processor.flags or "asimdhp" in processor.flags
    bf16 = processor.has_avx512_core or processor.has_avx2_vnni_2
    supported = [*(["f16"] if half else []), *(["bf16"] if bf16 else [])]
    return (*supported, "f32") if half or processor.has_bf16 else ("f32", *supported)


def _prepare(program: str, task: Task, context: RunContext) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(context)
    context.log("  exporting with optimum-intel")
    folder = _exported(peer, _WEIGHT_FORMATS[program], task, context)
    return [
        contender
        for options in openvino_options(program, context.processor)
        for contender in _contenders(program, folder, options, peer.python, context)
    ]


def _exported(peer: InstalledPeer, weights: str, task: Task, context: RunContext) -> Path:
    """Export the hidden states, or the reranker as a classifier, the only form that the exporter supports."""
    if task is Task.EMBED:
        source, kind, folder = context.checkpoint, "feature-extraction", context.cache / "openvino_graphs"
    else:
        source, kind = cached_classifier(context.checkpoint, context.cache), "text-classification"
        folder = context.cache / "openvino_rerankers"
    return write_once(
        folder / f"{context.checkpoint.name}-{weights}",
        lambda staged: peer.run(*_EXPORT, kind, "--weight-format", weights, "--model", str(source), str(staged)),
    )


def _contenders(
    program: str, folder: Path, options: OpenVinoOptions, python: Path, context: RunContext
) -> list[Contender]:
    quantizes = options.quantizes_activations
    given = {
        "model": str(folder / "openvino_model.xml"),
        "precision": options.precision,
        "group": str(options.group),
    }

    def load(layout: Layout, hint: str = "") -> Worker:
        return Worker.on_demand(context, "openvino", {**given, **layout.options(), "hint": hint}, python)

    default = context.layouts[0]
    cosine, score_error = _INT8_GATES if program == INT8_WEIGHTS else _GATES[options.precision]
    base = Contender(
        program=program,
        options=f"{options.precision}, groups of {options.group}" if quantizes else options.precision,
        engine=load(default),
        batch_rows=(None, *BATCH_ROWS),
        arithmetic="int8" if quantizes else _ARITHMETIC[options.precision],
        gate_min_cosine=cosine,
        gate_max_score_error=score_error,
    )
    if len(context.layouts) == 1:
        return [base]
    throughput = dataclasses.replace(
        base, options=f"{base.options}, throughput hint", refines=base.options, engine=load(default, "THROUGHPUT")
    )
    return [*in_layouts(base, context.layouts, load), throughput]


def _recipes(task: Task) -> tuple[Recipe, ...]:
    return tuple(
        Recipe(program=program, prepare=functools.partial(_prepare, program, task), task=task)
        for program in _WEIGHT_FORMATS
    )


OPENVINO, OPENVINO_RERANKERS = (_recipes(task) for task in (Task.EMBED, Task.RERANK))
