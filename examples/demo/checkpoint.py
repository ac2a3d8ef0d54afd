"""Files of the demo checkpoints and the adapter, in the layout of the published Qwen3 models."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen3ForCausalLM, Qwen3Model

from examples.demo.model import Embedder
from examples.demo.tasks import ADAPTER_TASK, BASE_TASK
from examples.demo.tokenizer import END_TOKEN, SPECIAL_TOKENS, TURN_END_TOKEN

CHECKPOINT = Path(__file__).with_name("checkpoint")
ADAPTER = Path(__file__).with_name("adapter")
RERANKER = Path(__file__).with_name("reranker")
LOG = Path(__file__).with_name("training_log.json")

_ADAPTER_README = """# LoRA adapter of the demo checkpoint

Tunes `../checkpoint` for a second task. Queries start with its instruction, documents have no prompt:

    Instruct: {instruction}
    Query:{{code}}

PEFT format, rank {rank}, on all linear layers. `../README.md` describes its training and evaluation.
"""


def write_checkpoint(model: Qwen3Model, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights in bfloat16, configuration, tokenizer and the sentence-transformers files."""
    _write_model(model, tokenizer, folder)
    _write_sentence_transformers_files(folder, model.config.hidden_size)


def write_reranker(model: Qwen3ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights in bfloat16, configuration and tokenizer, in the layout of Qwen3-Reranker."""
    _write_model(model, tokenizer, folder)


def _write_model(model: Qwen3Model | Qwen3ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    tensors = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name not in tied
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "config.json", _config(model, tokenizer))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(model, tokenizer))


def write_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter, with the path of the base model relative to it."""
    model.save_pretrained(str(folder))
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = f"../{CHECKPOINT.name}"
    _write_json(path, config)
    text = _ADAPTER_README.format(instruction=ADAPTER_TASK.value, rank=config["r"])
    (folder / "README.md").write_text(text, encoding="utf-8")


def load_embedder(checkpoint: Path = CHECKPOINT, adapter: Path | None = None) -> Embedder:
    """Load the checkpoint in float32, optionally with an adapter."""
    model: nn.Module = Qwen3Model.from_pretrained(str(checkpoint), dtype=torch.float32, attn_implementation="eager")
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    return Embedder(model=model, tokenizer=Tokenizer.from_file(str(checkpoint / "tokenizer.json")))


def _config(model: Qwen3Model | Qwen3ForCausalLM, tokenizer: Tokenizer) -> dict[str, object]:
    shape = model.config
    return {
        "architectures": [type(model).__name__],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id(END_TOKEN),
        "eos_token_id": tokenizer.token_to_id(TURN_END_TOKEN),
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "max_window_layers": shape.num_hidden_layers,
        "model_type": "qwen3",
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_key_value_heads": shape.num_key_value_heads,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": rope_theta(model),
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": False,
        "use_sliding_window": False,
        "vocab_size": shape.vocab_size,
    }


def rope_theta(model: Qwen3Model | Qwen3ForCausalLM) -> float:
    """Return the base of the rotary angles, whose attribute depends on the version of transformers."""
    parameters = getattr(model.config, "rope_parameters", None)
    return float(parameters["rope_theta"] if parameters else model.config.rope_theta)


def _tokenizer_config(model: Qwen3Model | Qwen3ForCausalLM, tokenizer: Tokenizer) -> dict[str, object]:
    added = {
        str(token_id): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for token_id, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [token for token in SPECIAL_TOKENS if token != END_TOKEN],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END_TOKEN,
        "errors": "replace",
        "model_max_length": model.config.max_position_embeddings,
        "pad_token": END_TOKEN,
        "padding_side": "left",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _write_sentence_transformers_files(folder: Path, hidden_size: int) -> None:
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{kind}" if index else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, kind in enumerate(kinds)
    ]
    pooling = {
        "word_embedding_dimension": hidden_size,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    }
    _write_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    _write_json(folder / "1_Pooling" / "config.json", pooling)
    _write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": BASE_TASK.prompt, "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
