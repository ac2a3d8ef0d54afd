"""Checkpoint folders with random weights whose activations have the outliers of large models.

Outlier channels are created by function-preserving scaling: a few channels of both norms and of up are multiplied by 30
to 60, and the weights that read them divided by the same factor. Massive activations of the first token
(arXiv:2402.17762) are created by a neuron of an early MLP that is active only for the token at the start of every text
and writes values of thousands into two channels of the residual stream.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from tiny_checkpoint import TinyCheckpoint, decoder_tensors, raw_config, write_json, write_tokenizer, write_weights

FIRST_TOKEN = 7
"""First token of every row of `rows_with_first_token`; does not occur elsewhere."""
SHAPE = TinyCheckpoint(layers=4, hidden=256, intermediate=768, heads=4, kv_heads=2, head_dim=64, vocabulary=600)
CHANNELS = 6
_MASSIVE_LAYER = 1
_MASSIVE = 4000.0

Tensors = dict[str, torch.Tensor]


def realistic_tensors(seed: int = 0, shape: TinyCheckpoint = SHAPE) -> Tensors:
    """Return heavy-tailed weights of `shape`; the update of a layer is about as large as the stream."""
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, drawn in decoder_tensors(shape).items():
        values = torch.randn(drawn.shape, generator=rng)
        if drawn.dim() == 1:
            tensors[name] = torch.exp(0.3 * values)
            continue
        chi = torch.randn(12, *drawn.shape, generator=rng).square().sum(0)
        student = values / (chi / 10).sqrt()
        scale = 1.0 if name == "embed_tokens.weight" else (1.5 if "gate" in name else 1.0) / math.sqrt(drawn.shape[1])
        tensors[name] = student * scale
    return tensors


def with_outliers(tensors: Tensors, seed: int = 1) -> Tensors:
    """Scale CHANNELS of both norms' outputs and of up by 30 to 60, without changing the function."""
    rng = torch.Generator().manual_seed(seed)
    scaled = {name: values.clone() for name, values in tensors.items()}
    producers = {
        "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.up_proj": ("mlp.down_proj",),
    }
    layers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    for layer in sorted(layers):
        for producer, readers in producers.items():
            weight = scaled[f"layers.{layer}.{producer}.weight"]
            channels = torch.randperm(len(weight), generator=rng)[:CHANNELS]
            factor = 30 + 30 * torch.rand(CHANNELS, generator=rng)
            weight[channels] *= factor if weight.dim() == 1 else factor[:, None]
            for reader in readers:
                scaled[f"layers.{layer}.{reader}.weight"][:, channels] /= factor
    return scaled


def with_massive_first_token(tensors: Tensors, shape: TinyCheckpoint = SHAPE, seed: int = 2) -> Tensors:
    """Change the function so that FIRST_TOKEN writes about _MASSIVE into two channels of the stream."""
    changed = {name: values.clone() for name, values in tensors.items()}
    rng = torch.Generator().manual_seed(seed)
    sign, first, second = (int(channel) for channel in torch.randperm(shape.hidden, generator=rng)[:3])
    neuron = int(torch.randint(shape.intermediate, (1,), generator=rng))
    table = changed["embed_tokens.weight"]
    table[:, sign] = 0
    table[FIRST_TOKEN, sign] = 40
    for layer in range(_MASSIVE_LAYER + 1):
        changed[f"layers.{layer}.self_attn.o_proj.weight"][sign] = 0
        changed[f"layers.{layer}.mlp.down_proj.weight"][sign] = 0
    mlp = f"layers.{_MASSIVE_LAYER}.mlp"
    gain = float(changed[f"layers.{_MASSIVE_LAYER}.post_attention_layernorm.weight"][sign])
    for name in ("gate_proj", "up_proj"):
        row = changed[f"{mlp}.{name}.weight"][neuron]
        row *= 0.05
        row[sign] = 30 / (gain * math.sqrt(shape.hidden) * 0.85)
    down = changed[f"{mlp}.down_proj.weight"]
    down[:, neuron] *= 0.3
    down[first, neuron], down[second, neuron] = _MASSIVE / 900, -0.6 * _MASSIVE / 900
    return changed


def write_tensors(directory: Path, tensors: Tensors, shape: TinyCheckpoint = SHAPE) -> Path:
    """Create `directory` with config.json, `tensors` and a tokenizer, and return it."""
    directory.mkdir(parents=True)
    write_json(directory / "config.json", raw_config(shape))
    write_weights(directory, tensors)
    write_tokenizer(directory)
    return directory


def rows_with_first_token(count: int, seed: int, shape: TinyCheckpoint = SHAPE) -> list[list[int]]:
    """Return rows of 2 to 62 ids that start with FIRST_TOKEN."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 62, (count,), generator=rng).tolist()
    return [
        [FIRST_TOKEN, *(torch.randint(FIRST_TOKEN + 1, shape.vocabulary, (n,), generator=rng).tolist())]
        for n in lengths
    ]
