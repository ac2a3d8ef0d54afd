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
from .lost_rows import ExpectedOutput
from .manifest import EmbeddingManifest
from .prompts import prompt_documents, prompt_queries
from .quantization import quantize_embeddings
from .replies import ResultKind, RowResults, check_errors
from .requests import RowRequest, pack_requests
from .texts import Texts, check_texts
from .tokenization import RowTokenizer, TokenRows
from .vector_formats import EmbeddingDtype, VectorFormat, make_format
from .vectors import check_dimension, truncate_vectors


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
    def output(self) -> ExpectedOutput:
        """The output tensor with the embeddings."""
        return self.kind.output

    def new_results(self) -> RowResults:
        """Return where the replies are collected, float32 `[texts, dim]` unit rows."""
        return RowResults(self.texts, self.duplicates, self.kind)

    def finish(self, results: NDArray[np.float32]) -> NDArray[Any]:
        """Return the vectors `[texts, width]` in the type that the caller wants."""
        return quantize_embeddings(results, self.options.dtype, ranges=self.options.ranges)


class EmbeddingPreparation:
    """Prepares calls of one model. Performs no I/O, so that every transport can share it."""

    def __init__(self, model: ConnectedModel[EmbeddingManifest]) -> None:
        self.model = model
        self.manifest = model.manifest
        self.output = ExpectedOutput(name=self.manifest.task.output, width=self.manifest.dimension)
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
        kind = self._result_kind(options)
        duplicates = Duplicates.find(prompted)
        tokens = self._tokenize(texts, prompted, duplicates)
        requests = pack_requests(tokens, texts.first + duplicates.computed, self.model.pace.limits)
        return EmbeddingCall(texts=texts, duplicates=duplicates, kind=kind, options=options, requests=requests)

    def _result_kind(self, options: VectorOptions) -> ResultKind:
        dim = self.vector_format(options).dim
        return ResultKind(
            name="embedding",
            output=self.output,
            shape=(dim,),
            convert=partial(truncate_vectors, dim=dim),
            errors=check_errors(options.errors),
        )

    def _tokenize(self, texts: Texts, prompted: list[str], duplicates: Duplicates) -> TokenRows:
        positions = duplicates.computed
        return self._tokenizer.tokenize(
            duplicates.select(prompted),
            lambda index: texts.describe(int(positions[index])),
            truncate=self.model.truncate,
        )
