"""ONNX exports with the inputs of transformers (ids, mask, positions) in padded batches.

Options: model (a file), copies (sessions that process batches in parallel), threads (of each copy), pinned (yes or no),
output (last_hidden_state, or logits of a classifier with one label).
"""

from __future__ import annotations

import numpy as np
import onnxruntime

from ..batches import PaddedBatch, sorted_batches, store_last_tokens, store_scores
from ..rows import Rows, Vectors
from .copies import Copies
from .onnx_settings import session_options
from .serve import Embed, Options, serve


def _load(options: Options) -> Embed:
    sessions = [
        onnxruntime.InferenceSession(options["model"], session_options(options), providers=["CPUExecutionProvider"])
        for _ in range(int(options["copies"]))
    ]
    copies = Copies(sessions)
    names = {graph_input.name for graph_input in sessions[0].get_inputs()}

    def run(session: onnxruntime.InferenceSession, batch: PaddedBatch) -> Vectors:
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "position_ids": batch.positions}
        feed = {name: array for name, array in inputs.items() if name in names}
        return np.asarray(session.run([options["output"]], feed)[0], np.float32)

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        outputs: list[Vectors] = [np.empty(0, np.float32)] * len(rows)

        def store(session: onnxruntime.InferenceSession, batch: PaddedBatch) -> None:
            store_last_tokens(outputs, batch, run(session, batch))

        copies.map(store, list(sorted_batches(rows, batch_rows)))
        return np.stack(outputs)

    def score(rows: Rows, batch_rows: int) -> Vectors:
        outputs = np.empty((len(rows), 1), np.float32)

        def store(session: onnxruntime.InferenceSession, batch: PaddedBatch) -> None:
            store_scores(outputs, batch, run(session, batch))

        copies.map(store, list(sorted_batches(rows, batch_rows)))
        return outputs

    return score if options["output"] == "logits" else embed


if __name__ == "__main__":
    serve(_load, ("onnxruntime", "optimum-onnx", "transformers"))
