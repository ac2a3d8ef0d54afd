"""Models and requests of the part overload; a quick run measures them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from benchmarks.serving.bulk_job import infer_request
from benchmarks.serving.overload import QUEUE_SETTINGS, TWO_LEVELS, link_model
from qwen3_triton.client.manifest import ModelFolder


def test_linked_models_differ_from_the_export_in_name_and_queue_only(tmp_path: Path) -> None:
    source = ModelFolder(tmp_path / "source" / "benchmark")
    (source.path / "1").mkdir(parents=True)
    source.graph(1).write_bytes(b"weights")
    exported = 'name: "benchmark" max_batch_size: 7 dynamic_batching { max_queue_delay_microseconds: 3 }'
    source.config.write_text(exported)
    repository = tmp_path / "repository"
    repository.mkdir()

    for setting in QUEUE_SETTINGS:
        link_model(source, repository, setting)
        folder = ModelFolder(repository / setting.model)
        assert folder.graph(1).resolve() == source.graph(1).resolve()
        config = text_format.Parse(folder.config.read_text(), model_config_pb2.ModelConfig())
        assert (config.name, config.max_batch_size) == (setting.model, 7)
        batching = text_format.Parse(
            f"max_queue_delay_microseconds: 3 {setting.batching}", model_config_pb2.ModelDynamicBatching()
        )
        assert config.dynamic_batching == batching

    assert source.config.read_text() == exported


def test_request_has_padded_rows_and_a_priority() -> None:
    request = infer_request(TWO_LEVELS.model, [[5, 6, 7], [8]], priority=1)
    ids = np.frombuffer(request.raw_input_contents[0], np.int64).reshape(tuple(request.inputs[0].shape))
    assert ids.tolist() == [[5, 6, 7], [8, -1, -1]]
    assert request.parameters["priority"].int64_param == 1
    assert not infer_request("plain", [[5]]).parameters
