"""The matrix products of one layer and nothing else: the rate that a graph could reach at best."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from .contenders.session import open_session
from .model_shape import ModelShape

_FLOAT = ir.TensorType(ir.DataType.FLOAT)


def layer_flops(shape: ModelShape, tokens: int) -> int:
    """Multiplications and additions of one layer's products over `tokens` rows."""
    return sum(2 * tokens * inner * columns for inner, columns in shape.products().values())


def layer_products(shape: ModelShape, tokens: int, threads: int) -> Callable[[], None]:
    """Multiplies random rows [tokens, ·] with every matrix of one layer in ONNX Runtime."""
    session = open_session(_model(shape), threads)
    dice = np.random.default_rng(0)
    inputs = {name: dice.standard_normal((tokens, inner), np.float32) for name, (inner, _) in shape.products().items()}

    def run() -> None:
        session.run(None, inputs)

    return run


def _model(shape: ModelShape) -> bytes:
    dice = np.random.default_rng(1)
    inputs, outputs, weights, nodes = [], [], [], []
    for name, (inner, columns) in shape.products().items():
        rows = ir.Value(name=name, type=_FLOAT, shape=ir.Shape(["tokens", inner]))
        tensor = ir.tensor(0.02 * dice.standard_normal((inner, columns), np.float32), name=f"{name}.weight")
        weight = ir.Value(name=tensor.name, type=_FLOAT, shape=ir.Shape([inner, columns]), const_value=tensor)
        product = ir.Value(name=f"{name}.product", type=_FLOAT, shape=ir.Shape(["tokens", columns]))
        inputs.append(rows)
        weights.append(weight)
        outputs.append(product)
        nodes.append(ir.Node("", "MatMul", [rows, weight], outputs=[product], name=name))
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=weights, opset_imports={"": 21}, name="products")
    return bytes(ir.serde.serialize_model(ir.Model(graph, ir_version=10)).SerializeToString())
