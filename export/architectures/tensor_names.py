"""Names of a decoder's tensors: those of transformers without the `model.` prefix."""

from __future__ import annotations

from dataclasses import dataclass

EMBEDDINGS = "embed_tokens.weight"
"""[vocabulary, hidden]"""
FINAL_NORM = "norm.weight"
"""[hidden]"""
LM_HEAD = "lm_head.weight"
"""[vocabulary, hidden], head of a causal LM."""
SCORE_HEAD = "score.weight"
"""[labels, hidden], head of a sequence classifier."""
HEADS = (LM_HEAD, SCORE_HEAD)
"""Tensors that are not part of the decoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTensors:
    """Tensor names of one decoder layer; matrices are [out, in]. None where the architecture has no such tensor."""

    attention_norm: str
    q: str
    k: str
    v: str
    output: str
    mlp_norm: str
    gate: str
    up: str
    down: str
    q_norm: str | None = None
    k_norm: str | None = None
    q_bias: str | None = None
    k_bias: str | None = None
    v_bias: str | None = None

    @property
    def qkv(self) -> tuple[str, str, str]:
        """Weights of the three projections that read the attention norm."""
        return self.q, self.k, self.v

    @property
    def gate_up(self) -> tuple[str, str]:
        """Weights of the two projections that read the MLP norm."""
        return self.gate, self.up


def layer_tensors(index: int, *, head_norms: bool, qkv_biases: bool) -> LayerTensors:
    """Return the names of layer `index` in the layout that Llama, Qwen2, Qwen3 and others share."""
    layer = f"layers.{index}"
    attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
    return LayerTensors(
        attention_norm=f"{layer}.input_layernorm.weight",
        q=f"{attention}.q_proj.weight",
        k=f"{attention}.k_proj.weight",
        v=f"{attention}.v_proj.weight",
        output=f"{attention}.o_proj.weight",
        mlp_norm=f"{layer}.post_attention_layernorm.weight",
        gate=f"{mlp}.gate_proj.weight",
        up=f"{mlp}.up_proj.weight",
        down=f"{mlp}.down_proj.weight",
        q_norm=f"{attention}.q_norm.weight" if head_norms else None,
        k_norm=f"{attention}.k_norm.weight" if head_norms else None,
        q_bias=f"{attention}.q_proj.bias" if qkv_biases else None,
        k_bias=f"{attention}.k_proj.bias" if qkv_biases else None,
        v_bias=f"{attention}.v_proj.bias" if qkv_biases else None,
    )
