"""Probes of the machine's peak rates: the matrix multiplications of a model without anything else, or memory copies.

Only the number of tokens of a request matters. Options: kind ("onnxruntime fp32", "onnxruntime int8", "torch fp32",
"torch bf16", "torch fp16", "torch int8" or "torch copy"), threads, shapes (weight shapes of a layer, JSON of {name:
[inputs, outputs]}), layers (each with its own weights), device (cpu or cuda; torch only), copied_bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray

from ..rows import Rows, Vectors
from .serve import Embed, Options, serve

Shapes = dict[str, tuple[int, int]]
Run = Callable[[], object]
_NOTHING: Vectors = np.empty((0, 0), np.float32)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _load(options: Options) -> Embed:
    shapes: Shapes = {name: (inner, columns) for name, (inner, columns) in json.loads(options["shapes"]).items()}
    threads = int(options["threads"])
    library, _, precision = options["kind"].partition(" ")
    if library == "onnxruntime":
        prepare = _onnx_matmuls(shapes, precision, threads)
    elif precision == "copy":
        prepare = _copy(int(options["copied_bytes"]), options["device"])
    elif precision == "int8":
        prepare = _torch_int8(shapes)
    else:
        prepare = _torch(shapes, _DTYPES[precision], int(options["layers"]), options["device"])
    torch.set_num_threads(threads)
    prepared: dict[int, Run] = {}

    def embed(rows: Rows, batch_rows: int) -> Vectors:  # noqa: ARG001
        tokens = sum(map(len, rows))
        if tokens not in prepared:
            prepared[tokens] = prepare(tokens)
        prepared[tokens]()
        return _NOTHING

    return embed


def _onnx_matmuls(shapes: Shapes, precision: str, threads: int) -> Callable[[int], Run]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    model = _onnx_model(shapes, precision)
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])

    def prepare(tokens: int) -> Run:
        rng = np.random.default_rng(0)
        feed: dict[str, NDArray[np.generic]] = {
            name: rng.integers(0, 256, (tokens, inner), np.uint8)
            if precision == "int8"
            else rng.standard_normal((tokens, inner), np.float32)
            for name, (inner, _) in shapes.items()
        }
        return lambda: session.run(None, feed)

    return prepare


def _onnx_model(shapes: Shapes, precision: str) -> bytes:
    """Return a model with one MatMul, or one u8 × s8 MatMulIntegerToFloat, per weight."""
    rng = np.random.default_rng(1)
    inputs, outputs, weights, nodes = [], [], [], []
    for name, (inner, columns) in shapes.items():
        int8 = precision == "int8"
        input_type = ir.DataType.UINT8 if int8 else ir.DataType.FLOAT
        rows = ir.Value(name=name, type=ir.TensorType(input_type), shape=ir.Shape(["tokens", inner]))
        array: NDArray[np.generic] = (
            rng.integers(-127, 128, (inner, columns), np.int8)
            if int8
            else 0.02 * rng.standard_normal((inner, columns), np.float32)
        )
        constants = [_constant(f"{name}.weight", array)]
        if int8:
            constants.append(_constant(f"{name}.row_scale", np.float32(0.01)))
            constants.append(_constant(f"{name}.column_scale", np.full(columns, 0.01, np.float32)))
            constants.append(_constant(f"{name}.zero_point", np.uint8(128)))
        product = ir.Value(
            name=f"{name}.product", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["tokens", columns])
        )
        kind = ("com.microsoft", "MatMulIntegerToFloat") if int8 else ("", "MatMul")
        nodes.append(ir.Node(*kind, [rows, *constants], outputs=[product], name=name))
        inputs.append(rows)
        weights.extend(constants)
        outputs.append(product)
    opsets = {"": 21, "com.microsoft": 1}
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=weights, opset_imports=opsets, name="products")
    return bytes(ir.serde.serialize_model(ir.Model(graph, ir_version=10)).SerializeToString())


def _constant(name: str, value: NDArray[np.generic] | np.generic) -> ir.Value:
    tensor = ir.tensor(np.asarray(value), name=name)
    return ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
    )


def _torch(shapes: Shapes, dtype: torch.dtype, layers: int, device: str) -> Callable[[int], Run]:
    """Prepare linear layers in torch."""
    torch.manual_seed(0)
    weights = [
        (name, 0.02 * torch.randn(columns, inner, dtype=dtype, device=device))
        for _ in range(layers)
        for name, (inner, columns) in shapes.items()
    ]

    def prepare(tokens: int) -> Run:
        rows = {name: torch.randn(tokens, inner, dtype=dtype, device=device) for name, (inner, _) in shapes.items()}

        def run() -> object:
            with torch.inference_mode():
                for name, weight in weights:
                    torch.nn.functional.linear(rows[name], weight)
            _synchronize(device)
            return None

        return run

    return prepare


def _torch_int8(shapes: Shapes) -> Callable[[int], Run]:
    """Prepare s8 × s8 multiplications in torch."""
    weights = {
        name: torch.randint(-127, 128, (columns, inner), dtype=torch.int8).t()
        for name, (inner, columns) in shapes.items()
    }

    def prepare(tokens: int) -> Run:
        rows = {
            name: torch.randint(-127, 128, (tokens, inner), dtype=torch.int8) for name, (inner, _) in shapes.items()
        }
        return lambda: [torch._int_mm(rows[name], weight) for name, weight in weights.items()]

    return prepare


def _copy(size: int, device: str) -> Callable[[int], Run]:
    """Prepare a copy of `size` bytes within the device's memory, regardless of the tokens."""
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def run() -> object:
        target.copy_(source)
        _synchronize(device)
        return None

    return lambda _tokens: run


def _synchronize(device: str) -> None:
    """Wait for the GPU, which executes asynchronously."""
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    serve(_load, ("onnxruntime", "torch"))
