"""Whether checkpoints are versions of one model, so that the weights of one mean something in the others.

Compared is what decides what the weights compute: shapes, norms, rope, heads, tokenizer, pooling and prompts. The first
checkpoint's files apply to the result, so that another one may lack a file, but not have one that the first lacks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...client.manifest.input_files import describe_error, read_whole
from ...client.manifest.panics import panics_as_errors
from ..architectures import LM_HEAD, SCORE_HEAD, DecoderConfig
from ..errors import SourceError
from .checkpoint import Checkpoint
from .config import read_json
from .cross_encoder import LOGIT_SCORE
from .modules import MODULES_FILE, TRANSFORMER, Module, read_modules
from .precedence import setting_files
from .sentence_transformers import PROMPTS_FILE, pooling_modes, read_prompts
from .setting_files import SettingFiles
from .stated_numbers import shorten
from .tokenizer import TOKENIZER_FILE

_FUSABLE = (TRANSFORMER, "Pooling", "Normalize", LOGIT_SCORE)
"""Modules whose only weights are those of the transformer."""


def differences(first: Checkpoint, other: Checkpoint) -> list[str]:
    """Return what makes `other` another model than `first`, one line each; empty if they are versions of one model.

    Raises:
        SourceError: A file cannot be read.
    """
    return [
        *_compare(_config_facts(first.config), _config_facts(other.config)),
        *_head_differences(first, other),
        *_file_differences(setting_files(first, []), setting_files(other, [])),
    ]


def base_differences(first: Checkpoint, base: Checkpoint) -> list[str]:
    """Return what makes `base` another model than `first` as far as weights are concerned, one line each.

    Pooling, prompts and the end token may be those of another model; the tokens must have the same ids.

    Raises:
        SourceError: A file cannot be read.
    """
    ours, theirs = (setting_files(checkpoint, []).find(TOKENIZER_FILE) for checkpoint in (first, base))
    return [
        *_compare(_config_facts(first.config), _config_facts(base.config)),
        *_head_differences(first, base),
        *(_tokenizer_differences(ours, theirs, only=("model", "added_tokens")) if ours else []),
    ]


def missing_files(first: Checkpoint, other: Checkpoint) -> list[str]:
    """Return the files about tokenizer, modules and prompts that only `first` has."""
    ours, theirs = setting_files(first, []), setting_files(other, [])
    names = (TOKENIZER_FILE, MODULES_FILE, PROMPTS_FILE)
    return [name for name in names if ours.find(name) is not None and theirs.find(name) is None]


def _compare(first: dict[str, object], other: dict[str, object]) -> list[str]:
    return [
        f"{name} is {_show(other.get(name))} instead of {_show(first.get(name))}"
        for name in first | other
        if first.get(name) != other.get(name)
    ]


def _show(value: object) -> str:
    return "not stated" if value is None else shorten(value)


def _config_facts(config: DecoderConfig) -> dict[str, object]:
    """Return the settings that decide what the weights compute, by their names in config.json."""
    return {
        "model_type": config.architecture.model_type,
        "num_hidden_layers": config.layers,
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope.theta,
        "sliding_window": config.sliding_window,
    } | {f"rope {key}": value for key, value in config.rope.scaling.items() if value is not None}


def _head_differences(first: Checkpoint, other: Checkpoint) -> list[str]:
    found = _compare(_score_head(first), _score_head(other))
    own = LM_HEAD in first.weights and not first.config.tied
    if own and (other.config.tied or LM_HEAD not in other.weights):
        return [*found, f"{LM_HEAD} is {'tied to the embeddings' if other.config.tied else 'missing'}"]
    if first.config.tied and first.config.is_causal_lm and LM_HEAD in other.weights and not other.config.tied:
        return [*found, f"{LM_HEAD} is not tied to the embeddings"]
    return found


def _score_head(checkpoint: Checkpoint) -> dict[str, object]:
    head = checkpoint.weights.get(SCORE_HEAD)
    if head is None:
        return {}
    labels = checkpoint.raw_config.get("id2label") or {str(row): f"LABEL_{row}" for row in range(head.shape[0])}
    return {f"shape of {SCORE_HEAD}": list(head.shape), "id2label": labels}


def _file_differences(first: SettingFiles, other: SettingFiles) -> list[str]:
    return [
        *_tokenizer_differences(first.find(TOKENIZER_FILE), other.find(TOKENIZER_FILE)),
        *_module_differences(first, other),
        *_prompt_differences(first.find(PROMPTS_FILE), other.find(PROMPTS_FILE)),
    ]


def _tokenizer_differences(first: Path | None, other: Path | None, only: tuple[str, ...] | None = None) -> list[str]:
    if other is None:
        return []
    if first is None:
        return [f"it has {TOKENIZER_FILE}, which the first lacks"]
    if _read(first) == _read(other):
        return []
    ours, theirs = _read_tokenizer(first), _read_tokenizer(other)
    parts = [part for part in only or ours | theirs if ours.get(part) != theirs.get(part)]
    return [f"{TOKENIZER_FILE} has another {' and '.join(parts)}"] if parts else []


def _read(file: Path) -> bytes:
    try:
        return read_whole(file)
    except OSError as exc:
        raise SourceError(f"{file}: not readable ({describe_error(exc)})") from exc


def _read_tokenizer(file: Path) -> dict[str, Any]:
    """Return the tokenizer without padding and truncation, in the notation of the installed library."""
    try:
        with panics_as_errors():
            tokenizer = Tokenizer.from_file(str(file))
            tokenizer.no_padding()
            tokenizer.no_truncation()
            parts: dict[str, Any] = json.loads(tokenizer.to_str())
    except Exception as exc:
        raise SourceError(f"{file}: not readable as a tokenizer ({exc})") from exc
    return parts


def _module_differences(first: SettingFiles, other: SettingFiles) -> list[str]:
    if other.find(MODULES_FILE) is None:
        return _unknown_modules(read_modules(first))
    if first.find(MODULES_FILE) is None:
        return [f"it has {MODULES_FILE}, which the first lacks"]
    ours, theirs = read_modules(first), read_modules(other)
    found = _unknown_modules(ours) or _compare(
        {MODULES_FILE: [_describe(module) for module in ours]}, {MODULES_FILE: [_describe(module) for module in theirs]}
    )
    if not found and any(module.kind == LOGIT_SCORE for module in ours) and _template(first) != _template(other):
        return ["it has another chat template"]
    return found


def _unknown_modules(modules: list[Module]) -> list[str]:
    kinds = [module.kind for module in modules if module.kind not in _FUSABLE]
    return [f"{MODULES_FILE} has '{kind}', whose weights are not fused" for kind in kinds]


def _describe(module: Module) -> str:
    """Return the module's kind and what it states about the result."""
    file = module.directory / "config.json"
    if module.kind == "Pooling":
        pooling = read_json(file)
        prompt = "" if pooling.get("include_prompt", True) else " without the prompt"
        return f"Pooling of {' + '.join(pooling_modes(pooling)) or 'nothing'}{prompt}"
    if module.kind == LOGIT_SCORE:
        answers = read_json(file)
        return f"{LOGIT_SCORE} of {answers.get('true_token_id')} and {answers.get('false_token_id')}"
    return module.kind


def _template(files: SettingFiles) -> object:
    """Return the chat template."""
    file = files.find("chat_template.jinja")
    if file is not None:
        return _read(file)
    config = files.find("tokenizer_config.json")
    stated = None if config is None else read_json(config).get("chat_template")
    return stated.encode() if isinstance(stated, str) else stated


def _prompt_differences(first: Path | None, other: Path | None) -> list[str]:
    if other is None:
        return []
    ours = {} if first is None else _prompts(first)
    return [f"the prompt {line}" for line in _compare(ours, _prompts(other))]


def _prompts(file: Path) -> dict[str, object]:
    """Return the prompts that are not empty, and which of them is the default."""
    stated = read_json(file)
    prompts: dict[str, object] = {f"'{name}'": text for name, text in read_prompts(stated, str(file)).items() if text}
    default = stated.get("default_prompt_name")
    return prompts | ({"by default": default} if default else {})
