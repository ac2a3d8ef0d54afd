"""An embedding call without its transport: texts to requests, replies to an array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .contract import Contract
from .prompts import prompt_documents, prompt_queries
from .replies import RowReply, collect_embeddings
from .requests import RequestLimits, RowRequest, pack_requests
from .texts import check_texts
from .tokenization import RowTokenizer
from .vectors import check_dimension


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCall:
    """One call on its way: what to send, and what to make of the replies."""

    texts: list[str]
    dim: int
    contract: Contract
    requests: Iterator[RowRequest]
    """Packed as they are taken; empty where there are no texts."""

    def finish(self, replies: Iterable[RowReply]) -> NDArray[np.float32]:
        """FP32 `[texts, dim]` unit rows in the order of `texts`; errors as `collect_embeddings`."""
        return collect_embeddings(replies, self.texts, self.contract, self.dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingPreparation:
    """Turns texts into calls of one model; pure, shared by every transport."""

    contract: Contract
    tokenizer: RowTokenizer
    limits: RequestLimits
    truncate: bool

    def queries(self, texts: Iterable[str], instruction: str | None, dim: int | None) -> EmbeddingCall:
        """The call that embeds queries. Raises BadInput, see `EmbeddingClient`."""
        checked = check_texts(texts)
        return self._call(checked, prompt_queries(self.contract.prompts, checked, instruction), dim)

    def documents(self, texts: Iterable[str], dim: int | None) -> EmbeddingCall:
        """The call that embeds documents. Raises BadInput, see `EmbeddingClient`."""
        checked = check_texts(texts)
        return self._call(checked, prompt_documents(self.contract.prompts, checked), dim)

    def _call(self, texts: list[str], prompted: list[str], dim: int | None) -> EmbeddingCall:
        checked_dim = check_dimension(self.contract, dim)
        tokens = self.tokenizer.tokenize(texts, prompted, truncate=self.truncate)
        return EmbeddingCall(
            texts=texts,
            dim=checked_dim,
            contract=self.contract,
            requests=pack_requests(tokens, self.limits),
        )
