"""A LoRA adapter folder of PEFT, checked as far as possible without its base."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...client.manifest import SourceIdentity
from ..errors import AdapterMismatchError, UnsupportedCheckpointError
from .config import read_json
from .references import AdapterReference, resolve_directory
from .weights import LazyTensor, hash_files, read_safetensors

WEIGHT_FILE = "adapter_model.safetensors"
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
_OTHER_FORMULAS = (
    "use_dora",
    "fan_in_fan_out",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
)
"""Settings of adapters that are not W + scaling · B·A."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter; tensors have PEFT's names without the `base_model.model.` prefix."""

    reference: AdapterReference
    directory: Path
    settings: Mapping[str, Any]
    tensors: Mapping[str, LazyTensor]

    @property
    def task_type(self) -> str | None:
        """PEFT's task type, such as SEQ_CLS, CAUSAL_LM or FEATURE_EXTRACTION."""
        stated = self.settings.get("task_type")
        return None if stated is None else str(stated)

    def identity(self) -> SourceIdentity:
        """Return the reference with the SHA-256 of the weights."""
        return SourceIdentity(
            reference=str(self.reference.source),
            sha256=hash_files([self.directory / WEIGHT_FILE]),
            weight=self.reference.weight,
        )

    def rank(self, module: str) -> int:
        """Return r of `module`: from `rank_pattern` if a pattern matches, else `r`, like PEFT."""
        return int(self._pattern("rank_pattern", module, self.settings["r"]))

    def scaling(self, module: str) -> float:
        """Return the factor of B·A: α/r, or α/√r for rsLoRA (arXiv:2312.03732)."""
        alpha = float(self._pattern("alpha_pattern", module, self.settings["lora_alpha"]))
        rank = self.rank(module)
        return alpha / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)

    def _pattern(self, field: str, module: str, default: float) -> float:
        for pattern, value in (self.settings.get(field) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return float(value)
        return default


def open_adapter(reference: AdapterReference) -> Adapter:
    """Open the adapter at `reference`. No weights are read yet.

    Raises:
        SourceError: The adapter does not exist or cannot be read.
        UnsupportedCheckpointError: The kind of adapter is not supported.
        AdapterMismatchError: The weight in `reference` is not finite.
    """
    directory = resolve_directory(reference.source)
    settings = read_json(directory / "adapter_config.json")
    _check_settings(settings, directory)
    tensors = {
        re.sub(r"^base_model\.model\.", "", name): tensor
        for name, tensor in read_safetensors(directory, WEIGHT_FILE).items()
    }
    if not math.isfinite(reference.weight):
        raise AdapterMismatchError(f"adapter '{reference}': the weight must be a finite number")
    return Adapter(reference=reference, directory=directory, settings=settings, tensors=tensors)


def _check_settings(settings: Mapping[str, Any], directory: Path) -> None:
    def refuse(what: str) -> UnsupportedCheckpointError:
        return UnsupportedCheckpointError(f"{directory / 'adapter_config.json'}: {what}")

    if settings.get("peft_type") != "LORA":
        raise refuse(f"peft_type '{settings.get('peft_type')}' is not supported, only LORA")
    if "r" not in settings or "lora_alpha" not in settings:
        raise refuse("r or lora_alpha is missing")
    for field in _OTHER_FORMULAS:
        if settings.get(field):
            raise refuse(f"{field} is not supported; merge it with PEFT first")
    if settings.get("bias", "none") != "none":
        raise refuse(f"bias '{settings['bias']}' is not supported; merge it with PEFT first")
    init = str(settings.get("init_lora_weights", True)).lower()
    if init.startswith(_BASE_CHANGING_INITS):
        raise refuse(
            f"init_lora_weights '{init}' changed the base as well; convert the adapter to plain LoRA by "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
