"""A LoRA adapter folder of PEFT, checked as far as possible without its base."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...client.manifest import SourceIdentity
from ..errors import AdapterMismatchError, SourceError, UnsupportedCheckpointError
from .config import read_json
from .folder_kind import explain_adapter
from .modules import find_transformer
from .references import AdapterReference, resolve_directory
from .setting_rules import ADAPTER_RULES, check_keys
from .stated_numbers import StatedNumbers, shorten
from .weights import LazyTensor, hash_files, read_safetensors, remove_wrappers

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILE = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter; tensors have PEFT's names without the `base_model.model.` prefix."""

    reference: AdapterReference
    root: Path
    """Folder as given, with `modules.json` if there is one."""
    directory: Path
    """Folder of the weights: the root, or the subfolder that modules.json names."""
    settings: Mapping[str, Any]
    tensors: Mapping[str, LazyTensor]

    @property
    def task_type(self) -> str | None:
        """PEFT's task type, such as SEQ_CLS, CAUSAL_LM or FEATURE_EXTRACTION."""
        stated = self.settings.get("task_type")
        return None if stated is None else str(stated)

    @property
    def base_name(self) -> str | None:
        """Name of the base that it was trained on; None if not stated."""
        name = self.settings.get("base_model_name_or_path")
        return str(name) if name else None

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
        AdapterMismatchError: The weight in `reference` is 0 or not finite.
    """
    root = resolve_directory(reference.source)
    directory = find_transformer(root)
    explained = explain_adapter(directory)
    if explained is not None:
        raise SourceError(explained)
    settings = read_json(directory / CONFIG_FILE)
    _check_settings(settings, directory)
    tensors = {
        re.sub(r"^base_model\.model\.", "", remove_wrappers(name)): tensor
        for name, tensor in read_safetensors(directory, WEIGHT_FILE).items()
    }
    if not math.isfinite(reference.weight) or reference.weight == 0:
        raise AdapterMismatchError(f"adapter '{reference}': the weight must be a finite number other than 0")
    return Adapter(reference=reference, root=root, directory=directory, settings=settings, tensors=tensors)


def _check_settings(settings: Mapping[str, Any], directory: Path) -> None:
    where = str(directory / CONFIG_FILE)
    unknown = check_keys(settings, ADAPTER_RULES, where)
    if unknown:
        raise UnsupportedCheckpointError(
            f"{where}: {', '.join(sorted(unknown))} may change what the adapter computes and is not supported; "
            "merge it with PEFT first and export the result"
        )
    StatedNumbers(settings, where).size("r")
    StatedNumbers(settings, where).finite("lora_alpha")
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = settings.get(field) or {}
        if not isinstance(patterns, dict):
            raise UnsupportedCheckpointError(f"{where}: {field} is {shorten(patterns)}, not a JSON object")
        numbers = StatedNumbers(patterns, f"{where}: {field}")
        for pattern in patterns:
            if field == "rank_pattern":
                numbers.size(pattern)
            else:
                numbers.finite(pattern)
            _check_pattern(pattern, f"{where}: {field}")


def _check_pattern(pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as exc:
        raise UnsupportedCheckpointError(f"{where}: {shorten(pattern)} is not a regular expression ({exc})") from exc
