"""The part client: processor time, bulk jobs, single texts and the import of this project's clients."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc

from qwen3_triton.client.manifest import ModelFolder
from qwen3_triton.server import LocalServerError

from ..contenders.contender import ContenderUnavailableError, RunContext
from ..contenders.ours import MODEL_NAME, export_graph
from ..environment import installed_versions
from ..model_shape import ModelShape
from ..record import Load
from ..workload import Workload
from .bulk import measure_bulk
from .cost import measure_costs
from .imports import measure_import
from .options import ClientOptions
from .results import ClientMeasurements
from .served import serve_threads
from .single import measure_single_texts

_PACKAGES = ("grpcio", "numpy", "protobuf", "tokenizers", "tritonclient")

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientResults:
    """Measurements, and the reasons for what could not be measured."""

    client: ClientMeasurements
    loads: tuple[Load, ...] = ()
    not_measured: Mapping[str, str] = field(default_factory=dict)


def measure_client(workload: Workload, shape: ModelShape, options: ClientOptions, context: RunContext) -> ClientResults:
    """Measure everything; what fails is left out, with the reason.

    Args:
        workload: the single texts.
        shape: shape of the served model.
        options: what to measure.
        context: its checkpoint is served.
    """
    failed: dict[str, str] = {}
    measured = ClientMeasurements(
        precision=options.precision,
        shape={"layers": shape.layers, "hidden": shape.hidden, "vocabulary": shape.vocabulary},
        versions=installed_versions(_PACKAGES),
        imported=_attempt("import of the client", lambda: measure_import(options.import_turns, context), failed),
    )
    numbers = sorted({1, context.threads})
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        try:
            source = ModelFolder(export_graph(context, options.precision) / MODEL_NAME)
            served = cleanup.enter_context(serve_threads(source, numbers, folder, context))
        except (ContenderUnavailableError, LocalServerError) as exc:
            return ClientResults(client=measured, not_measured={**failed, "client": str(exc)})
        costs = _attempt("cost of the clients", lambda: measure_costs(served, options, context), failed)
        bulk = _attempt("bulk jobs of the client", lambda: measure_bulk(served, numbers, options, context), failed)
        single = _attempt(
            "single texts of the clients", lambda: measure_single_texts(served, workload, options, context), failed
        )
    return ClientResults(
        client=dataclasses.replace(measured, costs=costs or (), bulk=bulk or ()),
        loads=single.loads if single else (),
        not_measured={**failed, **(single.not_measured if single else {})},
    )


def _attempt(name: str, measure: Callable[[], ResultT], failed: dict[str, str]) -> ResultT | None:
    """Return the result of `measure`; if it fails, add the reason to `failed` and return None."""
    try:
        return measure()
    except ContenderUnavailableError as exc:
        failed[name] = str(exc)
    except grpc.RpcError as exc:
        failed[name] = f"{exc.code().name}: {exc.details()}"
    return None
