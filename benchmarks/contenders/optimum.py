"""optimum's ONNX export in fp32, and quantized to int8 by ONNX Runtime."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from qwen3_triton.client.manifest import Task

from ..batches import BATCH_ROWS
from ..processor import Processor
from ..reranker_checkpoint import cached_classifier
from ..staging import write_once
from .contender import Contender, Recipe, RunContext, in_layouts
from .peer_environment import TORCH, InstalledPeer, PeerEnvironment
from .worker import Worker

FP32, INT8 = "optimum fp32", "optimum int8"
ENVIRONMENT = PeerEnvironment(
    name="optimum",
    pins=(TORCH, "optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6", "onnxruntime==1.23.2"),
)
_EXPORT = ("-m", "optimum.exporters.onnx", "--library", "transformers", "--task")
_QUANTIZE = (
    "-c",
    "import sys; from onnxruntime.quantization import QuantType, quantize_dynamic; "
    # models of 4 GB and more need external data; per-channel scales are more accurate and as fast
    "quantize_dynamic(sys.argv[1], sys.argv[2], weight_type=QuantType.QInt8, per_channel=True, "
    "reduce_range=sys.argv[3] == '7', use_external_data_format=True)",
)

_FOLDERS = {Task.EMBED: "graphs", Task.RERANK: "rerankers"}
_OUTPUTS = {Task.EMBED: "last_hidden_state", Task.RERANK: "logits"}


def _exported(peer: InstalledPeer, task: Task, context: RunContext) -> Path:
    """Export the hidden states, or the reranker as a classifier, the only form that the exporter supports."""
    folder = context.cache / f"optimum_{_FOLDERS[task]}" / context.checkpoint.name
    embeds = task is Task.EMBED
    source = context.checkpoint if embeds else cached_classifier(context.checkpoint, context.cache)
    kind = "feature-extraction" if embeds else "text-classification"
    context.log("  exporting with optimum")
    return write_once(folder, lambda staged: peer.run(*_EXPORT, kind, "--model", str(source), str(staged)))


def quantized_bits(processor: Processor) -> tuple[int, ...]:
    """Return the numbers of bits of quantized weights that are tried.

    Without VNNI, sums of two products with 8-bit weights may overflow 16 bits, and 7 bits prevent that.
    """
    return (8,) if processor.has_vnni or processor.is_arm else (7, 8)


def _quantized(peer: InstalledPeer, bits: int, task: Task, context: RunContext) -> Path:
    fp32 = _exported(peer, task, context) / "model.onnx"
    folder = context.cache / f"optimum_int{bits}_{_FOLDERS[task]}" / context.checkpoint.name
    context.log(f"  quantizing with ONNX Runtime to {bits} bits")
    return write_once(folder, lambda staged: peer.run(*_QUANTIZE, str(fp32), str(staged / "model.onnx"), str(bits)))


def _prepare_fp32(task: Task, context: RunContext) -> Sequence[Contender]:
    peer = ENVIRONMENT.build(context)
    return _contenders(FP32, "", peer, _exported(peer, task, context), task, context, gates=(0.99999, 1e-4))


def _prepare_int8(task: Task, context: RunContext) -> Sequence[Contender]:
    peer, found = ENVIRONMENT.build(context), list[Contender]()
    for bits in quantized_bits(context.processor):
        folder, options = _quantized(peer, bits, task, context), "" if bits == 8 else f"{bits}-bit weights"
        found += _contenders(INT8, options, peer, folder, task, context, gates=(0.95, 0.1))
    return found


def _contenders(
    program: str,
    options: str,
    peer: InstalledPeer,
    folder: Path,
    task: Task,
    context: RunContext,
    gates: tuple[float, float],
) -> list[Contender]:
    """Return contenders in all layouts; `gates` are their minimum cosine and maximum score error."""
    given = {"model": str(folder / "model.onnx"), "output": _OUTPUTS[task]}
    load = Worker.in_layouts(context, "onnx_export", given, peer.python)
    base = Contender(
        program=program,
        options=options,
        engine=load(context.layouts[0]),
        batch_rows=(None, *BATCH_ROWS),
        arithmetic=program.removeprefix("optimum "),
        gate_min_cosine=gates[0],
        gate_max_score_error=gates[1],
    )
    return in_layouts(base, context.layouts, load)


OPTIMUM, OPTIMUM_RERANKERS = (
    (
        Recipe(program=FP32, prepare=functools.partial(_prepare_fp32, task), task=task),
        Recipe(program=INT8, prepare=functools.partial(_prepare_int8, task), task=task),
    )
    for task in (Task.EMBED, Task.RERANK)
)
