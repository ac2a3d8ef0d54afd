"""Config and weights → the whole ONNX model: tokens, layers, head."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...client.manifest import Precision, Task
from ..passes.rescale import NO_RESCALE, Rescale
from ..sources.config import ModelConfig
from ..sources.weights import Weights
from .attention_choice import Attention, attention_of_batch, attention_of_group
from .builder import MICROSOFT, OPSET, GraphBuilder
from .cuda_profile import CUDA_OPSET, CudaProfile
from .decoder import DecoderParts, Stream, embed_tokens, enter_products, feed_forward, pool_last_token
from .groups import TextGroup, run_in_groups
from .head import FP32, embed_rows, score_rows
from .products import ProductFormat
from .rope import RopeTables
from .tokens import PackedTokens, declare_inputs, pack_tokens, spread_to_rows

_IR_VERSION = 10
_DTYPES = {
    Precision.FP32: FP32,
    Precision.FP16: ir.DataType.FLOAT16,
    Precision.BF16: ir.DataType.BFLOAT16,
    Precision.INT8: FP32,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """What the graph is built for."""

    task: Task = Task.EMBED
    precision: Precision
    max_tokens: int
    rescale: Rescale = NO_RESCALE
    fp32_layers: frozenset[str] = frozenset()
    """Paths of products that stay in floats in an 8-bit graph, `layers.2.mlp.down` for one."""
    norm_output_scale: float | None = None
    """What one step of an 8-bit graph's codes of normed rows is worth; None where every row has its own scale."""
    cuda: CudaProfile | None = None
    """None for a CPU."""

    @property
    def dtype(self) -> ir.DataType:
        """Of activations between products."""
        if self.cuda is not None and self.cuda.cpu_twin:
            return FP32
        if self.precision is Precision.INT8 and self.cuda is not None:
            return ir.DataType.FLOAT16
        return _DTYPES[self.precision]


def build_model(config: ModelConfig, weights: Weights, rope: RopeTables, options: GraphOptions) -> ir.Model:
    """Build the model: the inputs of `declare_inputs` → `embedding` FP32 [R, hidden] or `score` FP32 [R, 1].

    `weights` are read when the model is written. They must have been rescaled by `options.rescale`, and hold
    `score.weight` as `rerank_head` makes it where the task is reranking.
    """
    g = GraphBuilder()
    inputs = declare_inputs()
    dtype, cuda = options.dtype, options.cuda
    with g.scope("rows"):
        packed = pack_tokens(g, inputs, vocabulary=config.vocabulary, max_tokens=options.max_tokens)
    parts = DecoderParts(
        config=config,
        form=ProductFormat(
            weights=weights,
            dtype=dtype,
            quantized=options.precision is Precision.INT8 and cuda is None,
            blocks=options.precision is Precision.INT8 and cuda is not None,
            fp32_layers=options.fp32_layers,
            norm_output_scale=options.norm_output_scale,
        ),
        eps=options.rescale.eps(config.norm_eps),
        cos=g.table("rope.cos", rope.cos.astype(dtype.numpy())),
        sin=g.table("rope.sin", rope.sin.astype(dtype.numpy())),
        cuda=cuda,
    )
    if cuda is None:

        def decode(b: GraphBuilder, group: TextGroup) -> ir.Value:
            return _decode(b, parts, group.packed, attention_of_group(b, parts, group), options.task)

        answers = run_in_groups(g, packed, FP32, decode)
    else:
        answers = _decode(g, parts, packed, attention_of_batch(g, parts, packed, options.max_tokens), options.task)
    with g.scope("head"):
        output = spread_to_rows(g, packed, answers)
    output.name = options.task.output
    width = 1 if options.task is Task.RERANK else config.hidden
    output.type, output.shape = ir.TensorType(FP32), ir.Shape(["rows", width])
    graph = ir.Graph(
        list(inputs),
        [output],
        nodes=g.nodes,
        initializers=list(g.initializers.values()),
        opset_imports={"": OPSET if cuda is None else CUDA_OPSET, MICROSOFT: 1},
        name=f"qwen3_{options.task.output}",
    )
    return ir.Model(graph, ir_version=_IR_VERSION, producer_name="qwen3-triton")


def _decode(g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, attention: Attention, task: Task) -> ir.Value:
    """The answers [G, ·] to the rows of `packed`."""
    with g.scope("embedding"):
        stream = embed_tokens(g, parts, packed)
    for index in range(parts.config.layers):
        with g.scope(f"layers.{index}"):
            stream = _add_layer(g, parts, packed, attention, stream, index)
    with g.scope("head"):
        return score_rows(g, parts, stream) if task is Task.RERANK else embed_rows(g, parts, stream)


def _add_layer(
    g: GraphBuilder, parts: DecoderParts, packed: PackedTokens, attention: Attention, stream: Stream, index: int
) -> Stream:
    """One layer; behind the attention of the last one only each row's last token goes on."""
    layer = f"layers.{index}"
    last = index == parts.config.layers - 1
    with g.scope("attention"):
        products = ["q", "k"] if last else ["qkv"]
        entered, stream = enter_products(g, parts, stream, f"{layer}.input_layernorm.weight", products, floats=last)
        attended = (attention.attend_last if last else attention.attend)(entered, layer)
    if last:
        stream = Stream(pool_last_token(g, packed, stream.residual, "residual"), None)
    with g.scope("mlp"):
        stream, norm = Stream(stream.residual, attended), f"{layer}.post_attention_layernorm.weight"
        entered, stream = enter_products(g, parts, stream, norm, ["gate", "up"])
        return Stream(stream.residual, feed_forward(g, parts, entered, layer))
