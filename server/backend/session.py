"""Creation of an ONNX Runtime session, with a check of the graph against the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from .settings import TENSOR_TYPES, GraphLevel, InvalidSettingsError, Settings

_LEVELS = {
    GraphLevel.BASIC: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    GraphLevel.ALL: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    GraphLevel.EXTENDED: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    GraphLevel.DISABLED: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def open_session(path: Path, settings: Settings) -> Any:
    """Open an `InferenceSession` on the CPU for the graph at `path`.

    Raises:
        InvalidSettingsError: The file does not exist, or names or types of the graph and the configuration differ.
    """
    if path.is_dir():
        path = path / "model.onnx"
    if not path.is_file():
        raise InvalidSettingsError(f"{path} does not exist: export the model again")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = _LEVELS[settings.graph_level]
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    options.enable_cpu_mem_arena = settings.memory_arena
    options.enable_mem_pattern = settings.memory_pattern
    if settings.parallel:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    _check(session, settings)
    return session


def _check(session: Any, settings: Settings) -> None:
    configured = {tensor.name: TENSOR_TYPES[tensor.type] for tensor in settings.inputs}
    configured |= {entry.target: "tensor(int32)" for entry in settings.batch_inputs}
    optional = {tensor.name for tensor in settings.inputs if tensor.optional}
    inputs = {node.name: node.type for node in session.get_inputs()}
    outputs = {node.name: node.type for node in session.get_outputs()}
    _compare("input", configured, inputs)
    _compare("output", {tensor.name: TENSOR_TYPES[tensor.type] for tensor in settings.outputs}, outputs)
    if missing := sorted(inputs.keys() - configured.keys() - optional):
        raise InvalidSettingsError(f"config.pbtxt lacks the graph's inputs {', '.join(missing)}")


def _compare(what: str, configured: dict[str, str], graph: dict[str, str]) -> None:
    """Raise unless every configured tensor exists in the graph with the same type."""
    for name, kind in configured.items():
        if name not in graph:
            raise InvalidSettingsError(
                f"config.pbtxt has the {what} {name}, but the graph has {', '.join(sorted(graph))}"
            )
        if graph[name] != kind:
            raise InvalidSettingsError(f"{what} {name} is {kind} in config.pbtxt but {graph[name]} in the graph")
