"""Which files and keys beside the weights decide what a model computes, and what an export does with each.

The tables are allow lists: a key that may change the function is applied, or must have a neutral value, or is rejected
by name. A key that no table knows is rejected or reported, never silently ignored. The page "What is read from a
checkpoint" of the documentation is generated from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..errors import UnsupportedCheckpointError
from .adapter_forms import MERGE_FIRST, NOT_WEIGHTS
from .quantized.forms import EXPORT_ORIGINAL
from .stated_numbers import shorten


class Treatment(StrEnum):
    """What an export does with a file or a key."""

    APPLIED = "applied"
    NEUTRAL = "ignored: it does not change what the model computes"
    CHECKED = "must be neutral, otherwise rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The treatment of one key, or of several that are treated alike."""

    keys: tuple[str, ...]
    treatment: Treatment
    note: str
    """What is done with it, or why it does not matter; of a checked key, which values are neutral."""
    is_neutral: Callable[[Any], bool] = lambda value: not value
    """Of a checked key: whether the value changes nothing."""
    remedy: str = ""
    """Of a checked key: what to do about another value."""


def applied(*keys: str, note: str) -> Rule:
    """Return the rule of keys that are applied."""
    return Rule(keys=keys, treatment=Treatment.APPLIED, note=note)


def neutral(*keys: str, note: str) -> Rule:
    """Return the rule of keys that do not matter."""
    return Rule(keys=keys, treatment=Treatment.NEUTRAL, note=note)


def checked(*keys: str, note: str, remedy: str, is_neutral: Callable[[Any], bool] = lambda value: not value) -> Rule:
    """Return the rule of keys whose values must be neutral."""
    return Rule(keys=keys, treatment=Treatment.CHECKED, note=note, remedy=remedy, is_neutral=is_neutral)


def check_keys(raw: Mapping[str, Any], rules: Iterable[Rule], where: str) -> list[str]:
    """Check the keys of a JSON object and return those that no rule knows and that have a value.

    Raises:
        UnsupportedCheckpointError: A checked key has a value that is not neutral; `where` names the file.
    """
    known = {key: rule for rule in rules for key in rule.keys}
    for key, value in raw.items():
        rule = known.get(key)
        if rule is not None and rule.treatment is Treatment.CHECKED and not rule.is_neutral(value):
            raise UnsupportedCheckpointError(f"{where}: {key} {shorten(value)} is not supported; {rule.remedy}")
    return [key for key, value in raw.items() if key not in known and value not in (None, False, [], {}, "")]


def require_known_keys(raw: Mapping[str, Any], rules: Iterable[Rule], where: str) -> None:
    """Check the keys of a JSON object; raise UnsupportedCheckpointError for one that no rule knows, too."""
    for key in check_keys(raw, rules, where):
        raise UnsupportedCheckpointError(f"{where}: {key} {shorten(raw[key])} is not known and may change the result")


_UNCHANGED_BASE = (True, False, None, "true", "false", "gaussian", "eva", "orthogonal", "mica")
_CHANGED_BASE = ("pissa", "olora", "corda", "lora_ga")


def changes_base(init: Any) -> bool:
    """Whether an initialization of PEFT moves a part of the base into the adapter, from which it can be recovered."""
    return isinstance(init, str) and init.lower().replace("-", "_").startswith(_CHANGED_BASE)


def _is_known_init(init: Any) -> bool:
    return changes_base(init) or (init.lower() if isinstance(init, str) else init) in _UNCHANGED_BASE


ADAPTER_RULES = (
    applied("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", note="scaling of B·A for each module"),
    applied("use_dora", note="the tensors have a magnitude for each row"),
    applied("bias", "lora_bias", note="biases of modules that have one"),
    applied("trainable_token_indices", note="rows of the embeddings that the adapter replaces"),
    applied("modules_to_save", note="the tensors that the adapter holds whole replace those of the base"),
    applied("task_type", note="SEQ_CLS and FEATURE_EXTRACTION decide the task"),
    applied(
        "base_model_name_or_path",
        "revision",
        note="recognizes Qwen3-Embedding; a note says so if it names another model than the base",
    ),
    checked(
        "peft_type",
        note="LORA",
        remedy="only LORA is supported; " + MERGE_FIRST,
        is_neutral=lambda value: value == "LORA",
    ),
    checked(
        "init_lora_weights",
        note="true, false, gaussian, eva, orthogonal, mica; with their initial adapter also pissa, olora, corda, "
        "lora_ga",
        remedy="its base may have been changed as well; " + MERGE_FIRST,
        is_neutral=_is_known_init,
    ),
    checked("alora_invocation_tokens", "arrow_config", note="off: they choose by the input", remedy=NOT_WEIGHTS),
    checked(
        "layer_replication", "use_qalora", note="off: their base is another model", remedy="its base is another model"
    ),
    checked(
        "kasa_config",
        "megatron_config",
        "monteclora_config",
        "target_parameters",
        "use_bdlora",
        note="off: with them an adapter is more than W + scaling · B·A",
        remedy=MERGE_FIRST,
    ),
    neutral(
        "auto_mapping",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "runtime_config",
        "target_modules",
        "velora_config",
        note="of training, or visible in the tensors themselves",
    ),
    neutral("lora_dtype", "lorap_emb_lr", "lorap_lr_ratio", note="ms-swift's, of training"),
)
"""Keys of `adapter_config.json`. Unknown keys with a value are rejected."""


CONFIG_RULES = (
    applied("model_type", "architectures", note="choose the architecture and its head"),
    applied(
        "head_dim",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "vocab_size",
        note="shapes; the tensors must have them",
    ),
    applied("rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta", note="norms and rotary embedding"),
    applied("tie_word_embeddings", "id2label", note="head of a reranker"),
    applied("is_causal", note="false: attention is bidirectional, as in transformers from 5.2 on; for a CPU only"),
    applied(
        "layer_types",
        "max_window_layers",
        "sliding_window",
        "use_sliding_window",
        note="a window that applies to a layer limits max_tokens",
    ),
    checked(
        "hidden_act",
        note="silu",
        remedy="only silu is supported",
        is_neutral=lambda value: value in (None, "silu", "swish"),
    ),
    checked(
        "bidirectional",
        "bidirectional_attention",
        "is_bidirectional",
        "use_bidirectional_attention",
        "use_bidirectional_attn",
        note="false or absent",
        remedy="transformers does not know it; if attention is bidirectional, set is_causal to false instead",
    ),
    checked(
        "auto_map",
        note="no custom model class",
        remedy="custom model code is never run; remove auto_map if the code only repeats the architecture",
        is_neutral=lambda value: (
            isinstance(value or {}, dict) and not any(name.startswith("AutoModel") for name in value or {})
        ),
    ),
    applied("quantization_config", "compression_config", note="the weights are dequantized or rejected by their form"),
    checked("quantization", note="absent", remedy="the weights are quantized by MLX; " + EXPORT_ORIGINAL),
    checked(
        "add_cross_attention",
        "is_encoder_decoder",
        "mlp_bias",
        "pruned_heads",
        note="off",
        remedy="it is not part of the architecture",
    ),
    neutral(
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_name_or_path",
        "attention_dropout",
        "bos_token_id",
        "chunk_size_feed_forward",
        "classifier_dropout",
        "dtype",
        "eos_token_id",
        "finetuning_task",
        "initializer_range",
        "is_decoder",
        "label2id",
        "model_name",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "task_specific_params",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "unsloth_fixed",
        "unsloth_version",
        "use_cache",
        note="of training, generation, or the way of loading",
    ),
    neutral("attention_bias", note="given by the architecture, which rejects what it does not have"),
    neutral("sentence_transformers", note="version and activation of a CrossEncoder; scores are always sigmoids"),
)
"""Keys of `config.json`. Unknown keys with a value are reported."""


POOLING_RULES = (
    applied(
        "pooling_mode",
        "pooling_mode_lasttoken",
        "pooling_mode_mean_tokens",
        note="one of the two modes; others are rejected",
    ),
    checked(
        "pooling_mode_cls_token",
        "pooling_mode_max_tokens",
        "pooling_mode_mean_sqrt_len_tokens",
        "pooling_mode_weightedmean_tokens",
        note="false or absent",
        remedy="only lasttoken and mean are supported",
    ),
    checked(
        "include_prompt",
        note="true or absent",
        remedy="pooling includes the prompt",
        is_neutral=lambda value: value is None or value is True,
    ),
    neutral("embedding_dimension", "word_embedding_dimension", note="given by the decoder"),
)
"""Keys of a Pooling module's `config.json`. Unknown keys with a value are rejected."""


_POOLED = "sentence_embedding"
"""What sentence-transformers calls the pooled state."""

DENSE_RULES = (
    applied("in_features", "out_features", "bias", note="shapes; the tensors must have them"),
    applied("activation_function", note="Identity or Tanh of torch.nn; Tanh if absent; others are rejected"),
    checked(
        "module_input_name",
        "module_output_name",
        note=f"{_POOLED} or absent",
        remedy="only a Dense module that replaces the pooled state is supported",
        is_neutral=lambda value: value in (None, _POOLED),
    ),
    checked("use_residual", note="false or absent", remedy="only Dense modules without a residual are supported"),
)
"""Keys of a Dense module's `config.json`. Unknown keys with a value are rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRule:
    """What is read from one file beside the weights."""

    name: str
    treatment: str


FILE_RULES = (
    FileRule(name="config.json", treatment="shapes and settings of the decoder, from the base only; keys below"),
    FileRule(name="*.safetensors", treatment="weights; pickled weights are rejected"),
    FileRule(
        name="adapter_config.json, adapter_model.safetensors",
        treatment="of each adapter, keys below; beside a model's own weights they are rejected unless the folder is "
        "also passed as an adapter, because transformers would apply them",
    ),
    FileRule(
        name="tokenizer.json (or vocab.json and merges.txt), tokenizer_config.json",
        treatment="the tokenizer, which transformers converts if there is no tokenizer.json, its end token, and "
        "`model_max_length` if no other limit is stated; rejected if transformers reads other token ids than the file "
        "itself gives; `add_bos_token` and `add_eos_token` have no effect, as in transformers, and are reported where "
        "they ask for an end token that is not appended",
    ),
    FileRule(
        name="modules.json and the folders that it names",
        treatment="Transformer (also in a subfolder), Pooling of the last token or the mean, Dense with the weights in "
        "its folder, Normalize, and LogitScore of rerankers; other modules and other pooling are rejected; keys below",
    ),
    FileRule(
        name="config_sentence_transformers.json",
        treatment="prompts; rejected are `truncate_dim`, and a `default_prompt_name` that decides between calls; "
        "`similarity_fn_name` is ignored, because embeddings do not depend on it",
    ),
    FileRule(name="sentence_bert_config.json", treatment="`max_seq_length`"),
    FileRule(
        name="chat_template.jinja, or chat_template in tokenizer_config.json",
        treatment="of a reranker with LogitScore, if the template has a query and a document: becomes the pair "
        "template if both give the same token ids, otherwise rejected; other chat templates are ignored",
    ),
    FileRule(
        name="generation_config.json, special_tokens_map.json, trainer_state.json, README.md and others",
        treatment="ignored: they do not change what the model computes",
    ),
)
"""Files of a model or adapter folder, in the order of the documentation page."""
