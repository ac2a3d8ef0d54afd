"""Transport-independent part of an embedding call: texts to requests, replies to an array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .connected_model import ConnectedModel
from .lost_rows import ExpectedOutput
from .manifest import EmbeddingManifest
from .prompts import prompt_documents, prompt_queries
from .replies import OnNaN, RowReply, check_errors, collect_embeddings
from .requests import RowRequest, pack_requests
from .texts import Texts, check_texts
from .tokenization import RowTokenizer
from .vectors import check_dimension


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCall:
    """An embedding call: the requests to send, and what turns their replies into vectors."""

    texts: Texts
    dim: int
    errors: OnNaN
    manifest: EmbeddingManifest
    requests: Iterator[RowRequest]
    """Packed lazily; empty if there are no texts."""

    @property
    def output(self) -> ExpectedOutput:
        """The output tensor with the embeddings."""
        return ExpectedOutput(name=self.manifest.task.output, width=self.manifest.dimension)

    def finish(self, replies: Iterable[RowReply]) -> NDArray[np.float32]:
        """Return float32 `[texts, dim]` unit rows in the order of `texts`; raises as `collect_embeddings` does."""
        return collect_embeddings(replies, self.texts, self.manifest, self.dim, self.errors)


class EmbeddingPreparation:
    """Prepares calls of one model. Performs no I/O, so that every transport can share it."""

    def __init__(self, model: ConnectedModel[EmbeddingManifest]) -> None:
        self.model = model
        self.manifest = model.manifest
        self._tokenizer = RowTokenizer(
            tokenizer=model.tokenizer, end_token_id=self.manifest.end_token_id, max_tokens=self.manifest.max_tokens
        )

    @property
    def output(self) -> ExpectedOutput:
        """The output tensor with the embeddings."""
        return ExpectedOutput(name=self.manifest.task.output, width=self.manifest.dimension)

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
        checked_dim, on_nan = check_dimension(self.manifest, dim), check_errors(errors)
        tokens = self._tokenizer.tokenize(texts, prompted, truncate=self.model.truncate)
        requests = pack_requests(tokens, self.model.pace.limits)
        return EmbeddingCall(texts=texts, dim=checked_dim, errors=on_nan, manifest=self.manifest, requests=requests)
