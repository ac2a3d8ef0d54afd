"""Writes a seeded random checkpoint of a given shape, complete enough for every exporter."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import Qwen3Config, Qwen3Model

from .model_shape import ModelShape
from .staging import written_once
from .workload import END_TOKEN_ID

MAX_POSITIONS = 32768
_FORMAT = 2
_SEED = 20
_END_TOKEN = "<|endoftext|>"


def cached_checkpoint(shape: ModelShape, cache: Path) -> Path:
    """Directory of the checkpoint of `shape` under `cache`, written where it is not there yet."""
    described = json.dumps([_FORMAT, _SEED, dataclasses.asdict(shape)])
    key = hashlib.sha256(described.encode()).hexdigest()[:12]
    return written_once(cache / "checkpoints" / key, lambda folder: _write(shape, folder))


def _write(shape: ModelShape, folder: Path) -> None:
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=MAX_POSITIONS,
        eos_token_id=END_TOKEN_ID,
    )
    torch.manual_seed(_SEED)
    tensors = {name: value.detach().contiguous() for name, value in Qwen3Model(config).state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", _plain_config(shape))
    _tokenizer().save(str(folder / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": _END_TOKEN,
        "pad_token": _END_TOKEN,
        "model_max_length": MAX_POSITIONS,
    }
    _write_json(folder / "tokenizer_config.json", tokenizer_config)


def _plain_config(shape: ModelShape) -> dict[str, object]:
    """config.json in the spelling that transformers 4 and 5 both read."""
    return {
        "architectures": ["Qwen3Model"],
        "model_type": "qwen3",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "torch_dtype": "float32",
        "eos_token_id": END_TOKEN_ID,
    }


def _tokenizer() -> Tokenizer:
    """One id a byte behind an end token of id 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {_END_TOKEN: END_TOKEN_ID} | {letter: index + 1 for index, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(_END_TOKEN, special=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END_TOKEN}", special_tokens=[(_END_TOKEN, END_TOKEN_ID)]
    )
    return tokenizer


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
