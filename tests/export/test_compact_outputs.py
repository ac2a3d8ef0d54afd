"""Additional outputs of embedding models: in the graph, in the configuration, and through a real Triton."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from attention_functions import decompose
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from written_graph import random_rows, write_graph

from qwen3_triton.client import (
    AsyncEmbeddingClient,
    CompactOutput,
    EmbeddingClient,
    EmbeddingManifest,
    Manifest,
    ManifestError,
    OutputType,
    Precision,
    quantize_embeddings,
)
from qwen3_triton.client.manifest import ROW_STATUS, RowStatus
from qwen3_triton.client.messages import write_infer_request
from qwen3_triton.client.vectors import truncate_vectors
from qwen3_triton.export import (
    CudaProfile,
    ExportError,
    ExportOptions,
    OutputChoice,
    SourceReference,
    Verification,
    WitnessChoice,
    export_model,
)
from qwen3_triton.export.batching.inputs import batch_inputs
from qwen3_triton.export.output_choice import choose_outputs
from qwen3_triton.server import start_triton

WIDTH = 40
OUTPUTS = [
    CompactOutput(dim=dim, dtype=dtype)
    for dim in (32, WIDTH)
    for dtype in OutputType
    if (dim, dtype) != (WIDTH, OutputType.FLOAT32)
]
ROWS = [*random_rows([3, 20, 5, 5, 41]), [], [10**6]]
VALID = 5


@pytest.mark.parametrize("profile", [None, CudaProfile()], ids=["cpu", "cuda"])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_outputs_are_those_that_a_client_would_compute(
    tmp_path: Path, precision: Precision, profile: CudaProfile | None
) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint())
    written = write_graph(source, tmp_path / "out", precision, cuda=profile, compact_outputs=OUTPUTS)
    file = written.file if profile is None else decompose(written.file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in OUTPUTS]
    whole, status, *compact = session.run(["embedding", ROW_STATUS, *names], batch_inputs(ROWS))
    assert status[:, 0].tolist() == [RowStatus.VALID] * VALID + [RowStatus.INVALID] * 2
    for output, found in zip(OUTPUTS, compact, strict=True):
        assert found.shape == (len(ROWS), output.width)
        cut = truncate_vectors(whole[:VALID], output.dim)
        expected = quantize_embeddings(cut, output.dtype.value)
        assert found.dtype == expected.dtype
        if output.dim == WIDTH or output.dtype is OutputType.UBINARY:
            np.testing.assert_array_equal(found[:VALID], expected)
        else:
            np.testing.assert_allclose(found[:VALID].astype(float), expected.astype(float), rtol=2e-3, atol=1e-6)
        if output.dtype is not OutputType.UBINARY:
            assert np.isnan(found[VALID:]).all()


def test_main_outputs_are_the_same_with_and_without_additional_ones(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint())
    found = []
    for name, outputs in (("plain", []), ("compact", OUTPUTS)):
        written = write_graph(source, tmp_path / name, Precision.INT8, compact_outputs=outputs)
        session = onnxruntime.InferenceSession(written.file, providers=["CPUExecutionProvider"])
        found.append(session.run(["embedding", ROW_STATUS], batch_inputs(ROWS)))
    for plain, compact in zip(*found, strict=True):
        np.testing.assert_array_equal(plain, compact)


@pytest.mark.parametrize(
    ("text", "dim", "dtype"),
    [
        ("256:float16", 256, OutputType.FLOAT16),
        ("256", 256, OutputType.FLOAT32),
        ("ubinary", None, OutputType.UBINARY),
        ("64:ubinary", 64, OutputType.UBINARY),
    ],
)
def test_spelling(text: str, dim: int | None, dtype: OutputType) -> None:
    assert OutputChoice.parse(text) == OutputChoice(dim=dim, dtype=dtype)


@pytest.mark.parametrize("text", ["", ":", "256:", ":float16", "float64", "256float16", "-1", "256:float16:x", "²"])
def test_wrong_spelling(text: str) -> None:
    with pytest.raises(ExportError, match="give DIM:TYPE, DIM or TYPE"):
        OutputChoice.parse(text)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["16:float16"], "the model offers 32 to 1024 components"),
        (["1025"], "the model offers 32 to 1024 components"),
        (["33:ubinary"], "must be a multiple of 8"),
        (["1024"], "this is what the output 'embedding' is"),
        (["float16", "1024:float16"], "embedding_1024_float16: given twice"),
    ],
)
def test_outputs_that_a_model_cannot_have(texts: list[str], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        choose_outputs([OutputChoice.parse(text) for text in texts], 1024, 32)


def test_rerankers_have_none(tmp_path: Path, project_root: Path) -> None:
    options = ExportOptions(
        model=SourceReference(str(project_root / "examples" / "demo" / "reranker")),
        repository=tmp_path,
        compact_outputs=(OutputChoice(dtype=OutputType.FLOAT16),),
        verify=Verification.NONE,
    )
    with pytest.raises(ExportError, match="compact outputs are of embeddings"):
        export_model(options)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[tuple[str, Path]]:
    repository = tmp_path_factory.mktemp("compact") / "models"
    options = ExportOptions(
        model=SourceReference(str(project_root / "examples" / "demo" / "checkpoint")),
        repository=repository,
        name="demo",
        max_tokens=64,
        compact_outputs=tuple(map(OutputChoice.parse, ("float16", "ubinary", "64", "64:ubinary"))),
        verify=Verification.NONE,
        witness=WitnessChoice.NONE,
    )
    export_model(options)
    with start_triton(repository) as server:
        yield server.grpc_url, repository


CASES: list[tuple[int | None, Any, str, bool]] = [
    (None, "float32", "embedding", True),
    (None, "float16", "embedding_256_float16", True),
    (None, "ubinary", "embedding_256_ubinary", True),
    (None, "binary", "embedding_256_ubinary", True),
    (64, "float32", "embedding_64_float32", False),
    (64, "ubinary", "embedding_64_ubinary", True),
    # computed from the nearest output with enough bits
    (64, "float16", "embedding_64_float32", False),
    (32, "float16", "embedding", True),
]


@pytest.mark.parametrize(("dim", "dtype", "output", "is_exact"), CASES)
def test_clients_request_the_smallest_output(
    served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, dim: int | None, dtype: Any, output: str, is_exact: bool
) -> None:
    texts = [f"text {number}" for number in range(100)]
    url, _ = served
    requested = set()

    def record(target: Any, input_ids: Any) -> Any:
        requested.add(target.outputs[0])
        return write_infer_request(target, input_ids)

    with EmbeddingClient(url, "demo") as client:
        whole = client.embed_documents(texts)
        monkeypatch.setattr("qwen3_triton.client.sending.write_infer_request", record)
        found = client.embed_documents(texts, dim, dtype=dtype)
        streamed = np.concatenate(list(client.iter_documents(texts, dim, dtype=dtype, window_texts=32)))
    assert requested == {output}
    expected = quantize_embeddings(truncate_vectors(whole, dim or whole.shape[1]), dtype)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, streamed)
    if is_exact:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=2e-3, atol=1e-6)


def test_asynchronous_client(served: tuple[str, Path]) -> None:
    url, _ = served

    async def embed() -> Any:
        async with AsyncEmbeddingClient(url, "demo") as client:
            return await client.embed_documents(["a", "b", "a"], dtype="ubinary")

    with EmbeddingClient(url, "demo") as client:
        np.testing.assert_array_equal(asyncio.run(embed()), client.embed_documents(["a", "b", "a"], dtype="ubinary"))


def test_manifest(served: tuple[str, Path]) -> None:
    _, repository = served
    fields = json.loads((repository / "demo" / "manifest.json").read_text())
    assert fields["compact_outputs"][0] == {"dim": 256, "dtype": "float16"}
    manifest = Manifest.from_json(json.dumps(fields))
    assert isinstance(manifest, EmbeddingManifest)
    assert [output.name for output in manifest.compact_outputs] == [
        "embedding_256_float16",
        "embedding_256_ubinary",
        "embedding_64_float32",
        "embedding_64_ubinary",
    ]
    # a later exporter may have types that this client does not know
    fields["compact_outputs"].append({"dim": 256, "dtype": "float4", "scale": 3})
    newer = Manifest.from_json(json.dumps(fields))
    assert isinstance(newer, EmbeddingManifest)
    assert newer.compact_outputs == manifest.compact_outputs
    for wrong in ("float16", {"dim": 1}, [{"dim": "64", "dtype": "float16"}], [{"dtype": "float16"}], [{"dim": 0}]):
        with pytest.raises(ManifestError, match="malformed manifest"):
            Manifest.from_json(json.dumps(fields | {"compact_outputs": wrong}))
