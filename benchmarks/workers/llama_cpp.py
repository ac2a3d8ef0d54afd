"""llama.cpp through its Python bindings, with the sequences of a batch concatenated without padding.

Options: model (a GGUF file), copies (contexts that process batches in parallel), threads (of each copy), cache
(streams: one key-value cache per sequence; shared: one for all), prefix (kept: the state of the tokens with which all
texts begin is kept and reused; none), pooling (last: embed; rank: score with the file's classifier).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np

from ..batches import MIN_COMMON_PREFIX, common_prefix, sorted_indices
from ..rows import Rows, Vectors
from .copies import Copies
from .serve import Embed, Options, serve

_STEP = 256
"""llama.cpp rounds the capacity of a sequence up to a multiple of this."""


class _Context:
    """A llama.cpp context with capacity for `rows` sequences of `tokens` tokens.

    It can keep the state of the tokens with which all rows begin, in a sequence of its own, as llama.cpp's server keeps
    that of earlier requests.
    """

    def __init__(self, model: Any, options: Options, rows: int, tokens: int) -> None:
        self.rows, self.tokens = rows, tokens
        self._keeps = options["prefix"] == "kept"
        self._prefix: list[int] = []
        # one more sequence, for the prefix
        sequences = rows + 1 if self._keeps else rows
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = sequences * tokens
        params.n_batch = rows * tokens
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = int(options["threads"])
        params.embeddings = True
        ranks = options["pooling"] == "rank"
        params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_RANK if ranks else llama_cpp.LLAMA_POOLING_TYPE_LAST
        params.kv_unified = options["cache"] == "shared"
        self._context = llama_cpp.llama_init_from_model(model, params)
        if not self._context:
            raise MemoryError(f"no context for {sequences} sequences of {tokens} tokens")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._ranks = ranks
        self._width = llama_cpp.llama_model_n_cls_out(model) if ranks else llama_cpp.llama_model_n_embd(model)
        self._batch = llama_cpp.llama_batch_init(rows * tokens, 0, 1)

    def embed(self, rows: Rows, prefix: Sequence[int]) -> Vectors:
        """Return unit vectors [n, hidden] or scores [n, 1] of `rows`, all of which begin with `prefix`."""
        if prefix:
            self._keep(prefix)
        else:
            llama_cpp.llama_memory_clear(self._memory, False)
            self._prefix = []
        self._decode([(sequence, row[len(prefix) :]) for sequence, row in enumerate(rows)], len(prefix))
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

    def _keep(self, prefix: Sequence[int]) -> None:
        """Give every sequence the state of `prefix` only, computing it unless it is that of the last call."""
        if self._prefix != list(prefix):
            llama_cpp.llama_memory_clear(self._memory, False)
            self._decode([(self.rows, prefix)], 0)
            self._prefix = list(prefix)
        for sequence in range(self.rows):
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            llama_cpp.llama_memory_seq_cp(self._memory, self.rows, sequence, -1, -1)

    def _decode(self, sequences: Sequence[tuple[int, Sequence[int]]], start: int) -> None:
        """Run the tokens of numbered sequences, the first of them at position `start`."""
        batch, at = self._batch, 0
        for sequence, row in sequences:
            for position, token in enumerate(row, start):
                batch.token[at], batch.pos[at] = token, position
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
                batch.logits[at] = 1
                at += 1
        batch.n_tokens = at
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")


class _Copy:
    """One of the copies of the program, which share the weights; its context is opened again for other capacities."""

    def __init__(self, model: Any, options: Options) -> None:
        self._model, self._options = model, options
        self._opened: _Context | None = None

    def context(self, rows: int, tokens: int) -> _Context:
        """Return a context for `rows` sequences of `tokens` tokens."""
        if self._opened is None or (self._opened.rows, self._opened.tokens) != (rows, tokens):
            if self._opened is not None:
                self._opened.close()
                self._opened = None
            self._opened = _Context(self._model, self._options, rows, tokens)
        return self._opened


def _kept_prefix(rows: Rows, options: Options) -> Sequence[int]:
    """Return the tokens whose state is kept; without a common prefix, rows are computed as usual."""
    length = common_prefix(rows) if options["prefix"] == "kept" else 0
    return rows[0][:length] if length >= MIN_COMMON_PREFIX else []


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
    copies = Copies([_Copy(model, options) for _ in range(int(options["copies"]))])

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        capacity = -(-max(map(len, rows)) // _STEP) * _STEP
        prefix = _kept_prefix(rows, options)
        outputs: list[Vectors] = [np.empty(0, np.float32)] * len(rows)

        def store(copy: _Copy, indices: Sequence[int]) -> None:
            opened = copy.context(min(batch_rows, len(rows)), capacity)
            for index, vector in zip(indices, opened.embed([rows[each] for each in indices], prefix), strict=True):
                outputs[index] = vector

        copies.map(store, list(sorted_indices(rows, batch_rows)))
        return np.stack(outputs)

    return embed


if __name__ == "__main__":
    serve(_load, ("llama-cpp-python", "gguf"))
