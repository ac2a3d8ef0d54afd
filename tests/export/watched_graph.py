"""Run a written graph with values in its loop over groups as additional outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray

from qwen3_triton.export.batching.inputs import batch_inputs

_LOOP = "groups.loop"


def group_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes of the loop over groups of texts."""
    return list(_body(model).node)


def run_watched(
    file: Path, names: Iterable[str], rows: Sequence[Sequence[int]], fuse: bool = True
) -> dict[str, NDArray[Any]]:
    """Return the embedding and the values `names` of the loop's body for a batch of one group."""
    model = onnx.load(file, load_external_data=False)
    [loop] = [node for node in model.graph.node if node.name == _LOOP]
    names = list(dict.fromkeys(names))
    _body(model).output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    loop.output.extend(f"watched.{name}" for name in names)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(f"watched.{name}") for name in names)
    watched = file.with_name("watched.onnx")
    onnx.save(model, watched)
    options = onnxruntime.SessionOptions()
    if not fuse:
        # fusion would rename the products
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(watched, options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, batch_inputs(rows))
    by_name = dict(zip([output.name for output in session.get_outputs()], outputs, strict=True))
    return {name: by_name[f"watched.{name}"][0] for name in names} | {"embedding": by_name["embedding"]}


def _body(model: onnx.ModelProto) -> onnx.GraphProto:
    [loop] = [node for node in model.graph.node if node.name == _LOOP]
    body: onnx.GraphProto
    [body] = [attribute.g for attribute in loop.attribute if attribute.name == "body"]
    return body
