"""Small checkpoint folders with random weights and unusual shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Qwen2Config, Qwen2Model, Qwen3Config, Qwen3Model

END_TOKEN = "<|endoftext|>"
TURN_END_TOKEN = "<|im_end|>"
TOKENIZER_SIZE = 280
_TRAINING_TEXTS = ["the capital of the country is the city", "the query and the document, the answer and the text"]

_CLASSES: dict[str, tuple[Any, Any]] = {"qwen3": (Qwen3Config, Qwen3Model), "qwen2": (Qwen2Config, Qwen2Model)}

MODEL, CAUSAL, CLASSIFIER = "Qwen3Model", "Qwen3ForCausalLM", "Qwen3ForSequenceClassification"


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyCheckpoint:
    """Description of a checkpoint. The default has heads × head_dim ≠ hidden and two query heads per key head."""

    model_type: str = "qwen3"
    layers: int = 2
    hidden: int = 40
    intermediate: int = 56
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    vocabulary: int = 300
    max_positions: int = 256
    theta: float = 10000.0
    rope_scaling: Mapping[str, Any] = field(default_factory=dict)
    rope_spelling: str = "rope_theta"
    """`rope_theta` as transformers 4 writes it, or `rope_parameters` as transformers 5 does."""
    layout: str = MODEL
    tied: bool = True
    dtype: torch.dtype = torch.float32
    shards: int = 1
    seed: int = 0
    residual_shift: int = 0
    """k: embeddings, o_proj and down_proj are multiplied by 2^k."""
    intermediate_shift: int = 0
    """j: up_proj is multiplied by 2^j, down_proj by 2^-j."""
    gate_shift: int = 0
    """i: gate_proj is multiplied by 2^i, which changes the function."""
    head_scale: float = 1.0
    """Factor of the LM head, tied or not."""
    end_token: bool = True
    answers: bool = False
    """Whether the tokenizer has `no` and `yes` as tokens."""
    labels: int = 1
    """Rows of a classifier's head."""
    tokenizer_size: int = TOKENIZER_SIZE
    config_changes: Mapping[str, Any] = field(default_factory=dict)


def write_checkpoint(directory: Path, tiny: TinyCheckpoint | None = None) -> Path:
    """Create `directory` with config.json, weights and tokenizer, and return it."""
    tiny = tiny or TinyCheckpoint()
    directory.mkdir(parents=True)
    write_json(directory / "config.json", raw_config(tiny))
    write_weights(directory, stored_tensors(tiny), tiny.shards)
    write_tokenizer(directory, size=tiny.tokenizer_size, end_token=tiny.end_token, answers=tiny.answers)
    return directory


def write_json(file: Path, content: object) -> None:
    """Write `content` as JSON."""
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def raw_config(tiny: TinyCheckpoint) -> dict[str, Any]:
    """Return the content of config.json."""
    raw: dict[str, Any] = {
        "architectures": [tiny.layout.replace("Qwen3", tiny.model_type.capitalize())],
        "model_type": tiny.model_type,
        "head_dim": tiny.head_dim,
        "hidden_act": "silu",
        "hidden_size": tiny.hidden,
        "intermediate_size": tiny.intermediate,
        "max_position_embeddings": tiny.max_positions,
        "num_attention_heads": tiny.heads,
        "num_hidden_layers": tiny.layers,
        "num_key_value_heads": tiny.kv_heads,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tiny.tied,
        "vocab_size": tiny.vocabulary,
    }
    if tiny.model_type == "qwen3":
        raw["attention_bias"] = False
    if tiny.rope_spelling == "rope_parameters":
        raw["rope_parameters"] = {"rope_type": "default", "rope_theta": tiny.theta, **tiny.rope_scaling}
    else:
        raw["rope_theta"] = tiny.theta
        raw["rope_scaling"] = dict(tiny.rope_scaling) or None
    return raw | dict(tiny.config_changes)


def decoder_tensors(tiny: TinyCheckpoint) -> dict[str, torch.Tensor]:
    """Return random tensors of `tiny.dtype` with the names and shapes of the model in transformers."""
    config_class, model_class = _CLASSES[tiny.model_type]
    config = config_class(
        vocab_size=tiny.vocabulary,
        hidden_size=tiny.hidden,
        intermediate_size=tiny.intermediate,
        num_hidden_layers=tiny.layers,
        num_attention_heads=tiny.heads,
        num_key_value_heads=tiny.kv_heads,
        head_dim=tiny.head_dim,
    )
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in model_class(config).state_dict().items()}
    rng = torch.Generator().manual_seed(tiny.seed)
    tensors = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=rng)
        if name.endswith(".bias"):
            values = 0.5 * values
        elif len(shape) == 1:
            values = 1 + 0.3 * values
        else:
            values = values * (1.5 if "embed" in name else 1.5 * shape[1] ** -0.5)
        values = values * (tiny.head_scale if name == "embed_tokens.weight" else 1.0)
        tensors[name] = (values.to(tiny.dtype) * 2.0 ** _shift(name, tiny)).contiguous()
    return tensors


def _shift(name: str, tiny: TinyCheckpoint) -> int:
    if name.endswith("up_proj.weight"):
        return tiny.intermediate_shift
    if name.endswith("gate_proj.weight"):
        return tiny.gate_shift
    if name.endswith("down_proj.weight"):
        return tiny.residual_shift - tiny.intermediate_shift
    return tiny.residual_shift if name.endswith("o_proj.weight") or name == "embed_tokens.weight" else 0


def stored_tensors(tiny: TinyCheckpoint) -> dict[str, torch.Tensor]:
    """Return the tensors with the names of `tiny.layout`, including its head."""
    decoder = decoder_tensors(tiny)
    if tiny.layout == MODEL:
        return decoder
    stored = {f"model.{name}": tensor for name, tensor in decoder.items()}
    rng = torch.Generator().manual_seed(tiny.seed + 1)
    if tiny.layout == CLASSIFIER:
        stored["score.weight"] = torch.randn(tiny.labels, tiny.hidden, generator=rng).to(tiny.dtype)
    elif not tiny.tied:
        head = torch.randn(tiny.vocabulary, tiny.hidden, generator=rng) * tiny.head_scale
        stored["lm_head.weight"] = head.to(tiny.dtype)
    return stored


def write_weights(directory: Path, tensors: Mapping[str, torch.Tensor], shards: int = 1) -> None:
    """Write model.safetensors, or several shards with an index."""
    if shards == 1:
        save_file(dict(tensors), directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(tensors)
    files: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        stored = {name: tensors[name] for name in names[shard::shards]}
        save_file(stored, directory / file, metadata={"format": "pt"})
        files |= dict.fromkeys(stored, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(directory / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": files})


def write_tokenizer(
    directory: Path, *, size: int = TOKENIZER_SIZE, end_token: bool = True, answers: bool = False
) -> None:
    """Write a byte-level BPE tokenizer of `size` ids, optionally with END_TOKEN appended and with `no` and `yes`."""
    words = ["no", "yes"] if answers else []
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2 - len(words),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TRAINING_TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (END_TOKEN, TURN_END_TOKEN)])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    if end_token:
        end_id = tokenizer.token_to_id(END_TOKEN)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END_TOKEN}", special_tokens=[(END_TOKEN, end_id)]
        )
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": TURN_END_TOKEN,
        "pad_token": END_TOKEN,
        "padding_side": "left",
        "model_max_length": 4096,
    }
    write_json(directory / "tokenizer_config.json", settings)
