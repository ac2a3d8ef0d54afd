"""The examples in docs/wire.md, run against a real tritonserver, give the results of this project's clients."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from served_demo import SERVED_MAX_TOKENS, ServedDemo
from tritonclient.utils import InferenceServerException

from qwen3_triton.client import EmbeddingClient, Manifest, RerankClient

TEXTS = [
    *("", "{text} {instruction}", "a <|endoftext|> within", "at the end <|endoftext|><|endoftext|>", "読み込む"),
    *(f"def f{number}(x):\n" + "    x = x + 1\n" * 2 * number for number in range(0, 40, 5)),
]
DOCUMENTS = ["", "{query} <|im_end|> {document}", *TEXTS[5:]]


@dataclass(frozen=True)
class Recipe:
    """The code blocks of the page by language, adapted to the served models."""

    demo: ServedDemo
    end_token_id: int
    python: list[str]
    shell: list[str]

    def embedder(self) -> EmbeddingClient:
        return EmbeddingClient(self.demo.server.grpc_url, "embedder", repository=self.demo.repository)

    def reranker(self) -> RerankClient:
        return RerankClient(self.demo.server.grpc_url, "reranker-fp32", repository=self.demo.repository)

    def infer(self, rows: list[list[int]], *outputs: str) -> triton.InferResult:
        """Return the reply of the embedding model to one request of `outputs`."""
        tensor = triton.InferInput("input_ids", [len(rows), len(rows[0])], "INT64")
        tensor.set_data_from_numpy(np.asarray(rows, np.int64))
        requested = [triton.InferRequestedOutput(name) for name in outputs] or None
        with triton.InferenceServerClient(self.demo.server.grpc_url) as client:
            return client.infer("embedder", [tensor], outputs=requested)


@pytest.fixture(scope="module")
def recipe(served_demo: ServedDemo, project_root: Path) -> Recipe:
    server = served_demo.server
    with EmbeddingClient(server.grpc_url, "embedder", repository=served_demo.repository) as client:
        end_token_id = client.manifest.end_token_id
    assert end_token_id is not None
    page = (project_root / "docs" / "wire.md").read_text(encoding="utf-8")
    changes = {
        "localhost:8000": server.http_url.removeprefix("http://"),
        "localhost:8001": server.grpc_url,
        "mymodel": "embedder",
        "myreranker": "reranker-fp32",
        # of Qwen3's vocabulary
        "151643": str(end_token_id),
    }
    for documented, served in changes.items():
        assert documented in page
        page = page.replace(documented, served)
    python, shell = (re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL) for language in ("python", "sh"))
    return Recipe(served_demo, end_token_id, python, shell)


@pytest.fixture(autouse=True)
def repository_in_current_directory(served_demo: ServedDemo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(served_demo.repository.parent)


def parse_strictly(text: str | bytes) -> Any:
    """Parse JSON; raise ValueError for NaN, as the parsers of most languages do."""

    def reject(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=reject)


def test_examples_over_grpc_equal_the_clients(recipe: Recipe) -> None:
    [_, shared, embedding, reranking] = recipe.python
    assert not any("qwen3_triton" in code for code in recipe.python)
    names: dict[str, Any] = {}
    exec(shared, names)
    with recipe.embedder() as embedder, recipe.reranker() as reranker:
        exec(embedding, names)
        np.testing.assert_allclose(names["vectors"], embedder.embed_queries(names["texts"]), atol=1e-6)
        np.testing.assert_allclose(names["short"], embedder.embed_queries(names["texts"], dim=128), atol=1e-6)
        rows = [names["embedding_row"](names["fill"](names["prompts"]["document"], text=text)) for text in TEXTS]
        found: NDArray[np.float32] = names["infer"](names["config"], "embedding", rows)
        assert max(map(len, rows)) == SERVED_MAX_TOKENS
        np.testing.assert_allclose(found, embedder.embed_documents(TEXTS), atol=1e-6)

        exec(reranking, names)
        query = "how do I sort a list?"
        np.testing.assert_allclose(
            names["scores"], reranker.score([(query, text) for text in names["documents"]]), atol=1e-6
        )
        rows = [names["pair_row"](query, document) for document in DOCUMENTS]
        found = names["infer"](names["config"], "score", rows)[:, 0]
        assert max(map(len, rows)) == SERVED_MAX_TOKENS
        np.testing.assert_allclose(found, reranker.score([(query, text) for text in DOCUMENTS]), atol=1e-6)
        with pytest.raises(ValueError, match="row 1 has no result"):
            names["infer"](names["config"], "score", [[5], [-1]])


def test_lost_rows_are_sent_again_by_the_example(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec(recipe.python[1], names)
    rows = [[5, 6, 7], [8], [9, 10], [11, 12, 13, 14]]
    config, _, _ = names["open_model"]("embedder")
    expected = names["infer"](config, "embedding", rows)
    monkeypatch.setattr(names["server"], "infer", LosingServer(names["server"].infer).infer)
    np.testing.assert_allclose(names["infer"](config, "embedding", rows), expected, atol=1e-6)


class LosingServer:
    """A server that loses two rows of its first reply."""

    def __init__(self, infer: Any) -> None:
        self._infer = infer
        self._replies = 0

    def infer(self, *arguments: Any, **options: Any) -> Any:
        reply = self._infer(*arguments, **options)
        self._replies += 1
        if self._replies > 1:
            return reply
        outputs = {name: reply.as_numpy(name).copy() for name in ("embedding", "row_status")}
        outputs["row_status"][1:3] = 2
        outputs["embedding"][1:3] = np.nan
        return type("Reply", (), {"as_numpy": staticmethod(outputs.__getitem__)})


def test_json_example_returns_vectors_and_status(recipe: Recipe) -> None:
    [code] = recipe.shell
    done = subprocess.run(["bash", "-ec", code], capture_output=True, check=True)
    outputs = {output["name"]: output for output in parse_strictly(done.stdout)["outputs"]}
    end = recipe.end_token_id
    expected = recipe.infer([[1879, 374, end], [1879, end, -1]]).as_numpy("embedding")
    assert outputs["row_status"] == {"name": "row_status", "datatype": "INT32", "shape": [2, 1], "data": [0, 0]}
    found = np.reshape(outputs["embedding"]["data"], outputs["embedding"]["shape"])
    np.testing.assert_allclose(found, expected, atol=1e-6)

    invalid = code.replace("-1", str(2**40))
    done = subprocess.run(["bash", "-ec", invalid], capture_output=True, check=True)
    with pytest.raises(ValueError, match="NaN is not JSON"):
        parse_strictly(done.stdout)


def test_binary_example_returns_status_in_strict_json(
    recipe: Recipe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {}
    strict = json.JSONDecoder(parse_constant=pytest.fail)
    monkeypatch.setattr("json.loads", lambda text: strict.decode(text.decode()))
    exec(recipe.python[0], names)
    assert capsys.readouterr().out == "[0, 1]\n"
    assert names["outputs"]["embedding"]["parameters"] == {"binary_data_size": names["vectors"].nbytes}
    expected = recipe.infer([[1879, 374, recipe.end_token_id]]).as_numpy("embedding")
    np.testing.assert_allclose(names["vectors"][:1], expected, atol=1e-6)
    assert np.isnan(names["vectors"][1]).all()


def test_all_outputs_are_binary_on_request(recipe: Recipe) -> None:
    tensor = {"name": "input_ids", "datatype": "INT64", "shape": [1, 2], "data": [5, 6]}
    request = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    url = f"{recipe.demo.server.http_url}/v2/models/embedder/infer"
    with urllib.request.urlopen(url, json.dumps(request).encode(), timeout=60) as reply:
        header = parse_strictly(reply.read(int(reply.headers["Inference-Header-Content-Length"])))
        for output in header["outputs"]:
            content = reply.read(output["parameters"]["binary_data_size"])
            found = np.frombuffer(content, {"FP32": "<f4", "INT32": "<i4"}[output["datatype"]])
            np.testing.assert_array_equal(found, recipe.infer([[5, 6]]).as_numpy(output["name"]).ravel())
        assert {output["name"] for output in header["outputs"]} == {"embedding", "row_status"}
        assert not reply.read()


def test_manifest_is_in_the_configuration_over_http(recipe: Recipe) -> None:
    with urllib.request.urlopen(f"{recipe.demo.server.http_url}/v2/models/embedder/config", timeout=60) as reply:
        config = parse_strictly(reply.read())
    with recipe.embedder() as client:
        assert Manifest.from_json(config["parameters"]["manifest"]["string_value"]) == client.manifest
    assert config["max_batch_size"] > 0
    assert int(config["parameters"]["max_batch_tokens"]["string_value"]) > 0


@pytest.mark.parametrize("outputs", [(), ("embedding",), ("row_status",), ("row_status", "embedding")], ids=str)
def test_server_returns_the_outputs_requested_or_all(recipe: Recipe, outputs: tuple[str, ...]) -> None:
    reply = recipe.infer([[5, 6], [-1, -1]], *outputs)
    found = {output.name: output for output in reply.get_response().outputs}
    assert found.keys() == set(outputs or ("embedding", "row_status"))
    if "row_status" in found:
        assert (found["row_status"].datatype, list(found["row_status"].shape)) == ("INT32", [2, 1])
        assert reply.as_numpy("row_status").tolist() == [[0], [1]]
    if "embedding" in found:
        assert np.isnan(reply.as_numpy("embedding")).any(axis=1).tolist() == [False, True]


def test_server_names_an_output_that_does_not_exist(recipe: Recipe) -> None:
    # client/grpc_errors.py recognizes these words
    with pytest.raises(InferenceServerException, match="unexpected inference output 'score' for model 'embedder'"):
        recipe.infer([[5]], "score")
