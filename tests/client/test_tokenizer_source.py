from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import EmbeddingClient, InvalidInputError, ManifestError
from qwen3_triton.client.tokenizer_source import find_tokenizer


def test_file_or_directory(tokenizer_file: Path) -> None:
    assert find_tokenizer(MODEL, "x/y", tokenizer=tokenizer_file) == tokenizer_file
    assert find_tokenizer(MODEL, "x/y", tokenizer=str(tokenizer_file.parent)) == tokenizer_file


def test_local_repository(tokenizer_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / MODEL
    folder.mkdir()
    shutil.copy(tokenizer_file, folder)
    assert find_tokenizer(MODEL, "x/y", repository=tmp_path) == folder / "tokenizer.json"


def test_origin_is_a_local_directory(tokenizer_file: Path) -> None:
    assert find_tokenizer(MODEL, str(tokenizer_file.parent)) == tokenizer_file


@pytest.mark.parametrize("argument", ["tokenizer", "repository"])
def test_given_path_must_exist(tokenizer_file: Path, tmp_path: Path, argument: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{argument}=: .* does not exist"):
        find_tokenizer(MODEL, str(tokenizer_file.parent), **{argument: tmp_path})


@pytest.mark.parametrize("origin", ["/missing/checkpoint", "./missing", "C:\\missing", "name", ""])
def test_origin_of_another_machine(origin: str) -> None:
    with pytest.raises(ManifestError, match="as tokenizer="):
        find_tokenizer(MODEL, origin)


@pytest.fixture
def hub(tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace huggingface_hub, and record the requested downloads."""
    calls: list[Any] = []

    def download(*args: object, **options: object) -> str:
        calls.append((args, options))
        if "missing" in str(args[0]):
            raise FileNotFoundError("offline")
        return str(tokenizer_file)

    module, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    module.hf_hub_download = download  # type: ignore[attr-defined]
    errors.HfHubHTTPError = type("HfHubHTTPError", (OSError,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return calls


@pytest.mark.parametrize(
    ("origin", "repository", "revision"),
    [("Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-0.6B", None), ("a/b@v1.0", "a/b", "v1.0")],
)
def test_hub(hub: list[Any], tokenizer_file: Path, origin: str, repository: str, revision: str | None) -> None:
    assert find_tokenizer(MODEL, origin) == tokenizer_file
    assert hub == [((repository, "tokenizer.json"), {"revision": revision})]


@pytest.mark.usefixtures("hub")
def test_hub_is_unreachable() -> None:
    with pytest.raises(ManifestError, match=r"'acme/missing' could not be downloaded from the hub \(offline\)"):
        find_tokenizer(MODEL, "acme/missing")


def test_hub_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ManifestError, match="pip install huggingface-hub"):
        find_tokenizer(MODEL, "acme/model")


def test_client_checks_the_given_tokenizer(triton: FakeTriton, tokenizer_file: Path, tmp_path: Path) -> None:
    EmbeddingClient(triton.url, MODEL, tokenizer=tokenizer_file.parent).close()
    other = tmp_path / "tokenizer.json"
    other.write_bytes(tokenizer_file.read_bytes() + b"\n")
    with pytest.raises(ManifestError, match="not the model's tokenizer"):
        EmbeddingClient(triton.url, MODEL, tokenizer=other)
