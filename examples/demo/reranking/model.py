"""Configuration of the reranker, and its forward pass for many pairs with a shared prefix.

Shapes: B rows, P prefix tokens, T tokens of the longest row, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import Qwen3Config, Qwen3ForCausalLM

from examples.demo.batches import pad
from examples.demo.evaluation import FloatArray
from examples.demo.model import VOCABULARY_ROWS
from examples.demo.reranking.tokens import PairRows

HIDDEN_SIZE = 256
LAYERS = 3
HEADS = 6
KEY_HEADS = 3
HEAD_DIM = 64
ROPE_THETA = 1e6
_ROWS_AT_ONCE = 48


def new_reranker(seed: int) -> Qwen3ForCausalLM:
    """Return an untrained reranker, configured like the embedding model but with half of its MLP."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY_ROWS,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=384,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        use_cache=False,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
    )
    return Qwen3ForCausalLM(config)


def score_logits(model: Qwen3ForCausalLM, pairs: PairRows, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the logit of yes minus that of no, float32 [B], for rows after the shared prefix.

    The result equals a forward pass of the model over prefix + row, but the prefix is computed once, and the last layer
    only for the last token.
    """
    batch = pad(rows, pairs.end)
    count, width = batch.ids.shape
    table = model.model.embed_tokens.weight
    prefix, states = table[torch.tensor([pairs.prefix])], table[batch.ids]
    before = prefix.shape[1]
    rotations = _rotations(before + width)
    causal = torch.ones(before + width, before + width, dtype=torch.bool).tril()
    layers: Any = model.model.layers
    for index, layer in enumerate(layers):
        attention = layer.self_attn
        normed_prefix, normed = layer.input_layernorm(prefix), layer.input_layernorm(states)
        prefix_keys, prefix_values = _keys_values(attention, normed_prefix, rotations[:, :before])
        keys, values = _keys_values(attention, normed, rotations[:, before:])
        keys = torch.cat([prefix_keys.expand(count, -1, -1, -1), keys], 2)
        values = torch.cat([prefix_values.expand(count, -1, -1, -1), values], 2)
        if index + 1 == len(layers):
            at = torch.arange(count), batch.last
            last_rotations = rotations[:, before + batch.last][:, :, None, None]
            visible = (torch.arange(before + width) <= before + batch.last[:, None])[:, None, None]
            states = states[at][:, None] + _attend(
                attention, normed[at][:, None], keys, values, last_rotations, visible
            )
        else:
            prefix = prefix + _attend(
                attention, normed_prefix, prefix_keys, prefix_values, rotations[:, :before], causal[:before, :before]
            )
            prefix = prefix + layer.mlp(layer.post_attention_layernorm(prefix))
            states = states + _attend(attention, normed, keys, values, rotations[:, before:], causal[before:])
        states = states + layer.mlp(layer.post_attention_layernorm(states))
    difference = table[pairs.answers.yes] - table[pairs.answers.no]
    # a matrix product would be rounded to bfloat16 in training
    logits: Tensor = (model.model.norm(states[:, 0]).float() * difference.float()).sum(-1)
    return logits


def _rotations(positions: int) -> Tensor:
    """Return cosines and sines of the rotary angles, [2, positions, head_dim]."""
    frequencies = ROPE_THETA ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angles = torch.arange(positions)[:, None] * frequencies
    angles = torch.cat([angles, angles], -1)
    return torch.stack([angles.cos(), angles.sin()])


def _rotate(heads: Tensor, rotations: Tensor) -> Tensor:
    half = heads.shape[-1] // 2
    rotated_half = torch.cat([-heads[..., half:], heads[..., :half]], -1)
    return heads * rotations[0] + rotated_half * rotations[1]


def _keys_values(attention: Any, normed: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
    shape = (*normed.shape[:2], KEY_HEADS, HEAD_DIM)
    keys = attention.k_norm(attention.k_proj(normed).view(shape)).transpose(1, 2)
    values = attention.v_proj(normed).view(shape).transpose(1, 2)
    return _rotate(keys, rotations).to(values.dtype), values


def _attend(attention: Any, normed: Tensor, keys: Tensor, values: Tensor, rotations: Tensor, visible: Tensor) -> Tensor:
    """Return the output of attention [B, queries, H]; query heads are grouped by key head."""
    count, width = normed.shape[:2]
    group = HEADS // KEY_HEADS
    queries = attention.q_norm(attention.q_proj(normed).view(count, width, HEADS, HEAD_DIM)).transpose(1, 2)
    queries = _rotate(queries, rotations).to(values.dtype).reshape(count, KEY_HEADS, group * width, HEAD_DIM)
    mask = torch.cat([visible] * group, -2)
    attended = scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    attended = attended.view(count, HEADS, width, HEAD_DIM).transpose(1, 2).reshape(count, width, HEADS * HEAD_DIM)
    output: Tensor = attention.o_proj(attended)
    return output


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranker:
    """Scores (query, document) pairs with torch, in the precision of the model."""

    model: Qwen3ForCausalLM
    pairs: PairRows

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """Return the logit of yes minus that of no, float32 [n], which ranks like the score."""
        rows = self.pairs.rows(pairs)
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            chosen = order[start : start + _ROWS_AT_ONCE]
            scores[chosen] = score_logits(self.model, self.pairs, [rows[index] for index in chosen]).numpy()
        return scores


def load_reranker(folder: Path) -> Reranker:
    """Load a written reranker in float32."""
    model = Qwen3ForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    model.eval()  # type: ignore[no-untyped-call]
    return Reranker(model=model, pairs=PairRows(Tokenizer.from_file(str(folder / "tokenizer.json"))))
