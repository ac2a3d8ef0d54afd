"""sentence-transformers with its torch backend in fp32 and bf16, and its ONNX backend in fp32 and int8.

The ONNX export of Qwen3 has an input position_ids, which sentence-transformers 5.2.3 to 5.7.0 does not feed, so that
`encode` raises ValueError. The worker adds it to the features, as a user can, and the settings mention it. An export by
`optimum.exporters.onnx --library sentence_transformers` does not help: the ONNX backend cannot read its outputs.
sentence-transformers 6.x needs transformers 5, which optimum-onnx 0.1.0 does not support.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from qwen3_triton.client.manifest import Task

from ..batches import BATCH_ROWS
from ..processor import Processor
from ..reranker_checkpoint import cached_classifier
from ..staging import write_once
from .contender import Contender, Recipe, RunContext, in_layouts
from .peer_environment import TORCH, InstalledPeer, PeerEnvironment
from .worker import Worker

_ENVIRONMENT = PeerEnvironment(
    name="sentence_transformers",
    pins=(
        TORCH,
        # any version from 5.2.3 to 5.7.0 is compatible with the other pins, 6.x is not
        "sentence-transformers[onnx]==5.2.3",
        "optimum-onnx[onnxruntime]==0.1.0",
        "transformers==4.57.6",
        "onnxruntime==1.23.2",
    ),
)
_MODULES = (
    "from sentence_transformers import SentenceTransformer, models",
    "def modules(body):",
    "    pooling = models.Pooling(body.get_word_embedding_dimension(), pooling_mode='lasttoken')",
    "    return SentenceTransformer(modules=[body, pooling, models.Normalize()], device='cpu')",
)
_WRITE = "\n".join(
    (
        "import sys",
        *_MODULES,
        "modules(models.Transformer(sys.argv[1])).save_pretrained(sys.argv[2])",
    )
)
_EXPORT = "\n".join(
    (
        "import sys",
        "from sentence_transformers import CrossEncoder, SentenceTransformer, export_dynamic_quantized_onnx_model",
        "options = {'provider': 'CPUExecutionProvider', 'export': True}",
        "kind = {'embed': SentenceTransformer, 'rerank': CrossEncoder}[sys.argv[3]]",
        "model = kind(sys.argv[1], backend='onnx', device='cpu', model_kwargs=options)",
        "model.save_pretrained(sys.argv[2])",
        "for kind in sys.argv[4:]:",
        "    export_dynamic_quantized_onnx_model(model, kind, sys.argv[2])",
    )
)
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
_ONNX_FOLDERS = {Task.EMBED: "sentence_transformers_onnx", Task.RERANK: "cross_encoders_onnx"}
_MODULES_OF_TASKS = {Task.EMBED: "sentence_transformers", Task.RERANK: "cross_encoder"}
_NOTES = {"torch": "", "onnx": "position_ids added by the caller"}
_GRAPHS = {
    "": "onnx/model.onnx",
    "avx512_vnni": "onnx/model_qint8_avx512_vnni.onnx",
    "avx2": "onnx/model_quint8_avx2.onnx",
    "arm64": "onnx/model_qint8_arm64.onnx",
}
"""File by kind of quantization."""


def _folder(peer: InstalledPeer, context: RunContext) -> Path:
    folder = context.cache / "sentence_transformers" / context.checkpoint.name
    return write_once(folder, lambda staged: peer.run("-c", _WRITE, str(context.checkpoint), str(staged)))


def quantization_kinds(processor: Processor) -> tuple[str, ...]:
    """Return the kinds of quantized graphs that are tried; both for x86 run on all of its processors.

    Without VNNI, sums of products may overflow with the weights of avx512_vnni, and those of avx2 prevent that.
    """
    if processor.is_arm:
        return ("arm64",)
    return ("avx512_vnni", "avx2") if processor.has_vnni else ("avx2", "avx512_vnni")


def _exported(peer: InstalledPeer, task: Task, context: RunContext) -> Path:
    source = _folder(peer, context) if task is Task.EMBED else cached_classifier(context.checkpoint, context.cache)
    context.log("  exporting with sentence-transformers")
    kinds = sorted(quantization_kinds(context.processor))
    return write_once(
        context.cache / _ONNX_FOLDERS[task] / f"{context.checkpoint.name}-{'-'.join(kinds)}",
        lambda staged: peer.run("-c", _EXPORT, str(source), str(staged), str(task), *kinds),
    )


def _prepare(backend: str, precision: str, gate: float, task: Task, context: RunContext) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(context)
    if backend == "onnx":
        folder = _exported(peer, task, context)
        kinds = quantization_kinds(context.processor) if precision == "int8" else ("",)
        choices = [(kind, {"graph": _GRAPHS[kind]}) for kind in kinds]
    else:
        embeds = task is Task.EMBED
        folder = _folder(peer, context) if embeds else cached_classifier(context.checkpoint, context.cache)
        choices = [("", {"dtype": _DTYPES[precision]})]
    found = list[Contender]()
    for kind, chosen in choices:
        given = {"model": str(folder), "backend": backend, **chosen}
        load = Worker.in_layouts(context, _MODULES_OF_TASKS[task], given, peer.python)
        note = _NOTES[backend] if task is Task.EMBED else ""
        base = Contender(
            program=_program(backend, precision),
            options=", ".join(part for part in (kind, note) if part),
            engine=load(context.layouts[0]),
            batch_rows=(None, *BATCH_ROWS),
            arithmetic=precision,
            gate_min_cosine=gate if task is Task.EMBED else None,
            gate_max_score_error=gate if task is Task.RERANK else None,
        )
        found += in_layouts(base, context.layouts, load)
    return found


def _program(backend: str, precision: str) -> str:
    return f"sentence-transformers {'ONNX ' if backend == 'onnx' else ''}{precision}"


def _recipes(task: Task, gates: Mapping[tuple[str, str], float]) -> tuple[Recipe, ...]:
    return tuple(
        Recipe(
            program=_program(backend, precision),
            prepare=functools.partial(_prepare, backend, precision, gate, task),
            task=task,
        )
        for (backend, precision), gate in gates.items()
    )


SENTENCE_TRANSFORMERS = _recipes(
    Task.EMBED,
    {("torch", "fp32"): 0.99999, ("torch", "bf16"): 0.99, ("onnx", "fp32"): 0.99999, ("onnx", "int8"): 0.95},
)
CROSS_ENCODERS = _recipes(
    Task.RERANK,
    {("torch", "fp32"): 1e-4, ("torch", "bf16"): 5e-2, ("onnx", "fp32"): 1e-4, ("onnx", "int8"): 1e-1},
)
"""Run the classifier, the form that CrossEncoder supports."""
