"""The synchronous connection to one model on one Triton server."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import chain, islice
from queue import SimpleQueue
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .errors import InvalidInputError
from .grpc_errors import map_grpc_errors
from .messages import write_infer_request
from .replies import RowReply
from .requests import RowRequest

CHANNEL_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
"""No limit on message sizes: a reply of 4,096 rows × 4,096 floats has 64 MiB, and gRPC's default limit is 4 MiB."""


class TritonChannel:
    """Calls one model. Safe to share between threads; nothing is sent before the first call.

    Speaks through tritonclient's generated stub: its `InferenceServerClient.async_infer` loses
    a callback when two threads share a client.
    """

    def __init__(self, url: str, model: str, *, timeout_s: float) -> None:
        if url.startswith(("http://", "https://")):
            raise InvalidInputError(f"url {url!r}: give HOST:PORT of Triton's gRPC port, without a scheme")
        if not timeout_s > 0:
            raise InvalidInputError(f"timeout_s is {timeout_s}, it must be above 0")
        self.url = url
        self.model = model
        self.timeout_s = timeout_s
        self._channel = grpc.insecure_channel(url, options=CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def model_config(self) -> Any:
        """Return the model's ModelConfig message."""
        request = service_pb2.ModelConfigRequest(name=self.model)
        with self._errors():
            return self._stub.ModelConfig(request, timeout=self.timeout_s).config

    def infer_all(self, requests: Iterable[RowRequest], *, max_in_flight: int) -> Generator[RowReply, None, None]:
        """Yield replies in the order of their arrival, with at most `max_in_flight` requests in flight.

        After the first error, or when the generator is closed early, the requests in flight are cancelled.
        """
        waiting = iter(requests)
        ahead = list(islice(waiting, 2))
        if len(ahead) == 2:
            yield from self._infer_many(chain(ahead, waiting), max_in_flight)
        # a single call waits for itself: gRPC starts a thread for a call with a future
        elif ahead:
            yield self._infer_one(ahead[0])

    def _infer_one(self, request: RowRequest) -> RowReply:
        message = write_infer_request(self.model, request.input_ids)
        with self._errors():
            return RowReply(request, self._stub.ModelInfer(message, timeout=self.timeout_s))

    def _infer_many(self, waiting: Iterator[RowRequest], max_in_flight: int) -> Generator[RowReply, None, None]:
        done: SimpleQueue[Any] = SimpleQueue()
        out: dict[Any, RowRequest] = {}
        try:
            with self._errors():
                for request in islice(waiting, max_in_flight):
                    self._start(request, out, done)
                while out:
                    call = done.get()
                    answered = out.pop(call)
                    response = call.result()
                    for request in islice(waiting, 1):
                        self._start(request, out, done)
                    yield RowReply(answered, response)
        finally:
            for call in out:
                call.cancel()

    def _start(self, request: RowRequest, out: dict[Any, RowRequest], done: SimpleQueue[Any]) -> None:
        message = write_infer_request(self.model, request.input_ids)
        call = self._stub.ModelInfer.future(message, timeout=self.timeout_s)
        out[call] = request
        call.add_done_callback(done.put)

    def close(self) -> None:
        """Close the connection and cancel pending calls. Idempotent."""
        self._channel.close()

    def _errors(self) -> AbstractContextManager[None]:
        return map_grpc_errors(self.url, self.model, self.timeout_s)
