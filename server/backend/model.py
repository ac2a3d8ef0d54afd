"""`TritonPythonModel`, the class that a stub of the Python backend instantiates for each model instance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from .batch import Array, InvalidBatchError, InvalidRequestError, join_requests, require_elements, split_rows
from .session import open_session
from .settings import Settings


class TritonPythonModel:
    """One instance of a model with `backend: "onnxruntime"`; behaves like the C++ backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session; Triton reports an error as the reason why the model did not load."""
        try:
            if args["model_instance_kind"] != "CPU":
                raise InvalidBatchError(
                    "this server runs models on the CPU only: export the model for the device cpu, "
                    "or use NVIDIA's container"
                )
            self._settings = Settings.from_json(args["model_config"])
            folder = Path(args["model_repository"]) / args["model_version"]
            self._session = open_session(folder / self._settings.model_filename, self._settings)
        except Exception as exc:
            raise pb_utils.TritonModelException(" ".join(str(exc).split())) from exc
        self._outputs = [tensor.name for tensor in self._settings.outputs]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return one response for each request, in order.

        Valid requests are computed in one run; if it fails, each of them gets its error. Invalid requests get separate
        errors, and requests that their client has cancelled are not computed.
        """
        inputs: dict[int, dict[str, Array]] = {}
        responses: dict[int, Any] = {}
        for index, request in enumerate(requests):
            try:
                if request.is_cancelled():
                    responses[index] = _cancelled_response()
                    continue
                arrays = self._arrays(request)
                require_elements(arrays, self._settings)
                inputs[index] = arrays
            except Exception as exc:  # noqa: BLE001  a request must never terminate the stub
                responses[index] = _error_response(exc)
        valid = list(inputs)
        for batch in [valid] if self._settings.max_batch_size else [[index] for index in valid]:
            computed = self._respond([requests[index] for index in batch], [inputs[index] for index in batch])
            responses |= zip(batch, computed, strict=True)
        return [responses[index] for index in range(len(requests))]

    def _respond(self, requests: Sequence[Any], inputs: Sequence[dict[str, Array]]) -> list[Any]:
        """Run the model once for all `requests` and return their responses, or an error for each if the run fails."""
        try:
            return self._run(requests, inputs) if requests else []
        except Exception as exc:  # noqa: BLE001  a request must never terminate the stub
            return [_error_response(exc) for _ in requests]

    def _run(self, requests: Sequence[Any], inputs: Sequence[dict[str, Array]]) -> list[Any]:
        batched = self._settings.max_batch_size > 0
        batch = join_requests(inputs, self._settings)
        outputs = self._session.run(self._outputs, dict(batch.feed))
        parts = {
            name: split_rows(name, output, batch.rows, batched=batched)
            for name, output in zip(self._outputs, outputs, strict=True)
        }
        return [
            _response(request, {name: parts[name][index] for name in self._outputs})
            for index, request in enumerate(requests)
        ]

    def _arrays(self, request: Any) -> dict[str, Array]:
        found = ((t.name, pb_utils.get_input_tensor_by_name(request, t.name)) for t in self._settings.inputs)
        return {name: tensor.as_numpy() for name, tensor in found if tensor is not None}


def _error_response(exc: Exception) -> Any:
    """Return a response with a new error object, because the stub hangs if two responses share one."""
    if isinstance(exc, InvalidRequestError):
        error = pb_utils.TritonError(str(exc), pb_utils.TritonError.INVALID_ARG)
    else:
        error = pb_utils.TritonError(f"{type(exc).__name__}: {exc}")
    return pb_utils.InferenceResponse(error=error)


def _cancelled_response() -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError("cancelled", pb_utils.TritonError.CANCELLED))


def _response(request: Any, outputs: dict[str, Array]) -> Any:
    """Return a response with the outputs that `request` requires."""
    names = request.requested_output_names()
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, outputs[name]) for name in names if name in outputs])
