"""sentence-transformers with its torch backend in fp32 and bf16, and its ONNX backend in fp32 and int8.

The ONNX export of Qwen3 has an input position_ids, which sentence-transformers 5.2.3 to 5.7.0 does not feed, so that
`encode` raises ValueError. The worker adds it to the features, as a user can, and the settings mention it. An export by
`optimum.exporters.onnx --library sentence_transformers` does not help: the ONNX backend cannot read its outputs.
sentence-transformers 6.x needs transformers 5, which optimum-onnx 0.1.0 does not support.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from qwen3_triton.client.manifest import Task

from ..batches import BATCH_ROWS
from ..reranker_checkpoint import cached_classifier
from ..staging import write_once
from .contender import Contender, Recipe, RunContext
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
        "export_dynamic_quantized_onnx_model(model, 'avx512_vnni', sys.argv[2])",
    )
)
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
_ONNX_FOLDERS = {Task.EMBED: "sentence_transformers_onnx", Task.RERANK: "cross_encoders_onnx"}
_OPTIONS = {"torch": "", "onnx": "position_ids added by the caller"}
_GRAPHS = {"fp32": "onnx/model.onnx", "int8": "onnx/model_qint8_avx512_vnni.onnx"}


def _folder(peer: InstalledPeer, context: RunContext) -> Path:
    folder = context.cache / "sentence_transformers" / context.checkpoint.name
    return write_once(folder, lambda staged: peer.run("-c", _WRITE, str(context.checkpoint), str(staged)))


def _exported(peer: InstalledPeer, task: Task, context: RunContext) -> Path:
    source = _folder(peer, context) if task is Task.EMBED else cached_classifier(context.checkpoint, context.cache)
    context.log("  exporting with sentence-transformers")
    return write_once(
        context.cache / _ONNX_FOLDERS[task] / context.checkpoint.name,
        lambda staged: peer.run("-c", _EXPORT, str(source), str(staged), str(task)),
    )


def _prepare_torch(precision: str, gate: float, context: RunContext) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(context)
    options = {"backend": "torch", "dtype": _DTYPES[precision]}
    return [_contender(peer, _folder(peer, context), options, precision, gate, context)]


def _prepare_onnx(precision: str, gate: float, context: RunContext) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(context)
    options = {"backend": "onnx", "graph": _GRAPHS[precision]}
    return [_contender(peer, _exported(peer, Task.EMBED, context), options, precision, gate, context)]


def _contender(
    peer: InstalledPeer, folder: Path, options: dict[str, str], precision: str, gate: float, context: RunContext
) -> Contender:
    worker_options = {"model": str(folder), "threads": str(context.threads), **options}
    return Contender(
        program=_program(options["backend"], precision),
        options=_OPTIONS[options["backend"]],
        engine=Worker.started(context, "sentence_transformers", worker_options, peer.python),
        batch_rows=(None, *BATCH_ROWS),
        arithmetic=precision,
        gate_min_cosine=gate,
    )


def _prepare_cross_encoder(backend: str, precision: str, gate: float, context: RunContext) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(context)
    if backend == "torch":
        folder, chosen = cached_classifier(context.checkpoint, context.cache), {"dtype": _DTYPES[precision]}
    else:
        folder, chosen = _exported(peer, Task.RERANK, context), {"graph": _GRAPHS[precision]}
    options = {"model": str(folder), "threads": str(context.threads), "backend": backend, **chosen}
    return [
        Contender(
            program=_program(backend, precision),
            options="",
            engine=Worker.started(context, "cross_encoder", options, peer.python),
            batch_rows=(None, *BATCH_ROWS),
            arithmetic=precision,
            gate_max_score_error=gate,
        )
    ]


def _program(backend: str, precision: str) -> str:
    return f"sentence-transformers {'ONNX ' if backend == 'onnx' else ''}{precision}"


SENTENCE_TRANSFORMERS = (
    *(
        Recipe(program=_program("torch", precision), prepare=functools.partial(_prepare_torch, precision, gate))
        for precision, gate in (("fp32", 0.99999), ("bf16", 0.99))
    ),
    *(
        Recipe(program=_program("onnx", precision), prepare=functools.partial(_prepare_onnx, precision, gate))
        for precision, gate in (("fp32", 0.99999), ("int8", 0.95))
    ),
)
CROSS_ENCODERS = tuple(
    Recipe(
        program=_program(backend, precision),
        prepare=functools.partial(_prepare_cross_encoder, backend, precision, gate),
        task=Task.RERANK,
    )
    for backend, precision, gate in (
        ("torch", "fp32", 1e-4),
        ("torch", "bf16", 5e-2),
        ("onnx", "fp32", 1e-4),
        ("onnx", "int8", 1e-1),
    )
)
"""Run the classifier, the form that CrossEncoder supports."""
