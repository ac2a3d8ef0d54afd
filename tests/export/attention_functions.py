"""Operators without CPU kernels as ONNX functions of standard operators, to run GPU graphs on a CPU.

The functions follow the operators' specification (ContribOperators.md of ONNX Runtime 1.31) and compute in fp32. They
support the inputs that graphs of this project use.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray

from qwen3_triton.export.batching.inputs import batch_inputs
from qwen3_triton.export.verification.runtime import WrittenModel

DOMAIN = "decomposed"

# row and position of each packed token from cu_seqlens; a token attends to earlier tokens of its row
_PACKED = """
    heads = Constant <value_int: int = @num_heads> ()
    kv_heads = Constant <value_int: int = @kv_num_heads> ()
    one = Constant <value_ints = [1]> ()
    minus = Constant <value_ints = [-1]> ()
    heads1 = Reshape (heads, one)
    kv1 = Reshape (kv_heads, one)
    group = Div (heads1, kv1)
    scale = Constant <value_float: float = @scale> ()
"""
_CORE = """
    qs = Concat <axis = 0> (minus, kv1, group, size)
    q4 = Reshape (q, qs)
    ks = Concat <axis = 0> (minus, kv1, size)
    k3 = Reshape (k, ks)
    v3 = Reshape (v, ks)
    raw = Einsum <equation = "ikgd,jkd->kgij"> (q4, k3)
    scaled = Mul (raw, scale)
    low = Constant <value_float = -1e30> ()
    masked = Where (seen, scaled, low)
    weights = Softmax <axis = -1> (masked)
    context = Einsum <equation = "kgij,jkd->ikgd"> (weights, v3)
    width = Mul (heads1, size)
    out_shape = Concat <axis = 0> (minus, width)
    flat = Reshape (context, out_shape)
    output = CastLike (flat, query)
"""
_TOKENS = """
    zero = Constant <value_int = 0> ()
    unit = Constant <value_int = 1> ()
    shape = Shape <start = 0, end = 1> (query)
    none = Constant <value_ints = [0]> ()
    count = Squeeze (shape, none)
    index = Range (zero, count, unit)
    ends = Cast <to = 7> (cu_seqlens)
    column = Unsqueeze (index, one)
    passed = GreaterOrEqual (column, ends)
    passed_number = Cast <to = 7> (passed)
    row = ReduceSum <keepdims = 0> (passed_number, one)
    before = Sub (row, unit)
    start = Gather <axis = 0> (ends, before)
    position = Sub (index, start)
    row_column = Unsqueeze (row, one)
    row_line = Unsqueeze (row, none)
    same = Equal (row_column, row_line)
    line = Unsqueeze (index, none)
    earlier = LessOrEqual (line, column)
    seen = And (same, earlier)
"""

_PAGED = f"""
<domain: "{DOMAIN}", opset_import: ["" : 18]>
PagedAttention <num_heads, kv_num_heads, scale>
    (query, key, value, key_cache, value_cache, cu_seqlens, past_seqlens, block_table) => (output)
{{
    {_PACKED}
    {_TOKENS}
    q = Cast <to = 1> (query)
    k = Cast <to = 1> (key)
    v = Cast <to = 1> (value)
    key_shape = Shape <start = 1, end = 2> (key)
    size = Div (key_shape, kv1)
    {_CORE}
}}
"""

# norm and rope of q and k before attention; q, k and v are concatenated
_PREPARED = """
    packed = Cast <to = 1> (query)
    two = Constant <value_ints = [2]> ()
    kv2 = Mul (kv1, two)
    all_heads = Add (heads1, kv2)
    joint_width = Shape <start = 1, end = 2> (query)
    size = Div (joint_width, all_heads)
    head_shape = Concat <axis = 0> (minus, all_heads, size)
    by_head = Reshape (packed, head_shape)
    parts = Concat <axis = 0> (heads1, kv1, kv1)
    q_raw, k_raw, v = Split <axis = 1> (by_head, parts)
    eps = Constant <value_float: float = @qk_norm_epsilon> ()
    last = Constant <value_ints = [-1]> ()
    q_square = Mul (q_raw, q_raw)
    q_mean = ReduceMean <keepdims = 1> (q_square, last)
    q_shifted = Add (q_mean, eps)
    q_root = Sqrt (q_shifted)
    q_unit = Div (q_raw, q_root)
    q_gain32 = Cast <to = 1> (q_gain)
    q_normed = Mul (q_unit, q_gain32)
    k_square = Mul (k_raw, k_raw)
    k_mean = ReduceMean <keepdims = 1> (k_square, last)
    k_shifted = Add (k_mean, eps)
    k_root = Sqrt (k_shifted)
    k_unit = Div (k_raw, k_root)
    k_gain32 = Cast <to = 1> (k_gain)
    k_normed = Mul (k_unit, k_gain32)
    cos32 = Cast <to = 1> (cos)
    sin32 = Cast <to = 1> (sin)
    c2 = Gather <axis = 0> (cos32, position)
    s2 = Gather <axis = 0> (sin32, position)
    c = Unsqueeze (c2, one)
    s = Unsqueeze (s2, one)
    q_a, q_b = Split <axis = -1, num_outputs = 2> (q_normed)
    q_ac = Mul (q_a, c)
    q_bs = Mul (q_b, s)
    q_left = Sub (q_ac, q_bs)
    q_bc = Mul (q_b, c)
    q_as = Mul (q_a, s)
    q_right = Add (q_bc, q_as)
    q = Concat <axis = -1> (q_left, q_right)
    k_a, k_b = Split <axis = -1, num_outputs = 2> (k_normed)
    k_ac = Mul (k_a, c)
    k_bs = Mul (k_b, s)
    k_left = Sub (k_ac, k_bs)
    k_bc = Mul (k_b, c)
    k_as = Mul (k_a, s)
    k_right = Add (k_bc, k_as)
    k = Concat <axis = -1> (k_left, k_right)
"""

_PAGED_NORMED = f"""
<domain: "{DOMAIN}", opset_import: ["" : 18]>
PagedAttention <num_heads, kv_num_heads, scale, do_rotary, qk_norm_epsilon>
    (query, key, value, key_cache, value_cache, cu_seqlens, past_seqlens, block_table, cos, sin, slots, sink, q_gain,
     k_gain, k_scale, v_scale, max_seqlens) => (output)
{{
    {_PACKED}
    {_TOKENS}
    {_PREPARED}
    {_CORE}
}}
"""

# flattened rows are packed texts of equal length; only padding attends to padding
_GROUP_QUERY_NORMED = f"""
<domain: "{DOMAIN}", opset_import: ["" : 18]>
GroupQueryAttention <num_heads, kv_num_heads, scale, do_rotary, qk_norm_epsilon>
    (rows, key, value, past_key, past_value, seqlens_k, total, cos, sin, position_ids, bias, sink, k_scale,
     v_scale, q_gain, k_gain) => (attended, present_key, present_value)
{{
    {_PACKED}
    row_shape = Shape (rows)
    first = Constant <value_ints = [0]> ()
    row_count = Gather <axis = 0> (row_shape, first)
    row_width = Gather <axis = 0> (row_shape, one)
    joint = Constant <value_ints = [2]> ()
    joint_size = Gather <axis = 0> (row_shape, joint)
    flat_shape = Concat <axis = 0> (minus, joint_size)
    query = Reshape (rows, flat_shape)
    edge = Squeeze (row_count, first)
    low_edge = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    above = Add (edge, step)
    numbers = Range (low_edge, above, step)
    width_of_row = Squeeze (row_width, first)
    cu_seqlens = Mul (numbers, width_of_row)
    {_TOKENS}
    {_PREPARED}
    {_CORE}
    back = Concat <axis = 0> (row_count, row_width, width)
    attended = Reshape (output, back)
    present_key = Identity (k_gain)
    present_value = Identity (k_gain)
}}
"""

# in the order of the CUDA kernel
_GATED_NORM = f"""
<domain: "{DOMAIN}", opset_import: ["" : 18]>
GatedRMSNorm <activation, epsilon> (rows, gain, gate) => (output)
{{
    x = Cast <to = 1> (rows)
    gain32 = Cast <to = 1> (gain)
    z = Cast <to = 1> (gate)
    eps = Constant <value_float: float = @epsilon> ()
    last = Constant <value_ints = [-1]> ()
    square = Mul (x, x)
    mean = ReduceMean <keepdims = 1> (square, last)
    shifted = Add (mean, eps)
    root = Sqrt (shifted)
    factor = Reciprocal (root)
    unit = Mul (x, factor)
    normed = Mul (unit, gain32)
    sigmoid = Sigmoid (z)
    silu = Mul (z, sigmoid)
    gated = Mul (normed, silu)
    output = CastLike (gated, rows)
}}
"""


def open_decomposed(file: Path) -> WrittenModel:
    """Open a copy of the graph at `file` in which these operators are functions; the weights file is shared."""
    model = onnx.load(file, load_external_data=False)
    attention_nodes = [node for node in model.graph.node if node.op_type in ("PagedAttention", "GroupQueryAttention")]
    normed = any(attribute.name == "qk_norm_epsilon" for attribute in attention_nodes[0].attribute)
    texts = {
        ("PagedAttention", False): _PAGED,
        ("PagedAttention", True): _PAGED_NORMED,
        ("GroupQueryAttention", True): _GROUP_QUERY_NORMED,
    }
    gated_norms = [node for node in model.graph.node if node.op_type == "GatedRMSNorm"]
    for node in (*attention_nodes, *gated_norms):
        node.domain = DOMAIN
    model.functions.append(onnx.parser.parse_function(texts[attention_nodes[0].op_type, normed]))
    if gated_norms:
        model.functions.append(onnx.parser.parse_function(_GATED_NORM))
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    copy = file.with_name("decomposed.onnx")
    onnx.save(model, copy)
    return WrittenModel(copy, threads=2)


def bookkeeping(file: Path, names: list[str], rows: list[list[int]]) -> dict[str, NDArray[np.generic]]:
    """Return the values `names` of the graph at `file` that are computed once per batch."""
    import onnxruntime

    model = onnx.load(file, load_external_data=False)
    batch_nodes = [node for node in model.graph.node if node.name.startswith("rows.")]
    del model.graph.node[:]
    model.graph.node.extend(batch_nodes)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    copy = file.with_name("bookkeeping.onnx")
    onnx.save(model, copy)
    session = onnxruntime.InferenceSession(copy, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, batch_inputs(rows)), strict=True))
