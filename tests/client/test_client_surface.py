from __future__ import annotations

import subprocess
import sys
from typing import Literal, get_origin

import pytest

from qwen3_triton import client
from qwen3_triton.client import errors

HEAVY = ("torch", "transformers", "typer", "rich", "huggingface_hub", "onnxruntime")


def test_names() -> None:
    assert client.__all__ == sorted(client.__all__)
    for name in client.__all__:
        value = getattr(client, name)
        assert name == "EmbeddingDtype" if get_origin(value) is Literal else value.__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        client.no_such_name  # noqa: B018


def test_every_error_is_public_and_documented() -> None:
    tree = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert tree <= set(client.__all__)
    for name in tree:
        assert issubclass(getattr(client, name), client.ClientError)
        assert name in str(errors.__doc__)


@pytest.mark.parametrize(
    ("statement", "banned"),
    [
        ("from qwen3_triton.client import EmbeddingClient", HEAVY),
        ("from qwen3_triton.client.manifest import Manifest", (*HEAVY, "grpc", "numpy", "tokenizers")),
        ("from qwen3_triton.client import RerankClient", HEAVY),
        (
            "from qwen3_triton.client import fit_ranges, quantize_embeddings, similarity",
            (*HEAVY, "sentence_transformers", "grpc", "tokenizers"),
        ),
        ("import qwen3_triton.cli.rerank", ("torch", "transformers", "grpc", "numpy", "tokenizers")),
        ("import qwen3_triton.cli.embed", ("torch", "transformers", "grpc", "numpy", "tokenizers")),
    ],
)
def test_import_is_light(statement: str, banned: tuple[str, ...]) -> None:
    if ".cli" in statement:
        pytest.importorskip("typer")
    code = f"import sys\n{statement}\nprint([name for name in {banned!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
