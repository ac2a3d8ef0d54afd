"""Transport-independent part of a reranking call: pairs to requests, replies to scores and ranks."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .connected_model import ConnectedModel
from .duplicates import Duplicates
from .errors import InvalidInputError
from .manifest import RerankManifest
from .model_outputs import FloatOutput, ModelOutput
from .prompts import prompt_before_document, prompt_pairs
from .replies import ResultKind, RowResults, check_errors
from .requests import RowRequest, pack_requests
from .texts import Texts, check_text, check_texts
from .tokenization import make_pair_tokenizer


class RankedDocument(NamedTuple):
    """A document's position in the caller's list, and its score."""

    position: int
    """Index in the list of documents."""
    score: float
    """Relevance in 0…1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreCall:
    """A call that scores pairs."""

    texts: Texts
    """The document of each pair, for error messages."""
    duplicates: Duplicates
    kind: ResultKind
    requests: Iterator[RowRequest]
    """Packed lazily; empty if there are no pairs."""

    @property
    def output(self) -> ModelOutput:
        """The output tensor with the scores."""
        return self.kind.output

    def new_results(self) -> RowResults:
        """Return where the replies are collected, float32 `[pairs]` scores."""
        return RowResults(self.texts, self.duplicates, self.kind)

    def finish(self, results: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores, float32 `[pairs]`."""
        return results


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCall:
    """A call that ranks the documents of one query."""

    scores: ScoreCall
    top_k: int | None

    @property
    def texts(self) -> Texts:
        """The documents."""
        return self.scores.texts

    @property
    def requests(self) -> Iterator[RowRequest]:
        """The requests of the scoring call."""
        return self.scores.requests

    @property
    def output(self) -> ModelOutput:
        """The output tensor with the scores."""
        return self.scores.output

    def new_results(self) -> RowResults:
        """Return where the replies are collected, float32 `[documents]` scores."""
        return self.scores.new_results()

    def finish(self, results: NDArray[np.float32]) -> list[RankedDocument]:
        """Return the best documents, highest score first."""
        return rank_scores(results, self.top_k)


class RerankPreparation:
    """Prepares calls of one model. Performs no I/O, so that every transport can share it."""

    def __init__(self, model: ConnectedModel[RerankManifest]) -> None:
        self.model = model
        self.manifest = model.manifest
        self.output = FloatOutput(name=self.manifest.task.output, width=1)
        prompts = self.manifest.prompts
        self._tokenizer = make_pair_tokenizer(model.tokenizer, prompts.prefix, prompts.suffix, self.manifest.max_tokens)

    def rank(
        self, query: str, documents: Iterable[str], instruction: str | None, top_k: int | None, errors: str
    ) -> RankCall:
        """Prepare a call that ranks `documents`; raises InvalidInputError as documented at `RerankClient`."""
        checked_top_k = _check_top_k(top_k)
        check_text(query, "query")
        texts = check_texts(documents, "documents")
        return RankCall(scores=self._call([query] * len(texts), texts, instruction, errors), top_k=checked_top_k)

    def score(self, pairs: Iterable[tuple[str, str]], instruction: str | None, errors: str) -> ScoreCall:
        """Prepare a call that scores `pairs`; raises InvalidInputError as documented at `RerankClient`."""
        checked = [_check_pair(pair, index) for index, pair in enumerate(pairs)]
        documents = Texts([document for _, document in checked], "pairs")
        return self._call([query for query, _ in checked], documents, instruction, errors)

    def _call(self, queries: Sequence[str], documents: Texts, instruction: str | None, errors: str) -> ScoreCall:
        bodies = prompt_pairs(self.manifest.prompts, queries, documents.texts, instruction)
        duplicates = Duplicates.find(bodies)
        positions = duplicates.computed
        tokens = self._tokenizer.tokenize(
            duplicates.select(bodies),
            lambda index: documents.describe(int(positions[index])),
            lambda index: prompt_before_document(self.manifest.prompts, queries[positions[index]], instruction),
            truncate=self.model.truncate,
        )
        return ScoreCall(
            texts=documents,
            duplicates=duplicates,
            kind=ResultKind(
                name="score",
                output=self.output,
                shape=(),
                dtype=np.dtype(np.float32),
                convert=_squeeze,
                errors=check_errors(errors),
            ),
            requests=pack_requests(tokens, positions, self.model.pace.limits),
        )


def _squeeze(output: NDArray[np.float32]) -> NDArray[np.float32]:
    return output[:, 0]


def rank_scores(scores: NDArray[np.float32], top_k: int | None) -> list[RankedDocument]:
    """Return the `top_k` highest of `scores` `[n]` (all for None), highest first, equal scores by position."""
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [RankedDocument(int(index), float(scores[index])) for index in order]


def _check_top_k(top_k: int | None) -> int | None:
    if top_k is None:
        return None
    try:
        count = operator.index(top_k)
    except TypeError as exc:
        raise InvalidInputError(f"top_k is of type {type(top_k).__name__}, expected int") from exc
    if count < 1:
        raise InvalidInputError(f"top_k is {count}; it must be at least 1")
    return count


def _check_pair(pair: Sequence[str], index: int) -> tuple[str, str]:
    # a string of two characters would unpack too
    if isinstance(pair, str | bytes) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise InvalidInputError(f"pairs[{index}] is not a (query, document) pair of two strings")
    query, document = pair
    return check_text(query, f"pairs[{index}][0]"), check_text(document, f"pairs[{index}][1]")
