"""KServe v2 protobuf messages of a model: its configuration, a request, a reply."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from .errors import ManifestError
from .manifest import INPUT_IDS, MANIFEST_PARAMETER, TOKEN_BUDGET_PARAMETER, Manifest

ManifestT = TypeVar("ManifestT", bound=Manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel(Generic[ManifestT]):
    """A model as the server has it."""

    name: str
    manifest: ManifestT
    max_batch_rows: int
    """Most rows that one request may hold."""
    max_batch_tokens: int | None
    """Most tokens of one batch; None where only rows are limited."""


def read_served_model(config: Any, kind: type[ManifestT]) -> ServedModel[ManifestT]:
    """The manifest and limits in a ModelConfig message.

    Raises ManifestError where the model carries no manifest, a newer one, or one of another kind.
    """
    if MANIFEST_PARAMETER not in config.parameters:
        raise ManifestError(f"model {config.name!r} carries no manifest: serve a folder that qwen3-triton export wrote")
    manifest = Manifest.from_json(config.parameters[MANIFEST_PARAMETER].string_value)
    if not isinstance(manifest, kind):
        raise ManifestError(f"model {config.name!r} is for task {manifest.task}, this client for {kind.task}")
    if config.max_batch_size < 1:
        raise ManifestError(f"model {config.name!r} takes no batches (max_batch_size {config.max_batch_size})")
    return ServedModel(
        name=config.name,
        manifest=manifest,
        max_batch_rows=config.max_batch_size,
        max_batch_tokens=_read_token_budget(config),
    )


def _read_token_budget(config: Any) -> int | None:
    if TOKEN_BUDGET_PARAMETER not in config.parameters:
        return None
    text = config.parameters[TOKEN_BUDGET_PARAMETER].string_value
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise ManifestError(
            f"config.pbtxt of model {config.name!r} has {TOKEN_BUDGET_PARAMETER} {text!r}, not a whole number above 0"
        )
    return int(text)


def write_infer_request(model: str, input_ids: NDArray[np.int64]) -> Any:
    """ModelInferRequest that carries INT64 `[rows, width]` token ids."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name=INPUT_IDS, datatype="INT64", shape=input_ids.shape)
    content = input_ids.astype("<i8", copy=False).tobytes()
    return service_pb2.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[content])


def read_output(response: Any, name: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    """FP32 `shape` output `name` of a ModelInferResponse, a read-only view.

    Raises ManifestError where the reply holds anything else.
    """
    for output, content in zip(response.outputs, response.raw_output_contents, strict=False):
        if output.name != name:
            continue
        if output.datatype == "FP32" and tuple(output.shape) == shape and len(content) == 4 * math.prod(shape):
            return np.frombuffer(content, "<f4").reshape(shape)
        raise ManifestError(
            f"the reply has {name} {output.datatype} {list(output.shape)} in {len(content)} bytes, "
            f"the manifest promises FP32 {list(shape)}: was the model replaced? reconnect"
        )
    raise ManifestError(f"the reply has no output {name}: was the model replaced? reconnect")
