"""sentence-transformers with each of its backends: torch in fp32 and bf16, its ONNX export in fp32 and int8.

Version 5.2.3 feeds its own export of Qwen3 without the position_ids which that needs; records list it with that error.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from ..batches import BATCH_ROWS
from ..staging import written_once
from .contender import Bench, Contender, Recipe
from .peer_environment import TORCH, InstalledPeer, PeerEnvironment
from .worker import Worker

_ENVIRONMENT = PeerEnvironment(
    name="sentence_transformers",
    pins=(
        TORCH,
        # the newest that goes with what optimum-onnx needs of transformers
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
        "from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model",
        "options = {'provider': 'CPUExecutionProvider', 'export': True}",
        "model = SentenceTransformer(sys.argv[1], backend='onnx', device='cpu', model_kwargs=options)",
        "model.save_pretrained(sys.argv[2])",
        "export_dynamic_quantized_onnx_model(model, 'avx512_vnni', sys.argv[2])",
    )
)
_GRAPHS = {"fp32": "onnx/model.onnx", "int8": "onnx/model_qint8_avx512_vnni.onnx"}


def _folder(peer: InstalledPeer, bench: Bench) -> Path:
    folder = bench.cache / "sentence_transformers" / bench.checkpoint.name
    return written_once(folder, lambda staged: peer.run("-c", _WRITE, str(bench.checkpoint), str(staged)))


def _exported(peer: InstalledPeer, bench: Bench) -> Path:
    folder, source = bench.cache / "sentence_transformers_onnx" / bench.checkpoint.name, _folder(peer, bench)
    bench.say("  exporting with sentence-transformers")
    return written_once(folder, lambda staged: peer.run("-c", _EXPORT, str(source), str(staged)))


def _prepare_torch(precision: str, gate: float, bench: Bench) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(bench)
    options = {"backend": "torch", "dtype": {"fp32": "float32", "bf16": "bfloat16"}[precision]}
    return [_contender(peer, _folder(peer, bench), options, precision, gate, bench)]


def _prepare_onnx(precision: str, gate: float, bench: Bench) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(bench)
    options = {"backend": "onnx", "graph": _GRAPHS[precision]}
    return [_contender(peer, _exported(peer, bench), options, precision, gate, bench)]


def _contender(
    peer: InstalledPeer, folder: Path, options: dict[str, str], precision: str, gate: float, bench: Bench
) -> Contender:
    whole = {"model": str(folder), "threads": str(bench.threads), **options}
    return Contender(
        program=_program(options["backend"], precision),
        options="",
        engine=Worker.started(bench, "sentence_transformers", whole, peer.python),
        batch_rows=(None, *BATCH_ROWS),
        arithmetic=precision,
        gate_min_cosine=gate,
    )


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
