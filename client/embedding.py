"""Synchronous embedding client."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from typing import Any, Literal

from numpy.typing import NDArray

from .call_deadline import CallDeadline
from .connected_model import ConnectedModel, connect_model
from .current_model import VersionReplacedError, changed_iterator
from .embedding_call import EmbeddingCall, EmbeddingPreparation, VectorOptions
from .embedding_stream import EmbeddingStream, check_windows, prepare_documents, prepare_queries
from .errors import ServerError
from .manifest import EmbeddingManifest
from .model_client import ModelClient
from .output_array import OutputArray
from .sentence_methods import SentenceMethods
from .sources import PreparedWindows, TextWindows
from .texts import repeatable
from .tracing import Operation
from .vector_formats import EmbeddingDtype, VectorFormat

DEFAULT_WINDOW_TEXTS = 1_024
"""Texts that an iterator sorts by length together."""


class EmbeddingClient(ModelClient[EmbeddingPreparation], SentenceMethods):
    """Client of an exported embedding model on a Triton server. Thread-safe.

    - An empty list returns an array without rows; no request is sent.
    - An empty text is embedded as its prompt and end token.
    - A text longer than the model's `max_tokens` is truncated and keeps its end token; with `truncate=False` it raises
      InvalidInputError.
    - InvalidInputError is raised, before any request is sent, for a text that is not a str or contains a lone
      surrogate, a row without tokens, a dimension that the model does not offer, and an instruction if the prompt takes
      none.

    Example:
        ```python
        with EmbeddingClient("localhost:8001", model="mymodel") as client:
            queries = client.embed_queries(["how do I sort a list?"], dim=256)  # float32 [1, 256]
            documents = client.embed_documents(["def sort(items): ..."], dim=256)
            cosines = queries @ documents.T
        ```
    """

    _operation = Operation.EMBEDDINGS

    @property
    def manifest(self) -> EmbeddingManifest:
        """Manifest of the version that the client uses, read from the server."""
        return self._current.preparation.manifest

    def embed_queries(
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
        """Embed queries.

        Args:
            texts: Queries, without prompt.
            instruction: Task description for the prompt; None for the model's default.
            dim: Number of leading components to keep, renormalized; None for all.
            errors: `"raise"` raises InvalidInputError if the server returned NaN for a text, `"nan"` returns a row of
                NaN for it.
            dtype: Type of the result: floats, 8-bit codes or bits; see `quantize_embeddings`.
            ranges: For 8-bit codes, the range of each component `[2, dim]`; see `fit_ranges`.
            out: Array `[n or more, width]` of this type to write to, such as a memory-mapped `.npy` file. Memory then
                does not depend on the number of texts, which may come from a generator.

        Returns:
            float32 `[n, dim]`, rows of L2 norm 1, in the order of `texts`; `[n, width]` for another `dtype`; the first
            n rows of `out` if that is given.

        Raises:
            InvalidInputError: An argument is invalid, or the server returned NaN for a text.
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The reply does not match the manifest.
        """
        options = VectorOptions(dim=dim, errors=errors, dtype=dtype, ranges=ranges)
        if out is not None:
            return self._write(texts, partial(prepare_queries, instruction, options), options, out)
        repeated = repeatable(texts)
        return self._infer(lambda prepared: prepared.queries(repeated, instruction, options))

    def embed_documents(
        self,
        texts: Iterable[str],
        dim: int | None = None,
        *,
        errors: Literal["raise", "nan"] = "raise",
        dtype: EmbeddingDtype = "float32",
        ranges: NDArray[Any] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Embed documents.

        Args:
            texts: Documents, without prompt.
            dim: Number of leading components to keep, renormalized; None for all.
            errors: `"raise"` raises InvalidInputError if the server returned NaN for a text, `"nan"` returns a row of
                NaN for it.
            dtype: Type of the result: floats, 8-bit codes or bits; see `quantize_embeddings`.
            ranges: For 8-bit codes, the range of each component `[2, dim]`; see `fit_ranges`.
            out: Array `[n or more, width]` of this type to write to, such as a memory-mapped `.npy` file. Memory then
                does not depend on the number of texts, which may come from a generator.

        Returns:
            float32 `[n, dim]`, rows of L2 norm 1, in the order of `texts`; `[n, width]` for another `dtype`; the first
            n rows of `out` if that is given.

        Raises:
            InvalidInputError: An argument is invalid, or the server returned NaN for a text.
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The reply does not match the manifest.
        """
        options = VectorOptions(dim=dim, errors=errors, dtype=dtype, ranges=ranges)
        if out is not None:
            return self._write(texts, partial(prepare_documents, options), options, out)
        repeated = repeatable(texts)
        return self._infer(lambda prepared: prepared.documents(repeated, options))

    def iter_queries(
        self,
        texts: Iterable[str],
        instruction: str | None = None,
        dim: int | None = None,
        *,
        errors: Literal["raise", "nan"] = "raise",
        dtype: EmbeddingDtype = "float32",
        ranges: NDArray[Any] | None = None,
        window_texts: int = DEFAULT_WINDOW_TEXTS,
    ) -> Generator[NDArray[Any], None, None]:
        """Embed queries and yield their vectors in order, while later ones are being computed.

        Memory and requests in flight are as for `iter_documents`.

        Args:
            texts: Queries, without prompt; may be a generator.
            instruction: Task description for the prompt; None for the model's default.
            dim: Number of leading components to keep, renormalized; None for all.
            errors: As for `embed_queries`.
            dtype: Type of the result: floats, 8-bit codes or bits; see `quantize_embeddings`.
            ranges: For 8-bit codes, the range of each component `[2, dim]`; see `fit_ranges`.
            window_texts: Number of consecutive texts that are sorted by length together, and rows of each array.

        Yields:
            float32 `[window_texts, dim]`, rows of L2 norm 1, or `[window_texts, width]` for another `dtype`; the last
            array may have fewer rows.

        Raises:
            InvalidInputError: An argument or a text is invalid, or the server returned NaN for a text.
            ServerError: As for `embed_queries`, after an array with the vectors that arrived without a gap.
            ManifestError: The reply does not match the manifest.
        """
        options = VectorOptions(dim=dim, errors=errors, dtype=dtype, ranges=ranges)
        self._check_stream(texts, options, window_texts)
        return self._iterate(texts, partial(prepare_queries, instruction, options), options, window_texts)

    def iter_documents(
        self,
        texts: Iterable[str],
        dim: int | None = None,
        *,
        errors: Literal["raise", "nan"] = "raise",
        dtype: EmbeddingDtype = "float32",
        ranges: NDArray[Any] | None = None,
        window_texts: int = DEFAULT_WINDOW_TEXTS,
    ) -> Generator[NDArray[Any], None, None]:
        """Embed documents and yield their vectors in order, while later ones are being computed.

        Memory does not depend on the number of texts. The first request is sent when the first array is asked for, and
        none while the caller uses an array, except those in flight; close the generator to cancel them.

        Args:
            texts: Documents, without prompt; may be a generator.
            dim: Number of leading components to keep, renormalized; None for all.
            errors: As for `embed_documents`.
            dtype: Type of the result: floats, 8-bit codes or bits; see `quantize_embeddings`.
            ranges: For 8-bit codes, the range of each component `[2, dim]`; see `fit_ranges`.
            window_texts: Number of consecutive texts that are sorted by length together, and rows of each array.

        Yields:
            float32 `[window_texts, dim]`, rows of L2 norm 1, or `[window_texts, width]` for another `dtype`; the last
            array may have fewer rows.

        Raises:
            InvalidInputError: An argument or a text is invalid, or the server returned NaN for a text.
            ServerError: As for `embed_documents`, after an array with the vectors that arrived without a gap.
            ManifestError: The reply does not match the manifest.
        """
        options = VectorOptions(dim=dim, errors=errors, dtype=dtype, ranges=ranges)
        self._check_stream(texts, options, window_texts)
        return self._iterate(texts, partial(prepare_documents, options), options, window_texts)

    def _check_stream(self, texts: Iterable[str], options: VectorOptions, window_texts: int) -> VectorFormat:
        """Raise InvalidInputError when an iterator is created, rather than when its first array is asked for."""
        check_windows(texts, window_texts)
        return self._current.preparation.vector_format(options)

    def _write(
        self,
        texts: Iterable[str],
        prepare: Callable[[EmbeddingPreparation, list[str], int], EmbeddingCall],
        options: VectorOptions,
        out: NDArray[Any],
    ) -> NDArray[Any]:
        """Write the vectors to `out`, and return the rows that were written."""
        target = OutputArray(out, self._check_stream(texts, options, DEFAULT_WINDOW_TEXTS), texts)
        with closing(self._iterate(texts, prepare, options, DEFAULT_WINDOW_TEXTS)) as arrays:
            for vectors in arrays:
                target.write(vectors)
        return target.written

    def _iterate(
        self,
        texts: Iterable[str],
        prepare: Callable[[EmbeddingPreparation, list[str], int], EmbeddingCall],
        options: VectorOptions,
        window_texts: int,
    ) -> Generator[NDArray[Any], None, None]:
        deadline = CallDeadline.start(self._options.call_timeout_s)
        with self._tracer.start() as span:
            # unlike a call that returns one array, an iterator cannot start again once it has yielded
            preparation = self._refresh()
            output = preparation.result_kind(options).output
            stream = EmbeddingStream(window_texts, span.counts)
            windows = TextWindows(texts, window_texts)
            with (
                closing(PreparedWindows(windows, partial(prepare, preparation), stream.start)) as source,
                closing(self._replies(source, output, preparation, deadline, span)) as replies,
            ):
                try:
                    for reply in replies:
                        stream.add(reply)
                        yield from stream.finished()
                except VersionReplacedError as exc:
                    raise changed_iterator(preparation.model.version) from exc
                except ServerError:
                    yield from stream.leading()
                    raise

    def _prepare(self, config: Any, before: ConnectedModel[EmbeddingManifest] | None) -> EmbeddingPreparation:
        return EmbeddingPreparation(connect_model(config, EmbeddingManifest, self._options, self._servers, before))
