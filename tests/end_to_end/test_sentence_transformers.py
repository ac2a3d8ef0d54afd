"""Code that was written for sentence-transformers, with the checkpoint and with the served model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
from served_demo import ServedDemo

from qwen3_triton.client import EmbeddingClient

pytestmark = pytest.mark.slow

QUERIES = ["sort a list in place", "delete a file", "読み込む"]
DOCUMENTS = ["def remove(path):\n    os.unlink(path)", "xs.sort()", "", "a long text about files and lists " * 20]
PROMPT = "Instruct: Given a question, find its answer\nQuery:"


def search(model: Any) -> dict[str, Any]:
    """The calls of a retrieval program."""
    queries = model.encode_query(QUERIES, batch_size=2, show_progress_bar=False)
    documents = model.encode_document(DOCUMENTS, batch_size=2, convert_to_numpy=True)
    cut = model.encode_document(DOCUMENTS, truncate_dim=64)
    return {
        "queries": queries,
        "documents": documents,
        "one query": model.encode_query(QUERIES[0]),
        "with a prompt": model.encode_query(QUERIES, prompt=PROMPT),
        "cut": cut,
        "cut and normalized": model.encode_document(DOCUMENTS, truncate_dim=64, normalize_embeddings=True),
        "similarity": np.asarray(model.similarity(queries, documents)),
        "similarity of cut ones": np.asarray(model.similarity(model.encode_query(QUERIES, truncate_dim=64), cut)),
        "similarity of two": np.asarray(model.similarity(queries[0], documents[1])),
    }


@pytest.fixture(scope="module")
def local(project_root: Path) -> Any:
    checkpoint = project_root / "examples" / "demo" / "checkpoint"
    return sentence_transformers.SentenceTransformer(str(checkpoint), device="cpu", model_kwargs={"dtype": "float32"})


def test_results_are_equal(served_demo: ServedDemo, local: Any) -> None:
    expected = search(local)
    with EmbeddingClient(served_demo.server.grpc_url, "embedder") as client:
        found = search(client)
    for name, values in expected.items():
        assert found[name].shape == values.shape, name
        assert found[name].dtype == values.dtype, name
        np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)


def test_bits_are_equal(served_demo: ServedDemo, local: Any) -> None:
    """Except for components whose sign is rounding noise."""
    with EmbeddingClient(served_demo.server.grpc_url, "embedder") as client:
        is_clear = abs(client.encode_document(DOCUMENTS)) > 1e-5
        for precision, offset in (("ubinary", 0), ("binary", 128)):
            models: list[Any] = [client, local]
            codes = [model.encode_document(DOCUMENTS, precision=precision) for model in models]
            bits = [np.unpackbits((values + np.int16(offset)).astype("u1")) for values in codes]
            np.testing.assert_array_equal(bits[0][is_clear.ravel()], bits[1][is_clear.ravel()])
