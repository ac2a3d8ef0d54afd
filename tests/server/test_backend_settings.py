"""Interpretation of the configuration by the backend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import tiny_models

from qwen3_triton.server.backend.session import open_session
from qwen3_triton.server.backend.settings import GraphLevel, InvalidSettingsError, Settings


def config(**changes: Any) -> str:
    """Return the configuration of `tiny_models.write_sums` in Triton's JSON form, with `changes`."""
    fields: dict[str, Any] = {
        "max_batch_size": 64,
        "input": [{"name": "input_ids", "data_type": "TYPE_INT64", "dims": [-1], "allow_ragged_batch": True}],
        "output": [{"name": "total", "data_type": "TYPE_FP32", "dims": [1]}],
        "batch_input": [batch_input()],
    }
    return json.dumps(fields | changes)


def batch_input(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "BATCH_ITEM_SHAPE_FLATTEN",
        "target_name": ["row_lengths"],
        "data_type": "TYPE_INT32",
        "source_input": ["input_ids"],
    } | changes


def parameters(**values: str) -> dict[str, Any]:
    return {key: {"string_value": value} for key, value in values.items()}


def test_defaults_match_the_cpp_backend() -> None:
    settings = Settings.from_json(config())

    assert (settings.intra_op_threads, settings.inter_op_threads) == (0, 0)
    assert not settings.parallel
    assert settings.memory_arena
    assert settings.memory_pattern
    assert settings.graph_level is GraphLevel.ALL
    assert settings.model_filename == "model.onnx"


def test_parameters_reach_the_session(tmp_path: Path) -> None:
    folder = tiny_models.write_sums(tmp_path)
    text = config(
        parameters=parameters(
            intra_op_thread_count="3",
            inter_op_thread_count="2",
            execution_mode="1",
            enable_mem_arena="0",
            enable_mem_pattern="False",
        ),
        optimization={"graph": {"level": 1}},
    )

    options = open_session(folder / "1" / "model.onnx", Settings.from_json(text)).get_session_options()

    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 2
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED


@pytest.mark.parametrize(
    ("level", "expected"),
    [(-1, GraphLevel.BASIC), (0, GraphLevel.ALL), (2, GraphLevel.DISABLED), (7, GraphLevel.ALL)],
)
def test_graph_level(level: int, expected: GraphLevel) -> None:
    assert Settings.from_json(config(optimization={"graph": {"level": level}})).graph_level is expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_input": [batch_input(kind="BATCH_MAX_ELEMENT_COUNT_AS_SHAPE")]}, "AS_SHAPE is not supported by"),
        ({"batch_input": [batch_input(data_type="TYPE_FP32")]}, "TYPE_INT32"),
        ({"batch_input": [batch_input(source_input=["other"])]}, "source_input"),
        ({"batch_output": [{"target_name": ["total"]}]}, "batch_output"),
        ({"input": []}, "needs inputs and outputs"),
        ({"output": [{"name": "total", "data_type": "TYPE_STRING", "dims": [1]}]}, "TYPE_STRING"),
        ({"parameters": parameters(intra_op_thread_count="two")}, "intra_op_thread_count"),
        ({"parameters": parameters(execution_mode="2")}, "execution_mode"),
        ({"parameters": parameters(enable_mem_arena="maybe")}, "enable_mem_arena"),
    ],
)
def test_unsupported_settings_are_rejected_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingsError, match=message):
        Settings.from_json(config(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_input": []}, "lacks the graph's inputs row_lengths"),
        ({"batch_input": [batch_input(target_name=["lengths"])]}, "has the input lengths"),
        ({"output": [{"name": "total", "data_type": "TYPE_FP64", "dims": [1]}]}, r"output total is tensor\(double\)"),
    ],
)
def test_graph_and_configuration_must_agree(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = tiny_models.write_sums(tmp_path)
    with pytest.raises(InvalidSettingsError, match=message):
        open_session(folder / "1" / "model.onnx", Settings.from_json(config(**changes)))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingsError, match=r"1/model\.onnx"):
        open_session(tmp_path / "1" / "model.onnx", Settings.from_json(config()))
