"""Parse and validate the fields of config.json that determine the graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..architectures import ARCHITECTURES, Architecture, DecoderConfig, RopeSettings
from ..errors import SourceError, UnsupportedCheckpointError

_ROPE_TYPES = ("default", "linear", "yarn", "llama3")


def read_json(file: Path) -> dict[str, Any]:
    """Read the JSON object in `file`; raise SourceError if it is missing or not an object."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise SourceError(f"{file}: not readable as JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise SourceError(f"{file}: not a JSON object")
    return value


def parse_config(raw: Mapping[str, Any], where: str) -> DecoderConfig:
    """Parse `raw`, the content of config.json; `where` names the file in errors.

    Raises UnsupportedCheckpointError for anything that the graph would compute wrongly; see also `setting_rules`.
    """

    def refuse(what: str) -> UnsupportedCheckpointError:
        return UnsupportedCheckpointError(f"{where}: {what}")

    architecture = _find_architecture(raw.get("model_type"))
    if architecture is None:
        supported = " and ".join(known.model_type for known in ARCHITECTURES)
        raise refuse(f"model_type is '{raw.get('model_type')}'; only {supported} are supported")
    model_class = (raw.get("architectures") or [architecture.model_classes[0]])[0]
    if model_class not in architecture.model_classes:
        raise refuse(
            f"architecture '{model_class}' is not supported; supported: {', '.join(architecture.model_classes)}"
        )
    rejected = architecture.reject(raw)
    if rejected is not None:
        raise refuse(rejected)
    try:
        return DecoderConfig(
            architecture=architecture,
            model_class=model_class,
            layers=int(raw["num_hidden_layers"]),
            hidden=int(raw["hidden_size"]),
            intermediate=int(raw["intermediate_size"]),
            heads=int(raw["num_attention_heads"]),
            kv_heads=int(raw.get("num_key_value_heads") or raw["num_attention_heads"]),
            head_dim=int(raw.get("head_dim") or architecture.default_head_dim(raw)),
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


def _find_architecture(model_type: object) -> Architecture | None:
    return next((known for known in ARCHITECTURES if known.model_type == model_type), None)


def _parse_rope(raw: Mapping[str, Any], where: str) -> RopeSettings:
    parameters = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    theta = parameters.pop("rope_theta", None) or raw.get("rope_theta")
    if theta is None:
        raise UnsupportedCheckpointError(f"{where}: rope_theta and rope_parameters['rope_theta'] are missing")
    kind = parameters.pop("type", None)
    parameters.setdefault("rope_type", kind or "default")
    if parameters["rope_type"] not in _ROPE_TYPES:
        raise UnsupportedCheckpointError(
            f"{where}: rope type '{parameters['rope_type']}' is not supported; supported: {', '.join(_ROPE_TYPES)}"
        )
    return RopeSettings(theta=float(theta), scaling=parameters)


def _parse_window(raw: Mapping[str, Any]) -> int | None:
    """Return the window of the sliding layers, in tokens; None if no layer slides."""
    layers, kinds = int(raw["num_hidden_layers"]), raw.get("layer_types")
    if kinds:
        return int(raw["sliding_window"]) if "sliding_attention" in kinds[:layers] else None
    # transformers lets the layers from max_window_layers on slide, if there is a window
    slides = raw.get("use_sliding_window") and int(raw.get("max_window_layers") or 0) < layers
    return int(raw["sliding_window"]) if slides and raw.get("sliding_window") else None
