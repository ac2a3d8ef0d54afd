"""llama.cpp through its Python bindings, with the sequences of a batch concatenated without padding.

Options: model (a GGUF file), threads, cache (streams: one key-value cache per sequence; shared: one for all), pooling
(last: embed; rank: score with the file's classifier).
"""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np

from ..batches import sorted_indices
from ..rows import Rows, Vectors
from .serve import Embed, Options, serve

_STEP = 256
"""llama.cpp rounds the capacity of a sequence up to a multiple of this."""


class _Context:
    """A llama.cpp context with capacity for `rows` sequences of `tokens` tokens."""

    def __init__(self, model: Any, options: Options, rows: int, tokens: int) -> None:
        self.rows, self.tokens = rows, tokens
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = rows * tokens
        params.n_batch = rows * tokens
        params.n_seq_max = rows
        params.n_threads = params.n_threads_batch = int(options["threads"])
        params.embeddings = True
        ranks = options["pooling"] == "rank"
        params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_RANK if ranks else llama_cpp.LLAMA_POOLING_TYPE_LAST
        params.kv_unified = options["cache"] == "shared"
        self._context = llama_cpp.llama_init_from_model(model, params)
        if not self._context:
            raise MemoryError(f"no context for {rows} sequences of {tokens} tokens")
        self._ranks = ranks
        self._width = llama_cpp.llama_model_n_cls_out(model) if ranks else llama_cpp.llama_model_n_embd(model)
        self._batch = llama_cpp.llama_batch_init(rows * tokens, 0, 1)

    def embed(self, rows: Rows) -> Vectors:
        """Return unit vectors [n, hidden] or scores [n, 1]."""
        self._fill(rows)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        status = llama_cpp.llama_decode(self._context, self._batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        vectors = np.empty((len(rows), self._width), np.float32)
        for sequence in range(len(rows)):
            found = llama_cpp.llama_get_embeddings_seq(self._context, sequence)
            vectors[sequence] = np.ctypeslib.as_array(found, (self._width,))
        if self._ranks:
            # the graph includes the softmax; yes is the first label
            return vectors[:, :1]
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def close(self) -> None:
        """Free the context's memory."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)

    def _fill(self, rows: Rows) -> None:
        batch, at = self._batch, 0
        for sequence, row in enumerate(rows):
            for position, token in enumerate(row):
                batch.token[at], batch.pos[at] = token, position
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
                batch.logits[at] = 1
                at += 1
        batch.n_tokens = at


def _discard_log(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """Discard a line of llama.cpp's log."""


# the callback must outlive the library, which keeps a pointer to it
_SILENCE = llama_cpp.llama_log_callback(_discard_log)


def _load(options: Options) -> Embed:
    llama_cpp.llama_log_set(_SILENCE, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(options["model"].encode(), params)
    if not model:
        raise ValueError("llama.cpp cannot load the file")
    contexts: list[_Context] = []

    def context(rows: int, tokens: int) -> _Context:
        if not contexts or (contexts[0].rows, contexts[0].tokens) != (rows, tokens):
            while contexts:
                contexts.pop().close()
            contexts.append(_Context(model, options, rows, tokens))
        return contexts[0]

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        capacity = -(-max(map(len, rows)) // _STEP) * _STEP
        opened = context(min(batch_rows, len(rows)), capacity)
        outputs: list[Vectors] = [np.empty(0, np.float32)] * len(rows)
        for indices in sorted_indices(rows, batch_rows):
            for index, vector in zip(indices, opened.embed([rows[index] for index in indices]), strict=True):
                outputs[index] = vector
        return np.stack(outputs)

    return embed


if __name__ == "__main__":
    serve(_load, ("llama-cpp-python", "gguf"))
