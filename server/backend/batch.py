"""Requests → one feed → one run → answers, as arrays.

request 0   input_ids [2, 5]  ┐                     ┌ input_ids   [2·5 + 1·3] = [13]
request 1   input_ids [1, 3]  ┘  ── join_requests ──┤ row_lengths [5, 5, 3]
                                                    └ rows        (2, 1)
embedding [3, D]  ── split_rows ──  [2, D], [1, D]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .settings import BatchInput, BatchInputKind, Settings, Tensor

Array = npt.NDArray[Any]


class InvalidBatchError(ValueError):
    """These requests, or the model's answer to them, do not make a batch."""


class InvalidRequestError(ValueError):
    """A request cannot be part of any batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one call of ONNX Runtime takes, and how its answer is to be cut."""

    feed: Mapping[str, Array]
    rows: tuple[int, ...]
    """Rows of each request, in order; their first axis is the batch."""


def require_elements(request: Mapping[str, Array], settings: Settings) -> None:
    """Raise InvalidRequestError if a ragged input of `request` has no elements, so that its rows have no boundaries."""
    for tensor in settings.inputs:
        if tensor.ragged and tensor.name in request and request[tensor.name].size == 0:
            raise InvalidRequestError(
                f"input {tensor.name} has shape {list(request[tensor.name].shape)} and no elements: "
                "send at least one row, and at least one element for each"
            )


def join_requests(requests: Sequence[Mapping[str, Array]], settings: Settings) -> Batch:
    """One feed for all `requests` (input name → array, batch axis first)."""
    present = [tensor for tensor in settings.inputs if tensor.name in requests[0]]
    if any(request.keys() != requests[0].keys() for request in requests):
        raise InvalidBatchError("the requests of a batch do not have the same optional inputs")
    if not present:
        raise InvalidBatchError("a request without any input")
    rows = tuple(request[present[0].name].shape[0] for request in requests) if settings.max_batch_size else (0,)
    feed = {tensor.name: _join(tensor, [request[tensor.name] for request in requests]) for tensor in present}
    for entry in settings.batch_inputs:
        shapes = [request[entry.source].shape for request in requests if entry.source in request]
        feed[entry.target] = batch_input(entry, shapes, batched=settings.max_batch_size > 0)
    return Batch(feed=feed, rows=rows)


def _join(tensor: Tensor, arrays: Sequence[Array]) -> Array:
    """The arrays as the model takes them: ragged ones end to end in one axis, the others row under row."""
    if tensor.ragged:
        arrays = [array.reshape(-1) for array in arrays]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=0)


def batch_input(entry: BatchInput, shapes: Sequence[tuple[int, ...]], *, batched: bool) -> Array:
    """Return the INT32 values of `entry`, see BatchInputKind, from the `shapes` of the requests' source input."""
    if entry.kind is BatchInputKind.ELEMENT_COUNT:
        return np.asarray([math.prod(shape) for shape in shapes], np.int32)
    items = [(shape[1:], shape[0]) if batched else (shape, 1) for shape in shapes]
    axes = len(items[0][0])
    repeated = [np.tile(np.asarray(item, np.int32), (rows, 1)) for item, rows in items]
    joined = np.concatenate(repeated, axis=0).reshape(-1, axes)
    return joined.reshape(-1) if entry.kind is BatchInputKind.ITEM_SHAPE_FLATTEN else joined


def split_rows(name: str, answer: Array, rows: Sequence[int], *, batched: bool) -> list[Array]:
    """The part of `answer` for each request; the whole where there is no batch axis."""
    if not batched:
        return [answer]
    total = sum(rows)
    if answer.ndim == 0 or answer.shape[0] != total:
        raise InvalidBatchError(
            f"output {name} has shape {list(answer.shape)} for {total} rows: its first axis must be the rows"
        )
    edges = accumulate(rows, initial=0)
    return [answer[start:stop] for start, stop in pairwise(edges)]
