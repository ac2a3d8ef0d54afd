"""Asynchronous embedding client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from functools import partial
from typing import Any, Literal

from numpy.typing import NDArray

from .async_model_client import AsyncModelClient
from .async_sentence_methods import AsyncSentenceMethods
from .async_sources import AsyncPreparedWindows, AsyncTextWindows
from .call_deadline import CallDeadline
from .connected_model import ConnectedModel, connect_model
from .current_model import VersionReplacedError, changed_iterator
from .embedding import DEFAULT_WINDOW_TEXTS
from .embedding_call import EmbeddingCall, EmbeddingPreparation, VectorOptions
from .embedding_stream import EmbeddingStream, check_windows, prepare_documents, prepare_queries
from .errors import ServerError
from .manifest import EmbeddingManifest
from .output_array import OutputArray
from .replies import check_errors
from .texts import count_characters, repeatable
from .tracing import Operation
from .vector_formats import EmbeddingDtype


class AsyncEmbeddingClient(AsyncModelClient[EmbeddingPreparation], AsyncSentenceMethods):
    """Client of an exported embedding model on a Triton server, for the tasks of one event loop.

    Methods, results and errors are those of `EmbeddingClient`.

    Example:
        ```python
        async with AsyncEmbeddingClient("localhost:8001", model="mymodel") as client:
            queries = await client.embed_queries(["how do I sort a list?"], dim=256)  # float32 [1, 256]
            async for vectors in client.iter_documents(open("corpus.txt"), dim=256):
                ...  # float32 [1024, 256]
        ```
    """

    _operation = Operation.EMBEDDINGS

    @property
    def manifest(self) -> EmbeddingManifest:
        """Manifest of the version that the client uses; raises ClientError before the client has connected."""
        return self._preparation.manifest

    async def embed_queries(
        self,
        texts: Iterable[str],
        instruction: str | None = None,
        dim: int | None = None,
        *,
        errors: Literal["raise", "nan"] = "raise",
        dtype: EmbeddingDtype = "float32",
        ranges: NDArray[Any] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Embed queries; see `EmbeddingClient.embed_queries`.

        Args:
            texts: Queries, without prompt.
            instruction: Task description for the prompt; None for the model's default.
            dim: Number of leading components to keep, renormalized; None for all.
            errors: What a NaN for a text does.
            dtype: Type of the result.
            ranges: For 8-bit codes, the range of each component `[2, dim]`.
            out: Array `[n or more, width]` of this type to write to.

        Returns:
            float32 `[n, dim]`, rows of L2 norm 1, in the order of `texts`; `[n, width]` for another `dtype`; the first
            n rows of `out` if that is given.
        """
        options = VectorOptions(dim=dim, errors=errors, dtype=dtype, ranges=ranges)
        if out is not None:
            return await self._write(texts, partial(prepare_queries, instruction, options), options, out)
        repeated = repeatable(texts)
        return await self._infer(
            lambda prepared: prepared.queries(repeated, instruction, options), count_characters(repeated)
        )

    async def embed_documents(
        self,
        texts: Iterable[str],
        dim: int | None = None,
        *,
        errors: Literal["raise", "nan"] = "raise",
        dtype: EmbeddingDtype = "float32",
        ranges: NDArray[Any] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Embed documents; see `EmbeddingClient.embed_documents`.

        Args:
            texts: Documents, without prompt.
            dim: Number of leading components to keep, renormalized; None for all.
            errors: What a NaN for a text does.
            dtype: Type of the result.
            ranges: For 8-bit codes, the range of each component `[2, dim]`.
            out: Array `[n or more, width]` of this type to write to.

        Returns:
            float32 `[n, dim]`, rows of L2 norm 1, in the order of `texts`; `[n, width]` for another `dtype`; the first
            n rows of `out` if that is given.
        """
        options = VectorOptions(dim=dim, errors=errors, dtype=dtype, ranges=ranges)
        if out is not None:
            return await self._write(texts, partial(prepare_documents, options), options, out)
        repeated = repeatable(texts)
        return await self._infer(lambda prepared: prepared.documents(repeated, options), count_characters(repeated))

    def iter_queries(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        instruction: str | None = None,
        dim: int | None = None,
        *,
        errors: Literal["raise", "nan"] = "raise",
        dtype: EmbeddingDtype = "float32",
        ranges: NDArray[Any] | None = None,
        window_texts: int = DEFAULT_WINDOW_TEXTS,
    ) -> AsyncGenerator[NDArray[Any], None]:
        """Embed queries and yield their vectors in order; see `EmbeddingClient.iter_queries`.

        Args:
            texts: Queries, without prompt; may be a generator, also an asynchronous one.
            instruction: Task description for the prompt; None for the model's default.
            dim: Number of leading components to keep, renormalized; None for all.
            errors: What a NaN for a text does.
            dtype: Type of the result.
            ranges: For 8-bit codes, the range of each component `[2, dim]`.
            window_texts: Number of consecutive texts that are sorted by length together, and rows of each array.

        Yields:
            float32 `[window_texts, dim]`, rows of L2 norm 1, or `[window_texts, width]` for another `dtype`; the last
            array may have fewer rows.
        """
        options = VectorOptions(dim=dim, errors=errors, dtype=dtype, ranges=ranges)
        self._check_stream(texts, options, window_texts)
        return self._iterate(texts, partial(prepare_queries, instruction, options), options, window_texts)

    def iter_documents(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        dim: int | None = None,
        *,
        errors: Literal["raise", "nan"] = "raise",
        dtype: EmbeddingDtype = "float32",
        ranges: NDArray[Any] | None = None,
        window_texts: int = DEFAULT_WINDOW_TEXTS,
    ) -> AsyncGenerator[NDArray[Any], None]:
        """Embed documents and yield their vectors in order; see `EmbeddingClient.iter_documents`.

        Args:
            texts: Documents, without prompt; may be a generator, also an asynchronous one.
            dim: Number of leading components to keep, renormalized; None for all.
            errors: What a NaN for a text does.
            dtype: Type of the result.
            ranges: For 8-bit codes, the range of each component `[2, dim]`.
            window_texts: Number of consecutive texts that are sorted by length together, and rows of each array.

        Yields:
            float32 `[window_texts, dim]`, rows of L2 norm 1, or `[window_texts, width]` for another `dtype`; the last
            array may have fewer rows.
        """
        options = VectorOptions(dim=dim, errors=errors, dtype=dtype, ranges=ranges)
        self._check_stream(texts, options, window_texts)
        return self._iterate(texts, partial(prepare_documents, options), options, window_texts)

    def _check_stream(self, texts: object, options: VectorOptions, window_texts: int) -> None:
        """Raise InvalidInputError when an iterator is created, as far as that is known before connecting."""
        check_windows(texts, window_texts)
        check_errors(options.errors)
        if self._connected is not None:
            self._connected.preparation.vector_format(options)

    async def _write(
        self,
        texts: Iterable[str],
        prepare: Callable[[EmbeddingPreparation, list[str], int], EmbeddingCall],
        options: VectorOptions,
        out: NDArray[Any],
    ) -> NDArray[Any]:
        """Write the vectors to `out`, and return the rows that were written."""
        check_windows(texts, DEFAULT_WINDOW_TEXTS)
        current = await self._current()
        target = OutputArray(out, current.preparation.vector_format(options), texts)
        async with aclosing(self._iterate(texts, prepare, options, DEFAULT_WINDOW_TEXTS)) as arrays:
            async for vectors in arrays:
                target.write(vectors)
        return target.written

    async def _iterate(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        prepare: Callable[[EmbeddingPreparation, list[str], int], EmbeddingCall],
        options: VectorOptions,
        window_texts: int,
    ) -> AsyncGenerator[NDArray[Any], None]:
        deadline = CallDeadline.start(self._options.call_timeout_s)
        with self._tracer.start() as span:
            # unlike a call that returns one array, an iterator cannot start again once it has yielded
            preparation = await self._refresh()
            output = preparation.result_kind(options).output
            stream = EmbeddingStream(window_texts, span.counts)
            windows = AsyncTextWindows(texts, window_texts)
            async with (
                aclosing(AsyncPreparedWindows(windows, partial(prepare, preparation), stream.start)) as source,
                aclosing(self._replies(source, output, preparation, deadline, span)) as replies,
            ):
                try:
                    async for reply in replies:
                        stream.add(reply)
                        for vectors in stream.finished():
                            yield vectors
                except VersionReplacedError as exc:
                    raise changed_iterator(preparation.model.version) from exc
                except ServerError:
                    for vectors in stream.leading():
                        yield vectors
                    raise

    def _prepare(self, config: Any, before: ConnectedModel[EmbeddingManifest] | None) -> EmbeddingPreparation:
        return EmbeddingPreparation(connect_model(config, EmbeddingManifest, self._options, self._servers, before))
