"""The transformers classes of an architecture, which compute the reference."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .decoder_config import RopeSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersClasses:
    """Classes of one architecture, from `transformers.models.<architecture>`."""

    config: Any
    model: Any
    layer: Any
    norm: Any
    rotary: Any

    def make_config(self, raw: Mapping[str, Any], rope: RopeSettings) -> Any:
        """Return the config for `raw`, the content of config.json, with rope fields of the installed transformers."""
        import transformers

        fields = dict(raw)
        fields.pop("rope_parameters", None)
        fields.pop("rope_scaling", None)
        fields.pop("rope_theta", None)
        if int(transformers.__version__.split(".")[0]) >= 5:
            fields["rope_parameters"] = {"rope_theta": rope.theta, **rope.scaling}
        else:
            fields["rope_theta"] = rope.theta
            fields["rope_scaling"] = dict(rope.scaling) if rope.kind != "default" else None
        return self.config.from_dict(fields)


def import_classes(name: str, model_type: str) -> TransformersClasses:
    """Import the classes of `transformers.models.<model_type>` whose names start with `name`; takes seconds."""
    modeling = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    configuration = importlib.import_module(f"transformers.models.{model_type}.configuration_{model_type}")
    return TransformersClasses(
        config=getattr(configuration, f"{name}Config"),
        model=getattr(modeling, f"{name}Model"),
        layer=getattr(modeling, f"{name}DecoderLayer"),
        norm=getattr(modeling, f"{name}RMSNorm"),
        rotary=getattr(modeling, f"{name}RotaryEmbedding"),
    )
