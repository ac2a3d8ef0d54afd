"""optimum's ONNX export in fp32: an independent witness, and a contender with padded batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..staging import written_once
from .batches import ONE_BATCH, SORTED_BATCH_ROWS, PaddedBatch, batch_setting, embed_in_batches
from .contender import Bench, Contender, Recipe, Rows, Vectors
from .optimum_environment import OptimumEnvironment
from .session import open_session

PROGRAM = "optimum fp32"
_PACKAGES = ("optimum-onnx", "transformers", "torch", "onnxruntime")


def _prepare(bench: Bench) -> Sequence[Contender]:
    environment = OptimumEnvironment(bench.cache / "optimum")
    environment.build(bench.say)
    bench.say("  exporting with optimum")
    export = ["-m", "optimum.exporters.onnx", "--task", "feature-extraction", "--library", "transformers"]
    folder = written_once(
        bench.cache / "optimum_graphs" / bench.checkpoint.name,
        lambda staged: environment.python(*export, "--model", str(bench.checkpoint), str(staged)),
    )
    session = open_session(folder / "model.onnx", bench.threads)

    def hidden_states(batch: PaddedBatch) -> Vectors:
        positions = np.broadcast_to(np.arange(batch.ids.shape[1]), batch.ids.shape)
        feed = {"input_ids": batch.ids, "attention_mask": batch.mask, "position_ids": np.ascontiguousarray(positions)}
        (states,) = session.run(["last_hidden_state"], feed)
        return np.asarray(states, np.float32)

    def contender(setting: str, batch_rows: int | None) -> Contender:
        def embed(rows: Rows) -> Vectors:
            return embed_in_batches(rows, batch_rows or len(rows), hidden_states)

        return Contender(program=PROGRAM, setting=setting, versions=versions, embed=embed)

    versions = environment.versions(_PACKAGES)
    return [contender(ONE_BATCH, None), *(contender(batch_setting(size), size) for size in SORTED_BATCH_ROWS)]


OPTIMUM = Recipe(program=PROGRAM, prepare=_prepare)
