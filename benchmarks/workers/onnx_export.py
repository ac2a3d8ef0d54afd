"""ONNX exports with the inputs of transformers (ids, mask, positions) in padded batches.

Options: model (a file), threads, output (last_hidden_state, or logits of a classifier with one label).
"""

from __future__ import annotations

import numpy as np
import onnxruntime

from ..batches import PaddedBatch, embed_in_batches, score_in_batches
from ..rows import Rows, Vectors
from .serve import Embed, Options, serve


def _load(options: Options) -> Embed:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = int(options["threads"])
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(options["model"], settings, providers=["CPUExecutionProvider"])
    names = {graph_input.name for graph_input in session.get_inputs()}

    def run(batch: PaddedBatch) -> Vectors:
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "position_ids": batch.positions}
        feed = {name: array for name, array in inputs.items() if name in names}
        return np.asarray(session.run([options["output"]], feed)[0], np.float32)

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        return embed_in_batches(rows, batch_rows, run)

    def score(rows: Rows, batch_rows: int) -> Vectors:
        return score_in_batches(rows, batch_rows, run)

    return score if options["output"] == "logits" else embed


if __name__ == "__main__":
    serve(_load, ("onnxruntime", "optimum-onnx", "transformers"))
