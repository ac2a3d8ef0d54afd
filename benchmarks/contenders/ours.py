"""This project's packed graph: the whole workload in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np

from qwen3_triton.client.contract import INPUT_IDS, ROW_LENGTHS
from qwen3_triton.export import ExportError, ExportOptions, SourceReference, export_model

from .contender import Bench, CannotRun, Contender, Recipe, Rows, Vectors
from .session import Feed, open_session, profile_operators

PROGRAM = "qwen3-triton fp32"
_MAX_TOKENS = 512


def _prepare(bench: Bench) -> Sequence[Contender]:
    options = ExportOptions(
        model=SourceReference(str(bench.checkpoint)),
        repository=bench.cache / "model_repository",
        max_tokens=_MAX_TOKENS,
        overwrite=True,
        parity_budget_s=5.0,
    )
    try:
        result = export_model(options)
    except ExportError as exc:
        raise CannotRun(str(exc)) from exc
    graph = result.folder.graph(result.version)
    session = open_session(graph, bench.threads)

    def embed(rows: Rows) -> Vectors:
        (vectors,) = session.run(None, _feed(rows))
        return np.asarray(vectors, np.float32)

    def profile(rows: Rows) -> Mapping[str, int]:
        return profile_operators(graph, bench.threads, _feed(rows))

    versions = {"onnxruntime": version("onnxruntime")}
    return [Contender(program=PROGRAM, setting="one packed call", versions=versions, embed=embed, profile=profile)]


def _feed(rows: Rows) -> Feed:
    return {
        INPUT_IDS: np.concatenate([np.asarray(row, np.int64) for row in rows]),
        ROW_LENGTHS: np.asarray([len(row) for row in rows], np.int32),
    }


OURS = Recipe(program=PROGRAM, prepare=_prepare)
