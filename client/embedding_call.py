"""Transport-independent part of an embedding call: texts to requests, replies to an array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .connected_model import ConnectedModel
from .duplicates import Duplicates
from .errors import InvalidInputError
from .manifest import EmbeddingManifest, OutputType
from .model_outputs import FloatOutput, ModelOutput, StatusOutput
from .prompts import prompt_documents, prompt_queries
from .quantization import quantize_embeddings
from .replies import ResultKind, RowResults, check_errors
from .requests import RowRequest, pack_requests
from .texts import Texts, check_texts
from .tokenization import RowTokenizer, TokenRows
from .vector_formats import EmbeddingDtype, VectorFormat, make_format, signed_bytes
from .vectors import check_dimension, truncate_vectors

_SENT_AS = {"float16": OutputType.FLOAT16, "binary": OutputType.UBINARY, "ubinary": OutputType.UBINARY}
"""Outputs that have the bits of a type; the others are computed from floats."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorOptions:
    """What the caller wants of the vectors, documented at `EmbeddingClient.embed_queries`."""

    dim: int | None = None
    errors: str = "raise"
    dtype: EmbeddingDtype = "float32"
    ranges: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCall:
    """An embedding call: the requests to send, and what turns their replies into vectors."""

    texts: Texts
    duplicates: Duplicates
    kind: ResultKind
    options: VectorOptions
    requests: Iterator[RowRequest]
    """Packed lazily; empty if there are no texts."""

    @property
    def output(self) -> ModelOutput:
        """The output tensor with the embeddings."""
        return self.kind.output

    def new_results(self) -> RowResults:
        """Return where the replies are collected."""
        return RowResults(self.texts, self.duplicates, self.kind)

    def finish(self, results: NDArray[Any]) -> NDArray[Any]:
        """Return the vectors `[texts, width]` in the type that the caller wants."""
        if results.dtype != np.float32:
            # the server has converted them
            return results
        return quantize_embeddings(results, self.options.dtype, ranges=self.options.ranges)


def _unchanged(values: NDArray[Any]) -> NDArray[Any]:
    return values


class EmbeddingPreparation:
    """Prepares calls of one model. Performs no I/O, so that every transport can share it."""

    def __init__(self, model: ConnectedModel[EmbeddingManifest]) -> None:
        self.model = model
        self.manifest = model.manifest
        self._tokenizer = RowTokenizer(
            tokenizer=model.tokenizer, end_token_id=self.manifest.end_token_id, max_tokens=self.manifest.max_tokens
        )

    def vector_format(self, options: VectorOptions) -> VectorFormat:
        """Return the format of the vectors; raise InvalidInputError if an option is invalid for this model."""
        errors = check_errors(options.errors)
        chosen = make_format(options.dtype, check_dimension(self.manifest, options.dim), options.ranges)
        if errors == "nan" and not chosen.holds_nan:
            raise InvalidInputError(
                f"errors is 'nan', but {options.dtype} vectors cannot hold NaN: use float32, float16 or errors='raise'"
            )
        return chosen

    def queries(
        self, texts: Iterable[str], instruction: str | None, options: VectorOptions, *, first: int = 0
    ) -> EmbeddingCall:
        """Prepare a call that embeds queries; raises InvalidInputError as documented at `EmbeddingClient`."""
        checked = check_texts(texts, first=first)
        return self._call(checked, prompt_queries(self.manifest.prompts, checked.texts, instruction), options)

    def documents(self, texts: Iterable[str], options: VectorOptions, *, first: int = 0) -> EmbeddingCall:
        """Prepare a call that embeds documents; raises InvalidInputError as documented at `EmbeddingClient`."""
        checked = check_texts(texts, first=first)
        return self._call(checked, prompt_documents(self.manifest.prompts, checked.texts), options)

    def _call(self, texts: Texts, prompted: list[str], options: VectorOptions) -> EmbeddingCall:
        kind = self.result_kind(options)
        duplicates = Duplicates.find(prompted)
        tokens = self._tokenize(texts, prompted, duplicates)
        requests = pack_requests(tokens, texts.first + duplicates.computed, self.model.pace.limits)
        return EmbeddingCall(texts=texts, duplicates=duplicates, kind=kind, options=options, requests=requests)

    def result_kind(self, options: VectorOptions) -> ResultKind:
        """Return what is requested of the server, and what becomes of it: the smallest output that serves `options`.

        Raises:
            InvalidInputError: An option is invalid for this model.
        """
        chosen, errors = self.vector_format(options), check_errors(options.errors)
        wanted = [_SENT_AS.get(options.dtype), OutputType.FLOAT32]
        compact = {output.dtype: output for output in self.manifest.compact_outputs if output.dim == chosen.dim}
        found = next((compact[dtype] for dtype in wanted if dtype in compact), None)
        if found is None:
            return ResultKind(
                name="embedding",
                output=FloatOutput(name=self.manifest.task.output, width=self.manifest.dimension),
                shape=(chosen.dim,),
                dtype=np.dtype(np.float32),
                convert=partial(truncate_vectors, dim=chosen.dim),
                errors=errors,
            )
        is_float32 = found.dtype is OutputType.FLOAT32
        return ResultKind(
            name="embedding",
            output=StatusOutput(output=found),
            shape=(found.width,),
            dtype=np.dtype(np.float32) if is_float32 else chosen.stored,
            convert=signed_bytes if options.dtype == "binary" and not is_float32 else _unchanged,
            errors=errors,
        )

    def _tokenize(self, texts: Texts, prompted: list[str], duplicates: Duplicates) -> TokenRows:
        positions = duplicates.computed
        return self._tokenizer.tokenize(
            duplicates.select(prompted),
            lambda index: texts.describe(int(positions[index])),
            truncate=self.model.truncate,
        )
