"""Parse and validate the fields of config.json that determine the graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...client.manifest.input_files import describe_error, read_json_file
from ..architectures import ARCHITECTURES, Architecture, DecoderConfig, RopeSettings
from ..errors import SourceError, UnsupportedCheckpointError
from .stated_numbers import StatedNumbers, shorten

_ROPE_TYPES = ("default", "linear", "yarn", "llama3")
_ROPE_NUMBERS = (
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "high_freq_factor",
    "low_freq_factor",
    "mscale",
    "mscale_all_dim",
    "original_max_position_embeddings",
)


def read_json(file: Path) -> dict[str, Any]:
    """Read the JSON object in `file`; raise SourceError if it is missing or not an object."""
    try:
        value = read_json_file(file)
    except (OSError, ValueError) as exc:
        raise SourceError(f"{file}: not readable as JSON ({describe_error(exc)})") from exc
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
    classes = raw.get("architectures") or [architecture.model_classes[0]]
    model_class = classes[0] if isinstance(classes, list) else classes
    if model_class not in architecture.model_classes:
        raise refuse(
            f"architecture '{model_class}' is not supported; supported: {', '.join(architecture.model_classes)}"
        )
    rejected = architecture.reject(raw)
    if rejected is not None:
        raise refuse(rejected)
    numbers = StatedNumbers(raw, where)
    layers, hidden = numbers.size("num_hidden_layers"), numbers.size("hidden_size")
    heads = numbers.size("num_attention_heads")
    kv_heads = numbers.size("num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise refuse(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    return DecoderConfig(
        architecture=architecture,
        model_class=model_class,
        layers=layers,
        hidden=hidden,
        intermediate=numbers.size("intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=numbers.size("head_dim", default=architecture.default_head_dim(hidden, heads)),
        vocabulary=numbers.size("vocab_size"),
        max_positions=numbers.size("max_position_embeddings"),
        norm_eps=numbers.finite("rms_norm_eps", default=1e-6),
        tied=bool(raw.get("tie_word_embeddings", False)),
        rope=_parse_rope(raw, where),
        sliding_window=_parse_window(raw, numbers, layers),
        causal=_parse_causal(raw, where),
    )


def _find_architecture(model_type: object) -> Architecture | None:
    return next((known for known in ARCHITECTURES if known.model_type == model_type), None)


def _parse_rope(raw: Mapping[str, Any], where: str) -> RopeSettings:
    stated = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(stated, dict):
        raise UnsupportedCheckpointError(f"{where}: the rope settings are {shorten(stated)}, not a JSON object")
    parameters = dict(stated)
    theta = parameters.pop("rope_theta", None) or raw.get("rope_theta")
    if theta is None:
        raise UnsupportedCheckpointError(f"{where}: rope_theta and rope_parameters['rope_theta'] are missing")
    kind = parameters.pop("type", None)
    parameters.setdefault("rope_type", kind or "default")
    if parameters["rope_type"] not in _ROPE_TYPES:
        raise UnsupportedCheckpointError(
            f"{where}: rope type '{parameters['rope_type']}' is not supported; supported: {', '.join(_ROPE_TYPES)}"
        )
    numbers = StatedNumbers({"rope_theta": theta, **parameters}, where)
    for key in _ROPE_NUMBERS:
        if parameters.get(key) is not None:
            numbers.finite(key)
    return RopeSettings(theta=numbers.finite("rope_theta"), scaling=parameters)


def _parse_causal(raw: Mapping[str, Any], where: str) -> bool:
    stated = raw.get("is_causal")
    if not (stated is None or type(stated) is bool):
        raise UnsupportedCheckpointError(f"{where}: is_causal is {shorten(stated)}, not true or false")
    return stated is not False


def _parse_window(raw: Mapping[str, Any], numbers: StatedNumbers, layers: int) -> int | None:
    """Return the window of the sliding layers, in tokens; None if no layer slides."""
    kinds = raw.get("layer_types")
    if isinstance(kinds, list) and kinds:
        return numbers.size("sliding_window") if "sliding_attention" in kinds[:layers] else None
    # transformers lets the layers from max_window_layers on slide, if there is a window
    slides = raw.get("use_sliding_window") and numbers.size("max_window_layers", at_least=0, default=0) < layers
    return numbers.size("sliding_window") if slides and raw.get("sliding_window") else None
