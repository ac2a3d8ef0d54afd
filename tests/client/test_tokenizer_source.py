from __future__ import annotations

import base64
import dataclasses
import json
import lzma
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import EmbeddingClient, EmbeddingManifest, InvalidInputError, ManifestError
from qwen3_triton.client.manifest import packed_tokenizer
from qwen3_triton.client.manifest.packed_tokenizer import LARGEST_PACKED, pack_tokenizer, unpack_tokenizer
from qwen3_triton.client.tokenizer_source import TokenizerFile, find_tokenizer

QWEN3 = Path(__file__).parents[3] / "shared" / "tokenizers" / "qwen3" / "tokenizer.json"


def test_file_or_directory(tokenizer_file: Path) -> None:
    found = TokenizerFile(str(tokenizer_file), tokenizer_file.read_bytes())
    assert find_tokenizer(MODEL, "x/y", tokenizer=tokenizer_file) == found
    assert find_tokenizer(MODEL, "x/y", tokenizer=str(tokenizer_file.parent)) == found


def test_local_repository(tokenizer_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / MODEL
    folder.mkdir()
    shutil.copy(tokenizer_file, folder)
    assert find_tokenizer(MODEL, "x/y", repository=tmp_path).name == str(folder / "tokenizer.json")


def test_origin_is_a_local_directory(tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier exports recorded the path. A relative one depends on the working directory, so it is not used."""
    assert find_tokenizer(MODEL, str(tokenizer_file.parent)).name == str(tokenizer_file)
    monkeypatch.chdir(tokenizer_file.parent.parent)
    with pytest.raises(ManifestError, match="as tokenizer="):
        find_tokenizer(MODEL, tokenizer_file.parent.name)


def test_served_tokenizer(triton: FakeTriton, manifest: EmbeddingManifest, tokenizer_file: Path) -> None:
    """The client needs no file where the server has the tokenizer."""
    identity = dataclasses.replace(manifest.tokenizer, origin="checkpoint")
    triton.manifest_json = dataclasses.replace(manifest, tokenizer=identity).to_json()
    with pytest.raises(ManifestError, match="came from 'checkpoint'"):
        EmbeddingClient(triton.url, MODEL)
    triton.packed_tokenizer = pack_tokenizer(tokenizer_file.read_bytes())
    with EmbeddingClient(triton.url, MODEL) as client:
        assert client.embed_documents(["a"]).shape == (1, manifest.dimension)
    triton.packed_tokenizer = pack_tokenizer(tokenizer_file.read_bytes() + b"\n")
    with pytest.raises(ManifestError, match="the tokenizer that the server has for model 'demo' is not the model's"):
        EmbeddingClient(triton.url, MODEL)


def test_packed_tokenizer() -> None:
    content = "漢字".encode() * 10_000
    packed = pack_tokenizer(content)
    assert packed is not None
    assert len(packed) < 1_000
    assert unpack_tokenizer(packed) == content
    assert pack_tokenizer(random.Random(0).randbytes(LARGEST_PACKED)) is None


@pytest.mark.skipif(not QWEN3.is_file(), reason="needs Qwen3's tokenizer.json")
def test_qwen3_fits_into_a_grpc_reply() -> None:
    # with the indentation of the published file
    content = json.dumps(json.loads(QWEN3.read_bytes()), ensure_ascii=False, indent=2).encode()
    packed = pack_tokenizer(content)
    assert packed is not None
    assert len(content) > 11_000_000
    assert unpack_tokenizer(packed) == content


@pytest.mark.parametrize("spoil", [lambda packed: packed[:-8], lambda packed: "%" + packed, lambda _: ""])
def test_malformed_packed_tokenizer(spoil: Callable[[str], str]) -> None:
    packed = pack_tokenizer(b"tokenizer" * 100)
    assert packed is not None
    with pytest.raises(ManifestError, match="the served tokenizer is"):
        unpack_tokenizer(spoil(packed))


def test_packed_tokenizer_that_explodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_tokenizer, "MAX_BYTES", 1 << 20)
    packed = base64.b64encode(lzma.compress(bytes(64 << 20), preset=0)).decode()
    assert len(packed) < 100_000
    with pytest.raises(ManifestError, match="the served tokenizer is"):
        unpack_tokenizer(packed)


@pytest.mark.parametrize("argument", ["tokenizer", "repository"])
def test_given_path_must_exist(tokenizer_file: Path, tmp_path: Path, argument: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{argument}=: .* does not exist"):
        find_tokenizer(MODEL, str(tokenizer_file.parent), None, **{argument: tmp_path})


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
    assert find_tokenizer(MODEL, origin).name == str(tokenizer_file)
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
