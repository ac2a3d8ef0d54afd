"""Small ONNX models with `config.pbtxt` settings like those of exports, written to a repository."""

from __future__ import annotations

import platform
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from qwen3_triton.client.manifest import ModelFolder
from qwen3_triton.export import ServerArchitecture
from qwen3_triton.export.batching.library import copy_library

TABLE_ROWS = 8
"""Size of the table of `write_lookup`; a larger id makes ONNX Runtime fail."""

_RAGGED_CONFIG = """
backend: "onnxruntime"
max_batch_size: 64
input [{ name: "input_ids" data_type: TYPE_INT64 dims: [-1] allow_ragged_batch: true }]
output [{ name: "total" data_type: TYPE_FP32 dims: [1] }]
batch_input [{
  kind: BATCH_ITEM_SHAPE_FLATTEN target_name: "row_lengths" data_type: TYPE_INT32 source_input: "input_ids"
}]
dynamic_batching { max_queue_delay_microseconds: 5000 }
instance_group [{ count: 1 kind: KIND_CPU }]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""

_FIXED_CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input [{ name: "table" data_type: TYPE_FP32 dims: [-1, 2] }]
output [
  { name: "doubled" data_type: TYPE_FP32 dims: [-1, 2] },
  { name: "shapes" data_type: TYPE_INT32 dims: [2] }
]
batch_input [{ kind: BATCH_ITEM_SHAPE target_name: "item" data_type: TYPE_INT32 source_input: "table" }]
dynamic_batching { max_queue_delay_microseconds: 20000 }
instance_group [{ count: 2 kind: KIND_CPU }]
"""

_UNBATCHED_CONFIG = """
backend: "onnxruntime"
default_model_filename: "graph.onnx"
input [{ name: "values" data_type: TYPE_FP32 dims: [-1] }]
output [{ name: "sum" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ count: 1 kind: KIND_CPU }]
"""


def write_sums(repository: Path, name: str = "sums", *, config: str = _RAGGED_CONFIG) -> Path:
    """Write a model that maps ragged ids to the sum of each row."""
    return _write(repository, name, config, _row_sums("input_ids", []), _ragged_inputs(), _constants())


def write_lookup(repository: Path, name: str = "lookup") -> Path:
    """Write a model that maps ragged ids to the sum of `2 · id` of each row, using a table of TABLE_ROWS ids."""
    table = helper.make_tensor("table", TensorProto.INT64, [TABLE_ROWS], [2 * row for row in range(TABLE_ROWS)])
    lookup = helper.make_node("Gather", ["table", "input_ids"], ["values"])
    return _write(
        repository, name, _RAGGED_CONFIG, _row_sums("values", [lookup]), _ragged_inputs(), [*_constants(), table]
    )


def write_slow(repository: Path, name: str = "slow") -> Path:
    """Write a model that computes one request at a time, some milliseconds for each id, and returns the sum of ids."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "weight"], ["next_state"]),
            helper.make_node("Identity", ["go_on"], ["still_go_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [512, 512]),
        ],
        [
            helper.make_tensor_value_info("still_go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, [512, 512]),
        ],
    )
    before = [
        helper.make_node("ConstantOfShape", ["square"], ["weight"]),
        helper.make_node("Size", ["input_ids"], ["steps"]),
        helper.make_node("Loop", ["steps", "", "weight"], ["zeros"], body=body),
        helper.make_node("ReduceSum", ["zeros"], ["zero_total"], keepdims=0),
        helper.make_node("Cast", ["zero_total"], ["nothing"], to=TensorProto.INT64),
        helper.make_node("Add", ["input_ids", "nothing"], ["values"]),
    ]
    square = helper.make_tensor("square", TensorProto.INT64, [2], [512, 512])
    config = _RAGGED_CONFIG.replace("max_batch_size: 64", "max_batch_size: 1")
    return _write(repository, name, config, _row_sums("values", before), _ragged_inputs(), [*_constants(), square])


def write_fixed(repository: Path, name: str = "fixed") -> Path:
    """Write a model that doubles tables `[rows, n, 2]`, which batch only with equal shapes, and returns row shapes."""
    nodes = [
        helper.make_node("Add", ["table", "table"], ["doubled"]),
        helper.make_node("Identity", ["item"], ["shapes"]),
    ]
    outputs = [
        helper.make_tensor_value_info("doubled", TensorProto.FLOAT, ["rows", "n", 2]),
        helper.make_tensor_value_info("shapes", TensorProto.INT32, ["rows", 2]),
    ]
    inputs = [
        helper.make_tensor_value_info("table", TensorProto.FLOAT, ["rows", "n", 2]),
        helper.make_tensor_value_info("item", TensorProto.INT32, ["rows", 2]),
    ]
    return _write(repository, name, _FIXED_CONFIG, nodes, inputs, [], outputs=outputs)


def write_unbatched(repository: Path, name: str = "unbatched") -> Path:
    """Write a model that maps values `[n]` without a batch axis to their sum `[1]`, in a file with another name."""
    nodes = [helper.make_node("ReduceSum", ["values"], ["sum"], keepdims=1)]
    inputs = [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["n"])]
    outputs = [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1])]
    folder = _write(repository, name, _UNBATCHED_CONFIG, nodes, inputs, [], outputs=outputs)
    (folder / "1" / "model.onnx").rename(folder / "1" / "graph.onnx")
    return folder


def _row_sums(values: str, before: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return nodes from concatenated `values` to `total` `[rows, 1]`: differences of the running sum at row ends."""
    return [
        *before,
        helper.make_node("Cast", ["row_lengths"], ["lengths"], to=TensorProto.INT64),
        helper.make_node("CumSum", ["lengths", "axis"], ["ends"]),
        helper.make_node("Sub", ["ends", "lengths"], ["starts"]),
        helper.make_node("CumSum", [values, "axis"], ["running"]),
        helper.make_node("Concat", ["zero", "running"], ["sums"], axis=0),
        helper.make_node("Gather", ["sums", "ends"], ["until_end"]),
        helper.make_node("Gather", ["sums", "starts"], ["until_start"]),
        helper.make_node("Sub", ["until_end", "until_start"], ["row_sums"]),
        helper.make_node("Cast", ["row_sums"], ["flat"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["flat", "last"], ["total"]),
    ]


def _ragged_inputs() -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["tokens"]),
        helper.make_tensor_value_info("row_lengths", TensorProto.INT32, ["rows"]),
    ]


def _constants() -> list[onnx.TensorProto]:
    return [
        helper.make_tensor("axis", TensorProto.INT64, [], [0]),
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
    ]


def _write(
    repository: Path,
    name: str,
    config: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    initializers: list[onnx.TensorProto],
    *,
    outputs: list[onnx.ValueInfoProto] | None = None,
) -> Path:
    outputs = outputs or [helper.make_tensor_value_info("total", TensorProto.FLOAT, ["rows", 1])]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    onnx.save(model, folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(f'name: "{name}"{config}')
    return folder


def write_batch_totals(
    repository: Path,
    name: str = "totals",
    *,
    max_batch_tokens: int | str | None,
    queue_delay_us: int = 0,
    work: int = 0,
    instances: int = 1,
    max_batch_cells: int | None = None,
) -> Path:
    """Write a model that returns for each row the numbers of tokens, rows and requests in its batch.

    Args:
        repository: Model repository to write to.
        name: Name of the model.
        max_batch_tokens: Token budget of the batching strategy library; None to omit the library.
        queue_delay_us: Queue delay of the dynamic batcher in microseconds.
        work: Number of products of 256 × 256 matrices per batch, about 0.3 ms each.
        instances: Number of model instances.
        max_batch_cells: Limit of rows × widest row.
    """
    limits = {"max_batch_tokens": max_batch_tokens, "max_batch_cells": max_batch_cells}
    parameters = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{limit}" }} }}\n'
        for key, limit in limits.items()
        if limit is not None
    )
    config = f"""
backend: "onnxruntime"
max_batch_size: 64
input [{{ name: "input_ids" data_type: TYPE_INT64 dims: [-1] allow_ragged_batch: true }}]
output [{{ name: "totals" data_type: TYPE_INT64 dims: [3] }}]
batch_input [
  {{ kind: BATCH_ITEM_SHAPE_FLATTEN target_name: "row_lengths" data_type: TYPE_INT32 source_input: "input_ids" }},
  {{ kind: BATCH_ELEMENT_COUNT target_name: "request_lengths" data_type: TYPE_INT32 source_input: "input_ids" }}
]
dynamic_batching {{ max_queue_delay_microseconds: {queue_delay_us} }}
instance_group [{{ count: {instances} kind: KIND_CPU }}]
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
{parameters}"""
    inputs = [
        *_ragged_inputs(),
        helper.make_tensor_value_info("request_lengths", TensorProto.INT32, ["requests"]),
    ]
    outputs = [helper.make_tensor_value_info("totals", TensorProto.INT64, ["rows", 3])]
    folder = _write(repository, name, config, _batch_totals(), inputs, _totals_constants(work), outputs=outputs)
    if max_batch_tokens is not None:
        copy_library(ServerArchitecture(platform.machine()), ModelFolder(folder).batch_strategy(1))
    return folder


def _batch_totals() -> list[onnx.NodeProto]:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_next"]),
            helper.make_node("MatMul", ["matrix", "square"], ["matrix_next"]),
        ],
        "work",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix", TensorProto.FLOAT, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("go_on_next", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix_next", TensorProto.FLOAT, [256, 256]),
        ],
    )
    return [
        helper.make_node("GreaterOrEqual", ["input_ids", "none"], ["is_token"]),
        helper.make_node("Cast", ["is_token"], ["ones"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["ones"], ["tokens"], keepdims=1),
        helper.make_node("Shape", ["row_lengths"], ["rows"]),
        helper.make_node("Shape", ["request_lengths"], ["requests"]),
        # the products must depend on the batch, or they would be folded to a constant
        helper.make_node("Cast", ["tokens"], ["seed"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["square", "seed"], ["start"]),
        helper.make_node("Loop", ["steps", "yes", "start"], ["worked"], body=body),
        helper.make_node("ReduceMax", ["worked"], ["peak"], keepdims=0),
        helper.make_node("IsNaN", ["peak"], ["is_nan"]),
        helper.make_node("Cast", ["is_nan"], ["nothing"], to=TensorProto.INT64),
        helper.make_node("Add", ["tokens", "nothing"], ["counted"]),
        helper.make_node("Concat", ["counted", "rows", "requests"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "none_axis"], ["batch_row"]),
        helper.make_node("Concat", ["rows", "one"], ["shape"], axis=0),
        helper.make_node("Tile", ["batch_row", "shape"], ["totals"]),
    ]


def _totals_constants(work: int) -> list[onnx.TensorProto]:
    square = [0.5 if row == column else 0.0 for row in range(256) for column in range(256)]
    return [
        helper.make_tensor("none", TensorProto.INT64, [], [0]),
        helper.make_tensor("none_axis", TensorProto.INT64, [1], [0]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("steps", TensorProto.INT64, [], [work]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        helper.make_tensor("square", TensorProto.FLOAT, [256, 256], square),
    ]
