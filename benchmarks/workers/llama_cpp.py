"""llama.cpp through its Python wheel, sequences of a batch end to end without padding.

Options: model (a GGUF file), threads, cache (streams: keys and values of each sequence apart; shared: in one), pooling
(last: embeds; rank: scores with the file's classifier).
"""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np

from ..batches import sorted_places
from ..rows import Rows, Vectors
from .serve import Embed, Options, serve

_STEP = 256
"""llama.cpp rounds a sequence's room up to this."""


class _Context:
    """A context that has room for so many sequences of so many tokens."""

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
        """Unit rows [n, hidden], or scores [n, 1]."""
        self._fill(rows)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        status = llama_cpp.llama_decode(self._context, self._batch)
        if status != 0:
            raise RuntimeError(f"llama_decode gives {status}")
        vectors = np.empty((len(rows), self._width), np.float32)
        for sequence in range(len(rows)):
            found = llama_cpp.llama_get_embeddings_seq(self._context, sequence)
            vectors[sequence] = np.ctypeslib.as_array(found, (self._width,))
        if self._ranks:
            # softmax is part of the graph; yes is the first label
            return vectors[:, :1]
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def close(self) -> None:
        """Gives its memory back."""
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


def _say_nothing(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """Takes a line of llama.cpp's log."""


# a callback has to live as long as the library
_SILENCE = llama_cpp.llama_log_callback(_say_nothing)


def _load(options: Options) -> Embed:
    llama_cpp.llama_log_set(_SILENCE, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(options["model"].encode(), params)
    if not model:
        raise ValueError("llama.cpp does not load the file")
    held: list[_Context] = []

    def context(rows: int, tokens: int) -> _Context:
        if not held or (held[0].rows, held[0].tokens) != (rows, tokens):
            while held:
                held.pop().close()
            held.append(_Context(model, options, rows, tokens))
        return held[0]

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        room = -(-max(map(len, rows)) // _STEP) * _STEP
        opened = context(min(batch_rows, len(rows)), room)
        answers: list[Vectors] = [np.empty(0, np.float32)] * len(rows)
        for places in sorted_places(rows, batch_rows):
            for place, vector in zip(places, opened.embed([rows[place] for place in places]), strict=True):
                answers[place] = vector
        return np.stack(answers)

    return embed


if __name__ == "__main__":
    serve(_load, ("llama-cpp-python", "gguf"))
