"""The part of a checkpoint's config.json that shapes the graph, validated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SourceError, UnsupportedCheckpointError

_ARCHITECTURES = ("Qwen3Model", "Qwen3ForCausalLM", "Qwen3ForSequenceClassification")
_ROPE_TYPES = ("default", "linear", "yarn", "llama3")


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeSettings:
    """Rotary embedding: base `theta` and the scaling fields of the checkpoint, without `rope_theta`."""

    theta: float
    scaling: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The rope type: default, linear, yarn or llama3."""
        return str(self.scaling.get("rope_type", "default"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shapes of a Qwen3 decoder; `heads × head_dim` need not be `hidden`."""

    architecture: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    max_positions: int
    norm_eps: float
    tied: bool
    """Whether the LM head is the table of token embeddings."""
    rope: RopeSettings
    sliding_window: int | None
    """Window of the layers that have one; None where every layer attends to everything before it."""

    @property
    def query_width(self) -> int:
        """heads × head_dim."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """kv_heads × head_dim."""
        return self.kv_heads * self.head_dim


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; raises SourceError where it is missing or no object."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise SourceError(f"{file}: not readable as JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise SourceError(f"{file}: not a JSON object")
    return value


def parse_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The model config in `raw`, the content of config.json; `where` names it in errors.

    Raises UnsupportedCheckpointError for anything that the graph would get wrong.
    """

    def refuse(what: str) -> UnsupportedCheckpointError:
        return UnsupportedCheckpointError(f"{where}: {what}")

    if raw.get("model_type") != "qwen3":
        raise refuse(f"model_type is '{raw.get('model_type')}'; only qwen3 is supported")
    architecture = (raw.get("architectures") or ["Qwen3Model"])[0]
    if architecture not in _ARCHITECTURES:
        raise refuse(f"architecture '{architecture}' is none of {', '.join(_ARCHITECTURES)}")
    if raw.get("attention_bias"):
        raise refuse("attention_bias is true; Qwen3 embedding models have none")
    if raw.get("hidden_act", "silu") != "silu":
        raise refuse(f"hidden_act is '{raw['hidden_act']}'; only silu is supported")
    if raw.get("quantization_config"):
        raise refuse("the weights are quantised; give the checkpoint in fp32, fp16 or bf16")
    try:
        return ModelConfig(
            architecture=architecture,
            layers=int(raw["num_hidden_layers"]),
            hidden=int(raw["hidden_size"]),
            intermediate=int(raw["intermediate_size"]),
            heads=int(raw["num_attention_heads"]),
            kv_heads=int(raw.get("num_key_value_heads") or raw["num_attention_heads"]),
            head_dim=int(raw.get("head_dim") or 128),
            vocabulary=int(raw["vocab_size"]),
            max_positions=int(raw["max_position_embeddings"]),
            norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            tied=bool(raw.get("tie_word_embeddings", False)),
            rope=_parse_rope(raw, where),
            sliding_window=_parse_window(raw),
        )
    except KeyError as exc:
        raise refuse(f"{exc} is missing") from exc
    except (TypeError, ValueError) as exc:
        raise refuse(f"a field is not a number ({exc})") from exc


def _parse_rope(raw: Mapping[str, Any], where: str) -> RopeSettings:
    parameters = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    theta = parameters.pop("rope_theta", None) or raw.get("rope_theta")
    if theta is None:
        raise UnsupportedCheckpointError(f"{where}: neither rope_theta nor rope_parameters['rope_theta'] is given")
    kind = parameters.pop("type", None)
    parameters.setdefault("rope_type", kind or "default")
    if parameters["rope_type"] not in _ROPE_TYPES:
        raise UnsupportedCheckpointError(
            f"{where}: rope type '{parameters['rope_type']}' depends on the length of the text; "
            f"supported: {', '.join(_ROPE_TYPES)}"
        )
    return RopeSettings(theta=float(theta), scaling=parameters)


def _parse_window(raw: Mapping[str, Any]) -> int | None:
    windowed = raw.get("use_sliding_window") and raw.get("sliding_window")
    windowed = windowed or "sliding_attention" in (raw.get("layer_types") or [])
    return int(raw["sliding_window"]) if windowed else None
