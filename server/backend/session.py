"""An ONNX Runtime session for a model's settings, checked against its configuration."""

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
    """An `InferenceSession` on the CPU for the graph at `path`.

    Raises InvalidSettingsError where the graph and the configuration differ in names or types.
    """
    if path.is_dir():
        path = path / "model.onnx"
    if not path.is_file():
        raise InvalidSettingsError(f"unable to find {path}")
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
    given = {tensor.name: TENSOR_TYPES[tensor.type] for tensor in settings.inputs}
    given |= {entry.target: "tensor(int32)" for entry in settings.batch_inputs}
    optional = {tensor.name for tensor in settings.inputs if tensor.optional}
    taken = {node.name: node.type for node in session.get_inputs()}
    made = {node.name: node.type for node in session.get_outputs()}
    _compare("input", given, taken)
    _compare("output", {tensor.name: TENSOR_TYPES[tensor.type] for tensor in settings.outputs}, made)
    if missing := sorted(taken.keys() - given.keys() - optional):
        raise InvalidSettingsError(f"the graph takes {', '.join(missing)}, which config.pbtxt does not give")


def _compare(what: str, configured: dict[str, str], graph: dict[str, str]) -> None:
    """Every tensor of the configuration exists in the graph with the same type."""
    for name, kind in configured.items():
        if name not in graph:
            raise InvalidSettingsError(
                f"config.pbtxt names the {what} {name}, the graph has {', '.join(sorted(graph))}"
            )
        if graph[name] != kind:
            raise InvalidSettingsError(f"{what} {name} is {kind} in config.pbtxt and {graph[name]} in the graph")
