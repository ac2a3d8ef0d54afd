"""Conversion between the requests of a batch and the arrays of one ONNX Runtime call.

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
    """The requests cannot be combined, or the model's output does not match them."""


class InvalidRequestError(ValueError):
    """A request is invalid in any batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of one ONNX Runtime call, and the sizes of the requests in it."""

    feed: Mapping[str, Array]
    """Input arrays by name."""
    rows: tuple[int, ...]
    """Number of rows of each request, in order."""


def require_elements(request: Mapping[str, Array], settings: Settings) -> None:
    """Raise InvalidRequestError if a ragged input of `request` has no elements, as its rows cannot be delimited."""
    for tensor in settings.inputs:
        if tensor.ragged and tensor.name in request and request[tensor.name].size == 0:
            raise InvalidRequestError(
                f"input {tensor.name} has shape {list(request[tensor.name].shape)} and no elements: "
                "send at least one row, with at least one element in each row"
            )


def join_requests(requests: Sequence[Mapping[str, Array]], settings: Settings) -> Batch:
    """Combine `requests`, each a mapping from input name to an array with the batch axis first, into one batch."""
    present = [tensor for tensor in settings.inputs if tensor.name in requests[0]]
    if any(request.keys() != requests[0].keys() for request in requests):
        raise InvalidBatchError("the requests of a batch must have the same optional inputs")
    if not present:
        raise InvalidBatchError("a request has no inputs")
    rows = tuple(request[present[0].name].shape[0] for request in requests) if settings.max_batch_size else (0,)
    feed = {tensor.name: _join(tensor, [request[tensor.name] for request in requests]) for tensor in present}
    for entry in settings.batch_inputs:
        shapes = [request[entry.source].shape for request in requests if entry.source in request]
        feed[entry.target] = batch_input(entry, shapes, batched=settings.max_batch_size > 0)
    return Batch(feed=feed, rows=rows)


def _join(tensor: Tensor, arrays: Sequence[Array]) -> Array:
    """Concatenate the arrays of one input: ragged ones flattened to one axis, others along the batch axis."""
    if tensor.ragged:
        arrays = [array.reshape(-1) for array in arrays]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=0)


def batch_input(entry: BatchInput, shapes: Sequence[tuple[int, ...]], *, batched: bool) -> Array:
    """Return the INT32 values of `entry`, see BatchInputKind, for the `shapes` of its source input in each request."""
    if entry.kind is BatchInputKind.ELEMENT_COUNT:
        return np.asarray([math.prod(shape) for shape in shapes], np.int32)
    items = [(shape[1:], shape[0]) if batched else (shape, 1) for shape in shapes]
    axes = len(items[0][0])
    repeated = [np.tile(np.asarray(item, np.int32), (rows, 1)) for item, rows in items]
    joined = np.concatenate(repeated, axis=0).reshape(-1, axes)
    return joined.reshape(-1) if entry.kind is BatchInputKind.ITEM_SHAPE_FLATTEN else joined


def split_rows(name: str, output: Array, rows: Sequence[int], *, batched: bool) -> list[Array]:
    """Split an output into the part of each request; a model without a batch axis has only one request."""
    if not batched:
        return [output]
    total = sum(rows)
    if output.ndim == 0 or output.shape[0] != total:
        raise InvalidBatchError(
            f"output {name} has shape {list(output.shape)} for {total} rows: its first axis must be the rows"
        )
    edges = accumulate(rows, initial=0)
    return [output[start:stop] for start, stop in pairwise(edges)]
