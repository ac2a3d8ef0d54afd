"""KServe v2 protobuf messages: reading the model configuration and replies, writing requests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from .errors import ManifestError, ModelNotLoadedError
from .manifest import INPUT_IDS, MANIFEST_PARAMETER, TOKEN_BUDGET_PARAMETER, Manifest
from .manifest.packed_tokenizer import TOKENIZER_PARAMETER

_DATATYPES = {"<f4": "FP32", "<f2": "FP16", "|u1": "UINT8", "<i4": "INT32"}
"""Names of the KServe protocol for little-endian numpy types."""

ManifestT = TypeVar("ManifestT", bound=Manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel(Generic[ManifestT]):
    """Manifest and batch limits of a model, read from the server."""

    name: str
    manifest: ManifestT
    version: str
    """The model version that the manifest describes; empty if unknown, which means the newest one on the wire."""
    packed_tokenizer: str | None
    """The tokenizer, see `packed_tokenizer`; None if the model's configuration does not have it."""
    max_batch_rows: int
    """Largest number of rows in a request."""
    max_batch_tokens: int | None
    """Largest number of tokens in a batch; None if only rows are limited."""


def read_served_model(config: Any, manifest_type: type[ManifestT]) -> ServedModel[ManifestT]:
    """Read the manifest and batch limits from a ModelConfig message.

    Raises:
        ManifestError: The model has no manifest, a newer one, or one that is not a `manifest_type`.
    """
    if MANIFEST_PARAMETER not in config.parameters:
        raise ManifestError(f"model {config.name!r} has no manifest: serve a model exported by qwen3-triton")
    manifest = Manifest.from_json(config.parameters[MANIFEST_PARAMETER].string_value)
    if not isinstance(manifest, manifest_type):
        raise ManifestError(
            f"model {config.name!r} is for task {manifest.task}, this client is for task {manifest_type.task}"
        )
    if config.max_batch_size < 1:
        raise ManifestError(
            f"model {config.name!r} does not accept batches (max_batch_size {config.max_batch_size}): export it again"
        )
    return ServedModel(
        name=config.name,
        manifest=manifest,
        version=_read_version(config, manifest),
        packed_tokenizer=config.parameters[TOKENIZER_PARAMETER].string_value
        if TOKENIZER_PARAMETER in config.parameters
        else None,
        max_batch_rows=config.max_batch_size,
        max_batch_tokens=_read_token_budget(config),
    )


def _read_version(config: Any, manifest: Manifest) -> str:
    if manifest.model_version is not None:
        return str(manifest.model_version)
    # earlier exports name their only version in the policy
    versions = list(config.version_policy.specific.versions)
    return str(versions[0]) if len(versions) == 1 else ""


def _read_token_budget(config: Any) -> int | None:
    if TOKEN_BUDGET_PARAMETER not in config.parameters:
        return None
    text = config.parameters[TOKEN_BUDGET_PARAMETER].string_value
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise ManifestError(
            f"config.pbtxt of model {config.name!r} has {TOKEN_BUDGET_PARAMETER} {text!r}; "
            "it must be a positive integer"
        )
    return int(text)


@dataclass(frozen=True, slots=True)
class InferTarget:
    """What a request asks for."""

    model: str
    version: str
    """Empty for the newest."""
    outputs: tuple[str, ...]
    """Names of the output tensors of the reply."""


def write_infer_request(target: InferTarget, input_ids: NDArray[np.int64]) -> Any:
    """Return a ModelInferRequest with INT64 `[rows, width]` token ids."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name=INPUT_IDS, datatype="INT64", shape=input_ids.shape)
    requested = [service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in target.outputs]
    content = input_ids.astype("<i8", copy=False).tobytes()
    return service_pb2.ModelInferRequest(
        model_name=target.model,
        model_version=target.version,
        inputs=[tensor],
        outputs=requested,
        raw_input_contents=[content],
    )


def check_version(response: Any, target: InferTarget, url: str) -> None:
    """Raise ModelNotLoadedError if another version than that of `target` computed `response`."""
    # a proxy may not forward the version
    if target.version and response.model_version not in ("", target.version):
        raise version_not_loaded(url, target.model, target.version)


def version_not_loaded(url: str, model: str, version: str) -> ModelNotLoadedError:
    """Return the error for a version, any if it is empty, that the server does not serve."""
    which = f"version {version} of model" if version else "model"
    return ModelNotLoadedError(f"{url}: {which} {model!r} is not loaded: wait until it is ready")


def read_output(response: Any, name: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the output `name` of a ModelInferResponse as a read-only view.

    Raises:
        ManifestError: The output is missing, or has another type or shape.
    """
    datatype = _DATATYPES[dtype.str]
    for output, content in zip(response.outputs, response.raw_output_contents, strict=False):
        if output.name != name:
            continue
        size = dtype.itemsize * math.prod(shape)
        if output.datatype == datatype and tuple(output.shape) == shape and len(content) == size:
            return np.frombuffer(content, dtype).reshape(shape)
        raise ManifestError(
            f"output {name} of the reply is {output.datatype} {list(output.shape)} in {len(content)} bytes, "
            f"expected {datatype} {list(shape)}: the model may have been replaced; create a new client"
        )
    raise ManifestError(f"the reply has no output {name}: the model may have been replaced; create a new client")
