"""Operators without CPU kernels as ONNX functions of standard operators, to run GPU graphs on a CPU.

The functions follow the operators' specification (ContribOperators.md of ONNX Runtime 1.31) and compute in fp32. They
support the inputs that graphs of this project use.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
from graph_branches import all_nodes

from qwen3_triton.export.verification.runtime import WrittenModel

DOMAIN = "decomposed"

_ATTRIBUTES = """
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
    masked = Where (seen_inside, scaled, low)
    weights = Softmax <axis = -1> (masked)
    context = Einsum <equation = "kgij,jkd->ikgd"> (weights, v3)
    width = Mul (heads1, size)
    out_shape = Concat <axis = 0> (minus, width)
    flat = Reshape (context, out_shape)
    output = CastLike (flat, query)
"""
# row and position of each packed token from cu_seqlens; a token attends to earlier tokens of its row
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

# a key at or after `limit` is not read
_BOUNDED = """
    key_is_inside = Less (position, limit)
    key_line = Unsqueeze (key_is_inside, none)
    seen_inside = And (seen, key_line)
"""


def _paged(inputs: str, limit: str) -> str:
    """PagedAttention of queries and keys that are normed and rotated; `limit` computes the longest key sequence."""
    return f"""
<domain: "{DOMAIN}", opset_import: ["" : 18]>
PagedAttention <num_heads, kv_num_heads, scale> ({inputs}) => (output)
{{
    {_ATTRIBUTES}
    {_TOKENS}
    {limit}
    {_BOUNDED}
    q = Cast <to = 1> (query)
    k = Cast <to = 1> (key)
    v = Cast <to = 1> (value)
    key_shape = Shape <start = 1, end = 2> (key)
    size = Div (key_shape, kv1)
    {_CORE}
}}
"""


_PAGE_INPUTS = "query, key, value, key_cache, value_cache, cu_seqlens, past_seqlens, block_table"
_PAGED = _paged(_PAGE_INPUTS, "limit = Identity (count)")
_PAGED_BOUNDED = _paged(
    f"{_PAGE_INPUTS}, cos, sin, slots, sink, q_gain, k_gain, k_scale, v_scale, max_seqlens",
    """
    longest = Cast <to = 7> (max_seqlens)
    limit = Gather <axis = 0> (longest, unit)
""",
)

# norm of q and k, then rope
_PREPARED = """
    size = Shape (q_gain)
    q_heads = Concat <axis = 0> (minus, heads1, size)
    k_heads = Concat <axis = 0> (minus, kv1, size)
    query32 = Cast <to = 1> (query)
    q_raw = Reshape (query32, q_heads)
    key32 = Cast <to = 1> (key)
    k_raw = Reshape (key32, k_heads)
    v = Cast <to = 1> (value)
    eps = Constant <value_float: float = @qk_norm_epsilon> ()
    q_square = Mul (q_raw, q_raw)
    q_mean = ReduceMean <keepdims = 1> (q_square, minus)
    q_shifted = Add (q_mean, eps)
    q_root = Sqrt (q_shifted)
    q_unit = Div (q_raw, q_root)
    q_gain32 = Cast <to = 1> (q_gain)
    q_normed = Mul (q_unit, q_gain32)
    k_square = Mul (k_raw, k_raw)
    k_mean = ReduceMean <keepdims = 1> (k_square, minus)
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

# flattened rows are packed texts of equal length; only padding attends to padding
_GROUP_QUERY_NORMED = f"""
<domain: "{DOMAIN}", opset_import: ["" : 18]>
GroupQueryAttention <num_heads, kv_num_heads, scale, do_rotary, qk_norm_epsilon>
    (q_rows, k_rows, v_rows, past_key, past_value, seqlens_k, total, cos, sin, position_ids, bias, sink, k_scale,
     v_scale, q_gain, k_gain) => (attended, present_key, present_value)
{{
    {_ATTRIBUTES}
    row_count = Shape <start = 0, end = 1> (q_rows)
    row_width = Cast <to = 7> (total)
    q_size = Shape <start = 2, end = 3> (q_rows)
    k_size = Shape <start = 2, end = 3> (k_rows)
    cell_count = Mul (row_count, row_width)
    q_shape = Concat <axis = 0> (cell_count, q_size)
    k_shape = Concat <axis = 0> (cell_count, k_size)
    query = Reshape (q_rows, q_shape)
    key = Reshape (k_rows, k_shape)
    value = Reshape (v_rows, k_shape)
    first = Constant <value_ints = [0]> ()
    low_edge = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    edge = Squeeze (row_count, first)
    above = Add (edge, step)
    numbers = Range (low_edge, above, step)
    cu_seqlens = Mul (numbers, row_width)
    {_TOKENS}
    last_keys = Cast <to = 7> (seqlens_k)
    key_counts = Add (last_keys, unit)
    limit = Gather <axis = 0> (key_counts, before)
    {_BOUNDED}
    {_PREPARED}
    {_CORE}
    back = Concat <axis = 0> (row_count, row_width, width)
    attended = Reshape (output, back)
    present_key = Identity (k_gain)
    present_value = Identity (k_gain)
}}
"""

# row i of the input becomes row offsets[i] of the output
_RESTORE_PADDING = f"""
<domain: "{DOMAIN}", opset_import: ["" : 18]>
RestorePadding (tokens, offsets) => (rows)
{{
    minus = Constant <value_ints = [-1]> ()
    none = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    places = Reshape (offsets, minus)
    token_count = Shape <start = 0, end = 1> (tokens)
    used = Slice (places, none, token_count, none)
    used64 = Cast <to = 7> (used)
    indices = Unsqueeze (used64, one)
    width = Shape <start = 1, end = 2> (tokens)
    cell_count = Shape (places)
    flat_shape = Concat <axis = 0> (cell_count, width)
    blank = ConstantOfShape (flat_shape)
    blank_cells = CastLike (blank, tokens)
    cells = ScatterND (blank_cells, indices, tokens)
    grid = Shape (offsets)
    row_shape = Concat <axis = 0> (grid, width)
    rows = Reshape (cells, row_shape)
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
    """Open the graph at `file` with functions for these operators, see `decompose`."""
    return WrittenModel(decompose(file), threads=2)


def decompose(file: Path) -> Path:
    """Write a copy of the graph at `file` in which these operators are functions; the weights file is shared."""
    model = onnx.load(file, load_external_data=False)
    functions = {}
    for node in all_nodes(model.graph):
        function = _function_of(node)
        if function is not None:
            node.domain = DOMAIN
            functions[node.op_type] = function
    model.functions.extend(onnx.parser.parse_function(function) for function in functions.values())
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    copy = file.with_name("decomposed.onnx")
    onnx.save(model, copy)
    return copy


def _function_of(node: onnx.NodeProto) -> str | None:
    """Return the function for `node`; None if the CPU provider has a kernel of it."""
    match node.op_type:
        case "PagedAttention":
            return _PAGED if len(node.input) == len(_PAGE_INPUTS.split(",")) else _PAGED_BOUNDED
        case "GroupQueryAttention" if any(attribute.name == "qk_norm_epsilon" for attribute in node.attribute):
            return _GROUP_QUERY_NORMED
        case "RestorePadding":
            return _RESTORE_PADDING
        case "GatedRMSNorm":
            return _GATED_NORM
    return None
