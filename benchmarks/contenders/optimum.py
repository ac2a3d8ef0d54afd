"""optimum's ONNX export: in fp32 an independent witness of this project's graph, in int8 what a user would quantise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..batches import BATCH_ROWS
from ..staging import written_once
from .contender import Bench, Contender, Recipe
from .peer_environment import TORCH, InstalledPeer, PeerEnvironment
from .worker import Worker

FP32, INT8 = "optimum fp32", "optimum int8"
_ENVIRONMENT = PeerEnvironment(
    name="optimum",
    pins=(TORCH, "optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6", "onnxruntime==1.23.2"),
)
_EXPORT = ("-m", "optimum.exporters.onnx", "--task", "feature-extraction", "--library", "transformers")
_QUANTIZE = (
    "-c",
    "import sys; from onnxruntime.quantization import QuantType, quantize_dynamic; "
    # 4 GB and more do not fit into one file; per channel is the more exact of the two and as fast
    "quantize_dynamic(sys.argv[1], sys.argv[2], weight_type=QuantType.QInt8, per_channel=True, "
    "use_external_data_format=True)",
)


def _export(peer: InstalledPeer, bench: Bench) -> Path:
    folder = bench.cache / "optimum_graphs" / bench.checkpoint.name
    bench.say("  exporting with optimum")
    return written_once(folder, lambda staged: peer.run(*_EXPORT, "--model", str(bench.checkpoint), str(staged)))


def _quantized(peer: InstalledPeer, bench: Bench) -> Path:
    whole = _export(peer, bench) / "model.onnx"
    folder = bench.cache / "optimum_int8_graphs" / bench.checkpoint.name
    bench.say("  quantising with ONNX Runtime")
    return written_once(folder, lambda staged: peer.run(*_QUANTIZE, str(whole), str(staged / "model.onnx")))


def _contender(
    program: str, peer: InstalledPeer, folder: Path, bench: Bench, arithmetic: str, gate: float
) -> Contender:
    options = {"model": str(folder / "model.onnx"), "threads": str(bench.threads)}
    return Contender(
        program=program,
        options="",
        engine=Worker.started(bench, "onnx_export", options, peer.python),
        batch_rows=(None, *BATCH_ROWS),
        arithmetic=arithmetic,
        gate_min_cosine=gate,
    )


def _prepare_fp32(bench: Bench) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(bench)
    return [_contender(FP32, peer, _export(peer, bench), bench, "fp32", gate=0.99999)]


def _prepare_int8(bench: Bench) -> Sequence[Contender]:
    peer = _ENVIRONMENT.build(bench)
    return [_contender(INT8, peer, _quantized(peer, bench), bench, "int8", gate=0.95)]


OPTIMUM = (Recipe(program=FP32, prepare=_prepare_fp32), Recipe(program=INT8, prepare=_prepare_int8))
