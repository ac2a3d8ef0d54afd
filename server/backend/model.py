"""`TritonPythonModel`: what the stub calls, once per model instance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from .batch import Array, BatchInvalid, join_requests, split_rows
from .session import open_session
from .settings import Settings


class TritonPythonModel:
    """Serves one instance of a model that says `backend: "onnxruntime"`, as the C++ backend does."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the session; whatever is wrong becomes the reason why the model did not load."""
        try:
            if args["model_instance_kind"] != "CPU":
                raise BatchInvalid("this server runs on the CPU: export with --device cpu, or use NVIDIA's container")
            self._settings = Settings.from_json(args["model_config"])
            folder = Path(args["model_repository"]) / args["model_version"]
            self._session = open_session(folder / self._settings.model_filename, self._settings)
        except Exception as exc:
            raise pb_utils.TritonModelException(" ".join(str(exc).split())) from exc
        self._outputs = [tensor.name for tensor in self._settings.outputs]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request, from one run for all; a failing run is every request's error."""
        try:
            if self._settings.max_batch_size:
                return self._run(requests)
            return [response for request in requests for response in self._run([request])]
        except Exception as exc:  # noqa: BLE001  nothing that a request holds may end the stub
            error = pb_utils.TritonError(f"{type(exc).__name__}: {exc}")
            return [pb_utils.InferenceResponse(error=error) for _ in requests]

    def _run(self, requests: Sequence[Any]) -> list[Any]:
        batched = self._settings.max_batch_size > 0
        batch = join_requests([self._arrays(request) for request in requests], self._settings)
        answers = self._session.run(self._outputs, dict(batch.feed))
        parts = {
            name: split_rows(name, answer, batch.rows, batched=batched)
            for name, answer in zip(self._outputs, answers, strict=True)
        }
        return [
            _response(request, {name: parts[name][index] for name in self._outputs})
            for index, request in enumerate(requests)
        ]

    def _arrays(self, request: Any) -> dict[str, Array]:
        found = ((t.name, pb_utils.get_input_tensor_by_name(request, t.name)) for t in self._settings.inputs)
        return {name: tensor.as_numpy() for name, tensor in found if tensor is not None}


def _response(request: Any, answers: dict[str, Array]) -> Any:
    """The outputs that `request` asked for."""
    asked = request.requested_output_names()
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, answers[name]) for name in asked if name in answers])
