"""Error of ONNX Runtime's implementations of silu in 16 bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from .results import ActivationError
from .variant import open_session

_GATE_ROWS, _GATE_WIDTH = 64, 1024
OPERATORS = ("QuickGelu", "Exp", "GatedRMSNorm")


def activation_errors(device: str, operator: str) -> list[ActivationError]:
    """Measure one implementation in bf16 and fp16, on gates from N(-3, 1.5).

    Args:
        device: cuda or cpu.
        operator: one of OPERATORS.
    """
    shape = (_GATE_ROWS, _GATE_WIDTH)
    gates = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 1.5 - 3).double()
    errors = []
    for dtype, kind in ((torch.bfloat16, ir.DataType.BFLOAT16), (torch.float16, ir.DataType.FLOAT16)):
        rounded = gates.to(dtype)
        exact = torch.nn.functional.silu(rounded.double())
        error = _run_silu(device, operator, kind, rounded).double() - exact
        errors.append(
            ActivationError(
                operator=operator,
                dtype=str(dtype).removeprefix("torch."),
                relative_error=float(error.norm() / exact.norm()),
                largest_error=float(error.abs().max()),
            )
        )
    return errors


def _run_silu(device: str, operator: str, dtype: ir.DataType, gates: torch.Tensor) -> torch.Tensor:
    """Compute silu of 16-bit `gates`; the graph casts from and to fp32, which is exact."""
    fp32 = ir.DataType.FLOAT
    gate, result = (
        ir.Value(name=name, type=ir.TensorType(fp32), shape=ir.Shape(["rows", _GATE_WIDTH]))
        for name in ("gate", "result")
    )
    nodes = [ir.node("Cast", [gate], attributes={"to": dtype})]
    constants = {"zero": np.asarray(0.0), "one": np.asarray(1.0), "gain": np.full(_GATE_WIDTH, 2.0**15)}
    values = {
        name: ir.Value(
            name=name,
            type=ir.TensorType(dtype),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array.astype(dtype.numpy()), name=name),
        )
        for name, array in constants.items()
    }
    if operator == "QuickGelu":
        nodes.append(ir.node("QuickGelu", [nodes[0].outputs[0]], domain="com.microsoft", attributes={"alpha": 1.0}))
    elif operator == "GatedRMSNorm":
        # of ones, with the epsilon that the graphs use
        nodes.append(ir.node("Mul", [nodes[0].outputs[0], values["zero"]]))
        nodes.append(ir.node("Add", [nodes[1].outputs[0], values["one"]]))
        inputs = [nodes[2].outputs[0], values["gain"], nodes[0].outputs[0]]
        attributes: dict[str, str | float] = {"activation": "silu", "epsilon": 2.0**30}
        nodes.append(ir.node("GatedRMSNorm", inputs, domain="com.microsoft", attributes=attributes))
    else:
        # x / (1 + exp(-x)); the graphs negate weights instead of the gate
        nodes.append(ir.node("Neg", [nodes[0].outputs[0]]))
        nodes.append(ir.node("Exp", [nodes[1].outputs[0]]))
        nodes.append(ir.node("Add", [nodes[2].outputs[0], values["one"]]))
        nodes.append(ir.node("Div", [nodes[0].outputs[0], nodes[3].outputs[0]]))
    nodes.append(ir.Node("", "Cast", [nodes[-1].outputs[0]], [ir.AttrInt64("to", fp32)], outputs=[result]))
    used = {value for node in nodes for value in node.inputs}
    initializers = [value for value in values.values() if value in used]
    opsets = {"": 18, "com.microsoft": 1}
    graph = ir.Graph([gate], [result], nodes=nodes, initializers=initializers, opset_imports=opsets, name="silu")
    model = bytes(ir.serde.serialize_model(ir.Model(graph, ir_version=10)).SerializeToString())
    session = open_session(model, device)
    return torch.from_numpy(session.run(None, {"gate": gates.float().numpy()})[0])
