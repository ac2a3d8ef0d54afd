"""The settings in a model's configuration, interpreted as the C++ backend does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

TENSOR_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_UINT16": "tensor(uint16)",
    "TYPE_UINT32": "tensor(uint32)",
    "TYPE_UINT64": "tensor(uint64)",
    "TYPE_INT8": "tensor(int8)",
    "TYPE_INT16": "tensor(int16)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
}
"""ONNX Runtime's names of Triton's types. Strings and bfloat16 are missing, as the stub does not support them."""


class InvalidSettingsError(ValueError):
    """The configuration is invalid or not supported by this backend."""


class BatchInputKind(StrEnum):
    """Supported kinds of `batch_input`."""

    ITEM_SHAPE = "BATCH_ITEM_SHAPE"
    """INT32 `[rows, axes]`: the shape of each row."""
    ITEM_SHAPE_FLATTEN = "BATCH_ITEM_SHAPE_FLATTEN"
    """INT32 `[rows · axes]`: the same, flattened."""
    ELEMENT_COUNT = "BATCH_ELEMENT_COUNT"
    """INT32 `[requests]`: the number of elements in each request."""


class GraphLevel(IntEnum):
    """Values of `optimization { graph { level } }`."""

    BASIC = -1
    ALL = 0
    EXTENDED = 1
    DISABLED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output of the model."""

    name: str
    type: str
    """Triton's name of the type, a key of TENSOR_TYPES."""
    ragged: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInput:
    """An INT32 input computed from the shapes of another input."""

    kind: BatchInputKind
    target: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The parts of a model's configuration that the backend uses."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch_inputs: tuple[BatchInput, ...]
    max_batch_size: int
    """Largest number of rows; 0 if requests have no batch axis."""
    model_filename: str
    intra_op_threads: int
    """Number of threads; 0 for the default of ONNX Runtime."""
    inter_op_threads: int
    parallel: bool
    memory_arena: bool
    memory_pattern: bool
    graph_level: GraphLevel

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Parse Triton's JSON form of `config.pbtxt`; raise InvalidSettingsError if it is not supported."""
        config = json.loads(text)
        parameters = {key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()}
        if config.get("batch_output"):
            raise InvalidSettingsError("batch_output is not supported by this backend: remove it from config.pbtxt")
        inputs = tuple(_tensor(entry) for entry in config.get("input", []))
        if not inputs or not config.get("output"):
            raise InvalidSettingsError("config.pbtxt needs inputs and outputs: this backend does not add missing ones")
        return cls(
            inputs=inputs,
            outputs=tuple(_tensor(entry) for entry in config["output"]),
            batch_inputs=tuple(_batch_input(entry, inputs) for entry in config.get("batch_input", [])),
            max_batch_size=int(config.get("max_batch_size", 0)),
            model_filename=config.get("default_model_filename") or "model.onnx",
            intra_op_threads=max(0, _integer(parameters, "intra_op_thread_count")),
            inter_op_threads=max(0, _integer(parameters, "inter_op_thread_count")),
            parallel=_execution_mode(parameters),
            memory_arena=_boolean(parameters, "enable_mem_arena"),
            memory_pattern=_boolean(parameters, "enable_mem_pattern"),
            graph_level=_graph_level(config),
        )


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    if entry["data_type"] not in TENSOR_TYPES:
        raise InvalidSettingsError(f"{entry['name']}: {entry['data_type']} is not supported by this backend")
    return Tensor(
        name=entry["name"],
        type=entry["data_type"],
        ragged=bool(entry.get("allow_ragged_batch")),
        optional=bool(entry.get("optional")),
    )


def _batch_input(entry: Mapping[str, Any], inputs: tuple[Tensor, ...]) -> BatchInput:
    kinds = [kind.value for kind in BatchInputKind]
    targets, sources = entry.get("target_name", []), entry.get("source_input", [])
    if entry["kind"] not in kinds:
        raise InvalidSettingsError(
            f"batch_input {', '.join(targets)}: {entry['kind']} is not supported by this backend; "
            f"use {', '.join(kinds[:-1])} or {kinds[-1]}"
        )
    if entry["data_type"] != "TYPE_INT32":
        raise InvalidSettingsError(f"batch_input {', '.join(targets)}: data_type must be TYPE_INT32")
    if len(targets) != 1 or len(sources) != 1 or sources[0] not in {tensor.name for tensor in inputs}:
        raise InvalidSettingsError("a batch_input needs one target_name, and one source_input that names an input")
    return BatchInput(kind=BatchInputKind(entry["kind"]), target=targets[0], source=sources[0])


def _integer(parameters: Mapping[str, str], key: str) -> int:
    try:
        return int(parameters.get(key, "0"))
    except ValueError as exc:
        raise InvalidSettingsError(f"parameter {key} must be an integer, not {parameters[key]!r}") from exc


def _execution_mode(parameters: Mapping[str, str]) -> bool:
    mode = _integer(parameters, "execution_mode")
    if mode not in (0, 1):
        raise InvalidSettingsError(f"parameter execution_mode must be 0 or 1, not {mode}")
    return mode == 1


def _boolean(parameters: Mapping[str, str], key: str) -> bool:
    """Return the parameter's value; True by default, like ONNX Runtime."""
    value = parameters.get(key, "true")
    if value.lower() not in ("true", "false", "1", "0"):
        raise InvalidSettingsError(f"parameter {key} must be true or false, not {value!r}")
    return value.lower() in ("true", "1")


def _graph_level(config: Mapping[str, Any]) -> GraphLevel:
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    # like the C++ backend, which treats every other number as the default
    return GraphLevel(level) if level in tuple(GraphLevel) else GraphLevel.ALL
