"""MTEB: an encoder and a cross-encoder, to evaluate a served model on its tasks. Needs the extra `mteb`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta
from mteb.similarity_functions import cos_sim, pairwise_cos_sim
from mteb.types import Array, PromptType
from numpy.typing import NDArray

from ..embedding import EmbeddingClient
from ..errors import InvalidInputError
from ..manifest import Manifest
from ..rerank import RerankClient
from .held_client import ClientHolder, HeldClient, Url, hold_client
from .task_instructions import TaskInstructions

__all__ = ["Qwen3TritonCrossEncoder", "Qwen3TritonEncoder", "TaskInstructions"]

Batches = Iterable[Mapping[str, Any]]
"""Columns of a dataset in batches, as mteb's data loaders yield them; `text` is a list of strings."""


class Qwen3TritonEncoder(ClientHolder):
    """Encoder for `mteb.evaluate`: a served embedding model.

    Documents of retrieval and reranking tasks get the model's prompt for documents, all other texts that for queries
    with the instruction of the task. A result is of one version of the model: after a redeploy, ModelChangedError is
    raised, unless the encoder was created with a client that follows redeploys.

    Example:
        ```python
        with Qwen3TritonEncoder("localhost:8001", "mymodel", name="acme/mymodel") as encoder:
            mteb.evaluate(encoder, mteb.get_tasks(tasks=["NFCorpus"]))
        ```
    """

    _held: HeldClient[EmbeddingClient]
    mteb_model_meta: ModelMeta
    """What mteb records of the model."""

    def __init__(
        self,
        url: Url | None = None,
        model: str | None = None,
        *,
        name: str,
        revision: str | None = None,
        client: EmbeddingClient | None = None,
        dim: int | None = None,
        instructions: TaskInstructions | None = None,
    ) -> None:
        """Connect to a model, or use an existing client.

        Args:
            url: `HOST:PORT` of Triton's gRPC port, or a list of servers with the same model.
            model: Name of the model on the server.
            name: Name in mteb's results, as `organization/model`. mteb finds earlier results by name and revision.
            revision: Revision in mteb's results; None for version and precision of the served model.
            client: Client to use in place of `url` and `model`; the caller closes it.
            dim: Number of leading components to keep, renormalized; None for all.
            instructions: Instructions for the prompt of queries; None for those of mteb's tasks.

        Raises:
            InvalidInputError: Neither or both of a client and a URL with a model are given, or the model's prompt takes
                no instruction.
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The client cannot use the model.
        """
        self._held = hold_client(partial(EmbeddingClient, on_new_version="refuse"), client, url, model)
        self._dim = dim
        self._instructions = instructions or TaskInstructions()
        manifest = self._held.client.manifest
        try:
            self._instructions.check(manifest.prompts.query)
            self.mteb_model_meta = _describe(
                manifest,
                name=name,
                revision=revision,
                model_type=["dense"],
                embed_dim=dim or manifest.dimension,
                similarity_fn_name="cosine",
                use_instructions="{instruction}" in manifest.prompts.query,
                experiment_kwargs=({} if dim is None else {"dim": dim}) | self._instructions.changes() or None,
            )
        except BaseException:
            self.close()
            raise

    def encode(
        self,
        inputs: Batches,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Return float32 `[n, dim]` unit vectors of the texts, as mteb's `EncoderProtocol` documents."""
        del hf_split, hf_subset
        _check_precision(kwargs.get("precision"))
        texts = _texts(inputs)
        if prompt_type == PromptType.document:
            return self._held.client.embed_documents(texts, self._dim)
        return self._held.client.embed_queries(texts, self._instructions.find(task_metadata), self._dim)

    def similarity(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Return the `[n1, n2]` cosines."""
        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Return the `[n]` cosines of rows at the same position."""
        return pairwise_cos_sim(embeddings1, embeddings2)


class Qwen3TritonCrossEncoder(ClientHolder):
    """Cross-encoder for `mteb.evaluate`: a served reranker.

    Pairs get the model's prompt with the instruction of the task. Versions are as for `Qwen3TritonEncoder`.

    Example:
        ```python
        with Qwen3TritonCrossEncoder("localhost:8001", "myreranker", name="acme/myreranker") as cross_encoder:
            mteb.evaluate(cross_encoder, mteb.get_tasks(tasks=["AskUbuntuDupQuestions"]))
        ```
    """

    _held: HeldClient[RerankClient]
    mteb_model_meta: ModelMeta
    """What mteb records of the model."""

    def __init__(
        self,
        url: Url | None = None,
        model: str | None = None,
        *,
        name: str,
        revision: str | None = None,
        client: RerankClient | None = None,
        instructions: TaskInstructions | None = None,
    ) -> None:
        """Connect to a model, or use an existing client.

        Args:
            url: `HOST:PORT` of Triton's gRPC port, or a list of servers with the same model.
            model: Name of the model on the server.
            name: Name in mteb's results, as `organization/model`. mteb finds earlier results by name and revision.
            revision: Revision in mteb's results; None for version and precision of the served model.
            client: Client to use in place of `url` and `model`; the caller closes it.
            instructions: Instructions for the prompt; None for those of mteb's tasks.

        Raises:
            InvalidInputError: Neither or both of a client and a URL with a model are given, or the model's prompt takes
                no instruction.
            ServerError: The server is unreachable or returned an error; see the subclasses.
            ManifestError: The client cannot use the model.
        """
        self._held = hold_client(partial(RerankClient, on_new_version="refuse"), client, url, model)
        self._instructions = instructions or TaskInstructions()
        manifest = self._held.client.manifest
        try:
            self._instructions.check(manifest.prompts.body)
            self.mteb_model_meta = _describe(
                manifest,
                name=name,
                revision=revision,
                model_type=["cross-encoder"],
                use_instructions="{instruction}" in manifest.prompts.body,
                experiment_kwargs=self._instructions.changes() or None,
            )
        except BaseException:
            self.close()
            raise

    def predict(
        self,
        inputs1: Batches,
        inputs2: Batches,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Return float32 `[n]` scores in 0…1 of queries and documents, as mteb's `CrossEncoderProtocol` documents."""
        del hf_split, hf_subset, prompt_type, kwargs
        pairs = zip(_texts(inputs1), _texts(inputs2), strict=True)
        return self._held.client.score(pairs, self._instructions.find(task_metadata))


def _describe(manifest: Manifest, *, name: str, revision: str | None, **fields: Any) -> ModelMeta:
    if name.count("/") != 1:
        raise InvalidInputError(f"name is {name!r}; mteb's results need organization/model")
    served = f"{manifest.model_version or 'unknown'}-{manifest.precision}"
    known = {"name": name, "revision": revision or served, "max_tokens": manifest.max_tokens, "framework": ["ONNX"]}
    return ModelMeta.model_validate(ModelMeta.create_empty().model_dump() | known | fields)


def _texts(batches: Batches) -> list[str]:
    return [text for batch in batches for text in batch["text"]]


def _check_precision(precision: str | None) -> None:
    if precision not in (None, "float32"):
        raise InvalidInputError(f"precision is {precision!r}, but the vectors of served models are float32: omit it")
