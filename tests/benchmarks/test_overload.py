"""Models and requests of the parts overload and batching; a quick run measures them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from benchmarks.serving.batching import budget_model, link_budget
from benchmarks.serving.bulk_job import infer_request
from benchmarks.serving.overload import QUEUE_SETTINGS, TWO_LEVELS, link_setting
from qwen3_triton.client.manifest import ModelFolder

_EXPORTED = """name: "benchmark" max_batch_size: 7 dynamic_batching { max_queue_delay_microseconds: 3 }
parameters { key: "max_batch_tokens" value { string_value: "512" } }"""


@pytest.fixture
def source(tmp_path: Path) -> ModelFolder:
    """Return an exported model."""
    folder = ModelFolder(tmp_path / "source" / "benchmark")
    (folder.path / "1").mkdir(parents=True)
    folder.graph(1).write_bytes(b"weights")
    folder.config.write_text(_EXPORTED)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return the folder of a repository without models."""
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


def test_linked_models_differ_from_the_export_in_name_and_queue_only(source: ModelFolder, repository: Path) -> None:
    for setting in QUEUE_SETTINGS:
        link_setting(source, repository, setting)
        folder = ModelFolder(repository / setting.model)
        assert folder.graph(1).resolve() == source.graph(1).resolve()
        config = text_format.Parse(folder.config.read_text(), model_config_pb2.ModelConfig())
        assert (config.name, config.max_batch_size) == (setting.model, 7)
        batching = text_format.Parse(
            f"max_queue_delay_microseconds: 3 {setting.batching}", model_config_pb2.ModelDynamicBatching()
        )
        assert config.dynamic_batching == batching

    assert source.config.read_text() == _EXPORTED


def test_models_with_other_token_budgets_are_otherwise_the_same(source: ModelFolder, repository: Path) -> None:
    for budget in (1, 4096):
        link_budget(source, repository, budget)
        folder = ModelFolder(repository / budget_model(budget))
        assert folder.graph(1).resolve() == source.graph(1).resolve()
        expected = text_format.Parse(_EXPORTED, model_config_pb2.ModelConfig())
        expected.name = budget_model(budget)
        expected.parameters["max_batch_tokens"].string_value = str(budget)
        assert text_format.Parse(folder.config.read_text(), model_config_pb2.ModelConfig()) == expected


def test_request_has_padded_rows_and_a_priority() -> None:
    request = infer_request(TWO_LEVELS.model, [[5, 6, 7], [8]], priority=1)
    ids = np.frombuffer(request.raw_input_contents[0], np.int64).reshape(tuple(request.inputs[0].shape))
    assert ids.tolist() == [[5, 6, 7], [8, -1, -1]]
    assert request.parameters["priority"].int64_param == 1
    assert not infer_request("plain", [[5]]).parameters
