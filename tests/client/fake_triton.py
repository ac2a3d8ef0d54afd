"""In-process gRPC server with Triton's protocol; the vector or score of a row is a function of its ids."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from qwen3_triton.client import Manifest

MODEL = "demo"
BAD_ID = ord("#") - ord("!")
"""Id of `#` in the sample tokenizer: the result of a row that contains it is NaN."""

ChangeOutput = Callable[[NDArray[np.float32]], NDArray[Any]]
Fault = Callable[[int, grpc.ServicerContext], object]


def row_vector(ids: Iterable[int], dimension: int) -> NDArray[np.float32]:
    """Return the float32 `[dimension]` unit vector of a row; it depends on every id and on their order."""
    seed = sum((position + 1) * (id_ + 7) for position, id_ in enumerate(ids))
    wave = np.sin(np.arange(1, dimension + 1) * (seed % 99_991) * 0.37 + 0.1)
    unit: NDArray[np.float32] = (wave / np.linalg.norm(wave)).astype(np.float32)
    return unit


def row_score(ids: Iterable[int]) -> np.float32:
    """Return the float32 score in 0…1 of a row; there are few different values, so that ties occur."""
    seed = sum((position + 1) * (id_ + 7) for position, id_ in enumerate(ids))
    return np.float32((seed % 23) / 22)


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Serves one model. Attributes control its configuration, output and faults, and record the requests.

    The output is vectors of width `dimension`, or scores if that is None.
    """

    def __init__(
        self,
        manifest_json: str | None,
        dimension: int | None,
        max_batch_size: int = 8,
        address: str = "127.0.0.1:0",
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.manifest_json = manifest_json
        self.dimension = dimension
        self.max_batch_size = max_batch_size
        self.max_batch_tokens: str | None = None
        self.version = "1"
        """The version that is served; requests without a version get it."""
        self.is_loaded = True
        """Whether the model is loaded, in its configuration and readiness."""
        self.on_ready: Callable[[grpc.ServicerContext], object] | None = None
        """Called when a client asks whether the model is ready."""
        self.packed_tokenizer: str | None = None
        self.policy_versions: list[int] = []
        self.ignores_version = False
        """Whether requests for another version are computed by the served one, as behind a careless proxy."""
        self.batches: list[NDArray[np.int64]] = []
        self.metadata: list[dict[str, str]] = []
        """Of each request."""
        self.fault: Fault | None = None
        self.change_output: ChangeOutput = lambda output: output
        self.most_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        if credentials is None:
            self.url = f"127.0.0.1:{self._server.add_insecure_port(address)}"
        else:
            self.url = f"127.0.0.1:{self._server.add_secure_port(address, credentials)}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0)

    def deploy(self, manifest: Manifest, version: int) -> None:
        """Serve another version from now on."""
        self.manifest_json = dataclasses.replace(manifest, model_version=version).to_json()
        self.version = str(version)

    def ModelConfig(self, request: Any, context: Any) -> Any:
        if request.name != MODEL or not self.is_loaded:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        reply = service_pb2.ModelConfigResponse()
        reply.config.name = MODEL
        reply.config.max_batch_size = self.max_batch_size
        reply.config.version_policy.specific.versions.extend(self.policy_versions)
        if self.manifest_json is not None:
            reply.config.parameters["manifest"].string_value = self.manifest_json
        if self.packed_tokenizer is not None:
            reply.config.parameters["tokenizer.json.xz"].string_value = self.packed_tokenizer
        if self.max_batch_tokens is not None:
            reply.config.parameters["max_batch_tokens"].string_value = self.max_batch_tokens
        return reply

    def ServerMetadata(self, _request: Any, _context: Any) -> Any:
        return service_pb2.ServerMetadataResponse(name="triton", version="2.63.0", extensions=["sequence", "logging"])

    def ModelReady(self, request: Any, context: Any) -> Any:
        if self.on_ready is not None:
            self.on_ready(context)
        ready = self.is_loaded and request.name == MODEL and request.version in ("", self.version)
        return service_pb2.ModelReadyResponse(ready=ready)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        if request.model_version not in ("", self.version) and not self.ignores_version:
            context.abort(
                grpc.StatusCode.UNAVAILABLE,
                f"Request for unknown model: '{MODEL}' version {request.model_version} is not at ready state",
            )
        tensor = request.inputs[0]
        assert (tensor.name, tensor.datatype, len(request.inputs)) == ("input_ids", "INT64", 1)
        name = "score" if self.dimension is None else "embedding"
        # row_status is not needed, and models of earlier exports do not have it
        [requested] = [output.name for output in request.outputs]
        if requested != name:
            message = f"[request id: <id_unknown>] unexpected inference output '{requested}' for model '{MODEL}'"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        input_ids = np.frombuffer(request.raw_input_contents[0], np.int64).reshape(tuple(tensor.shape))
        with self._lock:
            number = len(self.batches)
            self.batches.append(input_ids)
            self.metadata.append(dict(context.invocation_metadata()))
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            if self.fault is not None:
                self.fault(number, context)
        finally:
            with self._lock:
                self._in_flight -= 1
        output = self.change_output(self._output(input_ids))
        reply = write_reply(output, name)
        reply.model_version = self.version
        return reply

    def _output(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = [row[row >= 0].tolist() for row in input_ids]
        output = np.stack(
            [np.stack([row_score(row)]) if self.dimension is None else row_vector(row, self.dimension) for row in rows]
        )
        output[(input_ids == BAD_ID).any(axis=1)] = np.nan
        return output


def write_reply(vectors: NDArray[Any], name: str = "embedding") -> Any:
    """Return a ModelInferResponse with one output."""
    reply = service_pb2.ModelInferResponse(model_name=MODEL, raw_output_contents=[vectors.tobytes()])
    datatype = {"float32": "FP32", "float16": "FP16"}[vectors.dtype.name]
    reply.outputs.add(name=name, datatype=datatype, shape=vectors.shape)
    return reply
