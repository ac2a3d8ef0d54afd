"""Random checkpoints with a fixed seed, complete enough for every exporter."""

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
from .staging import write_once
from .text_tokenizer import TextTokenizer, parse_tokenizer
from .workload import END_TOKEN_ID

MAX_POSITIONS = 32768
_FORMAT = 2
_SEED = 20
_END_TOKEN = "<|endoftext|>"


def cached_checkpoint(shape: ModelShape, cache: Path, tokenizer: TextTokenizer | None = None) -> Path:
    """Return the folder of the checkpoint, writing it unless it is in the cache.

    Args:
        shape: shape of the decoder; its vocabulary is enlarged if `tokenizer` has more ids.
        cache: cache folder of the benchmarks.
        tokenizer: by default a byte-level tokenizer with one id per byte.
    """
    identity: list[object] = [_FORMAT, _SEED, dataclasses.asdict(shape)]
    if tokenizer is not None:
        info = tokenizer.info
        shape = dataclasses.replace(shape, vocabulary=max(shape.vocabulary, info.vocabulary))
        identity.append(info.sha256)
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    return write_once(cache / "checkpoints" / key, lambda folder: _write(shape, tokenizer or _byte_tokenizer(), folder))


def _write(shape: ModelShape, tokenizer: TextTokenizer, folder: Path) -> None:
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=MAX_POSITIONS,
        eos_token_id=tokenizer.end_token_id,
    )
    torch.manual_seed(_SEED)
    tensors = {name: value.detach().contiguous() for name, value in Qwen3Model(config).state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_companions(shape, folder, tokenizer)


def write_companions(
    shape: ModelShape, folder: Path, tokenizer: TextTokenizer | None = None, dtype: str = "float32"
) -> None:
    """Write config.json and the tokenizer's files, by default those of a byte-level tokenizer."""
    tokenizer = tokenizer or _byte_tokenizer()
    _write_json(folder / "config.json", _plain_config(shape, tokenizer.end_token_id, dtype))
    (folder / "tokenizer.json").write_bytes(tokenizer.content)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.end_token,
        "pad_token": tokenizer.end_token,
        "model_max_length": MAX_POSITIONS,
    }
    _write_json(folder / "tokenizer_config.json", tokenizer_config)


def _plain_config(shape: ModelShape, end_token_id: int, dtype: str) -> dict[str, object]:
    """Return a config.json that both transformers 4 and 5 can read."""
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
        "torch_dtype": dtype,
        "eos_token_id": end_token_id,
    }


def _byte_tokenizer() -> TextTokenizer:
    """Return a tokenizer whose end token has id 0, followed by one id per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {_END_TOKEN: END_TOKEN_ID} | {character: index + 1 for index, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(_END_TOKEN, special=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END_TOKEN}", special_tokens=[(_END_TOKEN, END_TOKEN_ID)]
    )
    return parse_tokenizer(tokenizer.to_str(pretty=True).encode())


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
