"""The branches of a written GPU graph, one for dense batches and one for packed tokens, and what runs before them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from qwen3_triton.export.batching.inputs import batch_inputs

CHOICE = "rows.layout.if"
"""Name of the node that chooses a branch, and of its output."""


class Branch(StrEnum):
    """Attribute of the node `CHOICE`."""

    DENSE = "then_branch"
    PACKED = "else_branch"


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Iterate over the nodes of `graph` and of all graphs within it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def branch_graph(graph: onnx.GraphProto, branch: Branch) -> onnx.GraphProto:
    """Return the graph of `branch`."""
    [choice] = [node for node in graph.node if node.name == CHOICE]
    body: onnx.GraphProto
    [body] = [attribute.g for attribute in choice.attribute if attribute.name == branch]
    return body


def nodes_of(graph: onnx.GraphProto, branch: Branch) -> list[onnx.NodeProto]:
    """Return the nodes of `branch`; their names are unique in the whole graph."""
    return list(branch_graph(graph, branch).node)


def plain_name(name: str) -> str:
    """Return the path of a node or its output without the number that makes it unique."""
    return re.sub(r"_\d+(?=(\.\d+)?$)", "", name)


def bookkeeping(file: Path, names: Sequence[str], rows: Sequence[Sequence[int]]) -> dict[str, NDArray[np.generic]]:
    """Return the values `names` of the graph at `file` that are computed once per batch, before or in a branch."""
    model = onnx.load(file, load_external_data=False)
    batch_nodes = [node for node in all_nodes(model.graph) if node.name.startswith("rows.") and node.name != CHOICE]
    del model.graph.node[:]
    model.graph.node.extend(batch_nodes)
    return _run(model, file.with_name("bookkeeping.onnx"), names, rows)


def branch_taken(file: Path, rows: Sequence[Sequence[int]]) -> Branch:
    """Return the branch that the graph at `file` takes for a batch of `rows`: each one returns its own constant."""
    model = onnx.load(file, load_external_data=False)
    markers = {branch: np.float32(index) for index, branch in enumerate(Branch)}
    for branch, marker in markers.items():
        body = branch_graph(model.graph, branch)
        del body.node[:]
        tensor = onnx.numpy_helper.from_array(np.asarray(marker))
        body.node.append(onnx.helper.make_node("Constant", [], [body.output[0].name], value=tensor))
    del model.graph.node[[node.name for node in model.graph.node].index(CHOICE) + 1 :]
    value = _run(model, file.with_name("branches.onnx"), [CHOICE], rows)[CHOICE]
    [taken] = [branch for branch, marker in markers.items() if marker == value]
    return taken


def _run(
    model: onnx.ModelProto, file: Path, names: Sequence[str], rows: Sequence[Sequence[int]]
) -> dict[str, NDArray[np.generic]]:
    """Write `model` to `file`, beside the data of its weights, and return its values `names`."""
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    onnx.save(model, file)
    options = onnxruntime.SessionOptions()
    # no warning for each weight that is not used
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(list(names), batch_inputs(rows)), strict=True))
