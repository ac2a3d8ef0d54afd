"""A checkpoint's config as the installed transformers reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers
from transformers import Qwen3Config

from .config import RopeSettings


def transformers_config(raw: Mapping[str, Any], rope: RopeSettings) -> Qwen3Config:
    """The config of `raw` with rope in the spelling of the installed transformers."""
    fields = dict(raw)
    fields.pop("rope_parameters", None)
    fields.pop("rope_scaling", None)
    fields.pop("rope_theta", None)
    if int(transformers.__version__.split(".")[0]) >= 5:
        fields["rope_parameters"] = {"rope_theta": rope.theta, **rope.scaling}
    else:
        fields["rope_theta"] = rope.theta
        fields["rope_scaling"] = dict(rope.scaling) if rope.kind != "default" else None
    return Qwen3Config.from_dict(fields)
