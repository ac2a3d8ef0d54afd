"""A checkpoint directory, read lazily and checked against its own config."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...client.manifest import SourceIdentity
from ..errors import UnsupportedCheckpointError, list_keys
from .config import ModelConfig, parse_config, read_json
from .references import SourceReference, resolve_directory
from .weights import LazyTensor, Weights, hash_files, read_safetensors

WEIGHT_FILES = "model*.safetensors"
LM_HEAD, SCORE_HEAD = "lm_head.weight", "score.weight"
HEADS = (LM_HEAD, SCORE_HEAD)
"""Tensors that a causal LM or a classifier has besides the decoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A Qwen3 checkpoint with tensors under `Qwen3Model`'s names, whatever layout they were saved in."""

    source: SourceReference
    directory: Path
    raw_config: dict[str, Any]
    config: ModelConfig
    weights: Weights
    prefix: str
    """What stood before the decoder's names in the file: `model.` or nothing."""

    def identity(self) -> SourceIdentity:
        """The reference with the SHA-256 of its weights; reads every weight file once."""
        return SourceIdentity(reference=str(self.source), sha256=hash_files(sorted(self.directory.glob(WEIGHT_FILES))))

    def with_weights(self, weights: Weights) -> Checkpoint:
        """The same checkpoint with other tensors."""
        return dataclasses.replace(self, weights=weights)

    def stored_name(self, name: str) -> str:
        """The name of a tensor in this checkpoint's own layout."""
        return name if name in HEADS else self.prefix + name


def open_checkpoint(source: SourceReference) -> Checkpoint:
    """The checkpoint at `source`; no weight is read yet.

    Raises SourceError and UnsupportedCheckpointError, the latter listing tensors that are missing, unknown
    or of another shape than config.json says.
    """
    directory = resolve_directory(source)
    raw = read_json(directory / "config.json")
    config = parse_config(raw, str(directory / "config.json"))
    stored = read_safetensors(directory, WEIGHT_FILES)
    prefix = "model." if any(name.startswith("model.") for name in stored) else ""
    weights = {name if name in HEADS else name.removeprefix(prefix): tensor for name, tensor in stored.items()}
    _check_shapes(weights, config, directory)
    return Checkpoint(source=source, directory=directory, raw_config=raw, config=config, weights=weights, prefix=prefix)


def decoder_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor of a `Qwen3Model`; matrices are `[out, in]`."""
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (config.vocabulary, config.hidden),
        "norm.weight": (config.hidden,),
    }
    layer = {
        "input_layernorm": (config.hidden,),
        "self_attn.q_proj": (config.query_width, config.hidden),
        "self_attn.k_proj": (config.kv_width, config.hidden),
        "self_attn.v_proj": (config.kv_width, config.hidden),
        "self_attn.o_proj": (config.hidden, config.query_width),
        "self_attn.q_norm": (config.head_dim,),
        "self_attn.k_norm": (config.head_dim,),
        "post_attention_layernorm": (config.hidden,),
        "mlp.gate_proj": (config.intermediate, config.hidden),
        "mlp.up_proj": (config.intermediate, config.hidden),
        "mlp.down_proj": (config.hidden, config.intermediate),
    }
    for index in range(config.layers):
        shapes |= {f"layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


def _check_shapes(weights: dict[str, LazyTensor], config: ModelConfig, directory: Path) -> None:
    expected = decoder_shapes(config)
    missing = [name for name in expected if name not in weights]
    if missing:
        raise UnsupportedCheckpointError(f"{directory}: tensors are missing: {list_keys(missing)}")
    unknown = [name for name in weights if name not in expected and name not in HEADS]
    if unknown:
        raise UnsupportedCheckpointError(f"{directory}: tensors that no Qwen3 model has: {list_keys(unknown)}")
    if LM_HEAD in weights:
        expected[LM_HEAD] = (config.vocabulary, config.hidden)
    if SCORE_HEAD in weights:
        expected[SCORE_HEAD] = (weights[SCORE_HEAD].shape[0], config.hidden)
    wrong = [
        f"{name} {list(weights[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if weights[name].shape != shape
    ]
    if wrong:
        raise UnsupportedCheckpointError(f"{directory}: config.json says other shapes: {list_keys(wrong)}")
