"""Fill the tables of stored prefixes in a written graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from ..batching.inputs import batch_inputs
from ..graph import GraphOptions
from ..graph.prefix_states import CARRIED, build_state_model
from ..graph.prefixes import StoredPrefixes
from ..graph.rope import compute_rope_tables
from ..sources.checkpoint import Checkpoint
from .onnx_file import INLINE_BYTES


def reserve_tables(model: ir.Model, prefixes: StoredPrefixes) -> None:
    """Give the empty tables of `model` their sizes, and the places that `fill_tables` gives them in the data file."""
    for name, value in list(model.graph.initializers.items()):
        empty = value.const_value
        if empty is None or empty.size > 0:
            continue
        *outer, _, width = empty.shape.numpy()
        shape = ir.Shape([*outer, prefixes.tokens, width])
        del model.graph.initializers[name]
        value.const_value = ir.LazyTensor(_read_nothing, dtype=empty.dtype, shape=shape, name=name)
        model.graph.initializers[name] = value


def _read_nothing() -> ir.TensorProtocol:
    raise ValueError("the table is not filled")


def fill_tables(
    checkpoint: Checkpoint, file: Path, options: GraphOptions, on_layer: Callable[[int, int], None]
) -> None:
    """Compute the states of `options.prefixes` with ONNX Runtime and add them to the graph at `file`.

    Args:
        checkpoint: The weights that the graph was written from; they are read from the file.
        file: The graph as `write_onnx` has written it, with empty tables.
        options: Those of the graph.
        on_layer: Called as `on_layer(done, total)` after each layer.
    """
    model = ir.load(file)
    written = {name: value.const_value for name, value in model.graph.initializers.items()}
    tables = _compute(checkpoint, file, options, written, on_layer)
    with file.with_name(f"{file.name}.data").open("ab") as data:
        for name, states in tables.items():
            value = model.graph.initializers[name]
            value.const_value = _store(states, name, data)
            value.shape = ir.Shape(states.shape)
    ir.save(model, file)


def _compute(
    checkpoint: Checkpoint,
    file: Path,
    options: GraphOptions,
    written: dict[str, ir.TensorProtocol | None],
    on_layer: Callable[[int, int], None],
) -> dict[str, NDArray[np.generic]]:
    """Return the tables by name; the states of all sequences, concatenated on the axis of tokens."""
    sequences, layers = options.prefixes.sequences, checkpoint.config.layers
    inputs = [dict(batch_inputs([ids])) for ids in sequences]
    rope = compute_rope_tables(checkpoint, options.max_tokens)
    tables: dict[str, NDArray[np.generic]] = {}
    for index in range(layers):
        model = build_state_model(checkpoint.config, checkpoint.weights, rope, options, index)
        for name, value in model.graph.initializers.items():
            if isinstance(value.const_value, ir.LazyTensor):
                value.const_value = written[name]
        session = _open(model, file)
        found = [_run(session, values) for values in inputs]
        for values, outputs in zip(inputs, found, strict=True):
            values |= {taken: outputs.pop(name) for name, taken in CARRIED.items() if name in outputs}
        tables |= {name: np.concatenate([outputs[name] for outputs in found], axis=-2) for name in found[0]}
        on_layer(index + 1, layers)
    return tables


def _open(model: ir.Model, graph: Path) -> onnxruntime.InferenceSession:
    """Open a model whose weights are in the data file of `graph`."""
    file = graph.with_name(f"states.{graph.name}")
    ir.save(model, file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    finally:
        file.unlink()


def _run(
    session: onnxruntime.InferenceSession, inputs: dict[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _store(states: NDArray[np.generic], name: str, data: BinaryIO) -> ir.TensorProtocol:
    """Append a table to the data file, unless it is small; return the tensor for the graph."""
    if states.nbytes <= INLINE_BYTES:
        return ir.tensor(states, name=name)
    offset = data.tell()
    data.write(np.ascontiguousarray(states).data)
    dtype = ir.DataType.from_numpy(states.dtype)
    location = Path(data.name).name
    return ir.ExternalTensor(
        location, offset, states.nbytes, dtype, shape=ir.Shape(states.shape), name=name, base_dir=Path(data.name).parent
    )
