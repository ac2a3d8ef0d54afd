"""Config and weights → ONNX model: token packing, decoder layers, head."""

from __future__ import annotations

import onnx_ir as ir

from ...client.manifest import ROW_STATUS, Task
from ..architectures import DecoderConfig
from ..errors import ExportError, list_keys
from ..formats import WeightFormat
from ..onnx_builder import MICROSOFT, OPSET, GraphBuilder
from ..sources.weights import Weights
from .attention_choice import Attention, attention_of_group, decode_batch
from .compact_outputs import ELEMENTS, compact_rows
from .cuda_profile import CUDA_OPSET
from .decoder import DecoderParts, embed_tokens
from .graph_options import GraphOptions
from .groups import TextGroup, run_in_groups
from .head import FP32, embed_rows, score_rows
from .layers import IR_VERSION, add_layer, add_pooled_layer, decoder_parts
from .prefixes import match_prefixes
from .rope import RopeTables
from .tokens import PackedTokens, declare_inputs, keep_on_host, pack_tokens, report_rows, restore_rows


def build_model(config: DecoderConfig, weights: Weights, rope: RopeTables, options: GraphOptions) -> ir.Model:
    """Build the model: the inputs of `declare_inputs` → `embedding` FP32 [R, D] or `score` FP32 [R, 1],
    `row_status` INT32 [R, 1], and the additional outputs of `options`.

    `weights` are read when the model is written. They must have been rescaled by `options.rescale` and, for
    reranking, have the `score.weight` of `passes.rerank_head`.
    """
    g = GraphBuilder()
    inputs = declare_inputs()
    cuda = options.cuda
    with g.scope("rows"):
        wire = inputs if cuda is None else keep_on_host(g, inputs)
        packed = pack_tokens(g, wire, vocabulary=config.vocabulary, max_tokens=options.max_tokens)
    parts = decoder_parts(g, config, weights, rope, options)
    if cuda is None:

        def decode(b: GraphBuilder, group: TextGroup) -> ir.Value:
            return _decode(b, parts, group.packed, attention_of_group(b, parts, group), options.task)

        matched = match_prefixes(g, packed, options.prefixes) if options.prefixes.prefixes else None
        outputs = run_in_groups(g, packed, FP32, decode, matched, shares=options.shares_beginnings)
    else:
        outputs = decode_batch(
            g,
            parts,
            packed,
            options.max_tokens,
            lambda b, tokens, attention: _decode(b, parts, tokens, attention, options.task),
        )
    _require_fp32_layers(g, options.format)
    width = 1 if options.task is Task.RERANK else options.head.width(config.hidden)
    with g.scope("head"):
        results = restore_rows(g, packed, outputs)
        status = report_rows(g, packed, results, width)
    _declare_output(results, options.task.output, FP32, width)
    _declare_output(status, ROW_STATUS, ir.DataType.INT32, 1)
    compact = []
    for output in options.compact_outputs:
        with g.scope(output.name):
            compact.append(compact_rows(g, parts, results, output, width))
        _declare_output(compact[-1], output.name, ELEMENTS[output.dtype], output.width)
    graph = ir.Graph(
        list(inputs),
        [results, status, *compact],
        nodes=g.nodes,
        initializers=g.ordered_initializers(),
        opset_imports={"": OPSET if cuda is None else CUDA_OPSET, MICROSOFT: 1},
        name=f"qwen3_{options.task.output}",
    )
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="qwen3-triton")


def _declare_output(value: ir.Value, name: str, dtype: ir.DataType, width: int) -> None:
    """Make `value` the output `name` of `dtype` [R, width]."""
    value.name = name
    value.type, value.shape = ir.TensorType(dtype), ir.Shape(["rows", width])


def _require_fp32_layers(g: GraphBuilder, format: WeightFormat) -> None:
    """Raise ExportError unless each path of `format.fp32_paths()` is that of a float product in the graph."""
    unknown = [path for path in format.fp32_paths() if f"{path}.weight" not in g.initializers]
    if unknown:
        raise ExportError(
            f"fp32_layers: the graph has no product {list_keys(unknown)}; use paths such as 'layers.2.mlp.down', "
            "'layers.2.attention.qkv' and 'embedding.table'"
        )


def _decode(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, attention: Attention, task: Task) -> ir.Value:
    """Return the embeddings or scores [G, ·] of the rows of `packed`."""
    with g.scope("embedding"):
        stream = embed_tokens(g, parts, packed)
    pools_last = not parts.head.pooling.reads_every_token
    for index in range(parts.config.layers - pools_last):
        stream = add_layer(g, parts, attention.attend, stream, index)
    if pools_last:
        stream = add_pooled_layer(g, parts, attention, stream)
    with g.scope("head"):
        return score_rows(g, parts, stream) if task is Task.RERANK else embed_rows(g, parts, attention, stream)
