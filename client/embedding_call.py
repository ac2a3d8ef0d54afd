"""Transport-independent part of an embedding call: texts to requests, replies to an array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .connected_model import ConnectedModel
from .duplicates import Duplicates
from .lost_rows import ExpectedOutput
from .manifest import EmbeddingManifest
from .prompts import prompt_documents, prompt_queries
from .replies import ResultKind, RowResults, check_errors
from .requests import RowRequest, pack_requests
from .texts import Texts, check_texts
from .tokenization import RowTokenizer, TokenRows
from .vectors import check_dimension, truncate_vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCall:
    """An embedding call: the requests to send, and what turns their replies into vectors."""

    texts: Texts
    duplicates: Duplicates
    kind: ResultKind
    requests: Iterator[RowRequest]
    """Packed lazily; empty if there are no texts."""

    @property
    def output(self) -> ExpectedOutput:
        """The output tensor with the embeddings."""
        return self.kind.output

    def new_results(self) -> RowResults:
        """Return where the replies are collected, float32 `[texts, dim]` unit rows."""
        return RowResults(self.texts, self.duplicates, self.kind)

    def finish(self, results: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the vectors, float32 `[texts, dim]`."""
        return results


class EmbeddingPreparation:
    """Prepares calls of one model. Performs no I/O, so that every transport can share it."""

    def __init__(self, model: ConnectedModel[EmbeddingManifest]) -> None:
        self.model = model
        self.manifest = model.manifest
        self.output = ExpectedOutput(name=self.manifest.task.output, width=self.manifest.dimension)
        self._tokenizer = RowTokenizer(
            tokenizer=model.tokenizer, end_token_id=self.manifest.end_token_id, max_tokens=self.manifest.max_tokens
        )

    def check(self, dim: int | None, errors: str) -> None:
        """Raise InvalidInputError if the model does not offer `dim`, or `errors` is not a choice."""
        check_dimension(self.manifest, dim)
        check_errors(errors)

    def queries(
        self, texts: Iterable[str], instruction: str | None, dim: int | None, errors: str, *, first: int = 0
    ) -> EmbeddingCall:
        """Prepare a call that embeds queries; raises InvalidInputError as documented at `EmbeddingClient`."""
        checked = check_texts(texts, first=first)
        return self._call(checked, prompt_queries(self.manifest.prompts, checked.texts, instruction), dim, errors)

    def documents(self, texts: Iterable[str], dim: int | None, errors: str, *, first: int = 0) -> EmbeddingCall:
        """Prepare a call that embeds documents; raises InvalidInputError as documented at `EmbeddingClient`."""
        checked = check_texts(texts, first=first)
        return self._call(checked, prompt_documents(self.manifest.prompts, checked.texts), dim, errors)

    def _call(self, texts: Texts, prompted: list[str], dim: int | None, errors: str) -> EmbeddingCall:
        kind = self._result_kind(dim, errors)
        duplicates = Duplicates.find(prompted)
        tokens = self._tokenize(texts, prompted, duplicates)
        requests = pack_requests(tokens, texts.first + duplicates.computed, self.model.pace.limits)
        return EmbeddingCall(texts=texts, duplicates=duplicates, kind=kind, requests=requests)

    def _result_kind(self, dim: int | None, errors: str) -> ResultKind:
        checked_dim = check_dimension(self.manifest, dim)
        return ResultKind(
            name="embedding",
            output=self.output,
            shape=(checked_dim,),
            convert=partial(truncate_vectors, dim=checked_dim),
            errors=check_errors(errors),
        )

    def _tokenize(self, texts: Texts, prompted: list[str], duplicates: Duplicates) -> TokenRows:
        positions = duplicates.computed
        return self._tokenizer.tokenize(
            duplicates.select(prompted),
            lambda index: texts.describe(int(positions[index])),
            truncate=self.model.truncate,
        )
