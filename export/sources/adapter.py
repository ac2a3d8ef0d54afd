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
from .adapter_forms import INITIAL_FOLDERS, MERGE_FIRST, SAVE_CONVERTED, explain_method
from .adapter_tensors import peft_key
from .config import read_json
from .folder_kind import explain_adapter
from .modules import find_transformer
from .references import AdapterReference, resolve_directory
from .setting_rules import ADAPTER_RULES, changes_base, check_keys
from .stated_numbers import StatedNumbers, shorten
from .weights import LazyTensor, hash_files, read_safetensors, reject_pickled

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILE = "adapter_model.safetensors"
PICKLED_FILE = "adapter_model.bin"


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
    initial: Mapping[str, LazyTensor] | None = None
    """Tensors as they were before training, of an adapter that began with a part of its base; else None."""
    initial_directory: Path | None = None

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
            sha256=hash_files([folder / WEIGHT_FILE for folder in (self.directory, self.initial_directory) if folder]),
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

    def trained_tokens(self, module: str) -> list[int] | None:
        """Return the ids of the embeddings' rows that the adapter trains in `module`, in the order of their values.

        An LM head that PEFT ties to the embeddings has no entry of its own.
        """
        stated = self.settings.get("trainable_token_indices")
        if not isinstance(stated, Mapping):
            return stated or None
        entries = [ids for name, ids in stated.items() if module == name or module.endswith(f".{name}")]
        return entries[0] if entries else next(iter(stated.values()), None)

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
    initial = _find_initial(settings, directory)
    if not math.isfinite(reference.weight) or reference.weight == 0:
        raise AdapterMismatchError(f"adapter '{reference}': the weight must be a finite number other than 0")
    return Adapter(
        reference=reference,
        root=root,
        directory=directory,
        settings=settings,
        tensors=_read_tensors(directory),
        initial=None if initial is None else _read_tensors(initial),
        initial_directory=initial,
    )


def _read_tensors(directory: Path) -> dict[str, LazyTensor]:
    reject_pickled(directory, PICKLED_FILE, WEIGHT_FILE)
    tensors: dict[str, LazyTensor] = {}
    for name, tensor in read_safetensors(directory, WEIGHT_FILE).items():
        key = peft_key(name)
        if key in tensors:
            raise UnsupportedCheckpointError(f"{directory / WEIGHT_FILE}: two tensors are called {key}")
        tensors[key] = tensor
    return tensors


def _find_initial(settings: Mapping[str, Any], directory: Path) -> Path | None:
    """Return the folder of the initial adapter, of an adapter that needs it."""
    init = settings.get("init_lora_weights")
    if not changes_base(init):
        return None
    parents = [directory, directory.parent] if directory.name.startswith("checkpoint-") else [directory]
    for folder in (parent / name for parent in parents for name in INITIAL_FOLDERS):
        if (folder / WEIGHT_FILE).is_file():
            return folder
    raise UnsupportedCheckpointError(
        f"{directory / CONFIG_FILE}: init_lora_weights {shorten(init)} changed the base as well when training began; "
        f"{SAVE_CONVERTED}, as {INITIAL_FOLDERS[0]} or {INITIAL_FOLDERS[-1]}"
    )


def _check_settings(settings: Mapping[str, Any], directory: Path) -> None:
    where = str(directory / CONFIG_FILE)
    method = settings.get("peft_type")
    if method != "LORA":
        raise UnsupportedCheckpointError(
            f"{where}: peft_type {shorten(method)} is not supported; {explain_method(method)}"
        )
    unknown = check_keys(settings, ADAPTER_RULES, where)
    if unknown:
        raise UnsupportedCheckpointError(
            f"{where}: {', '.join(sorted(unknown))} may change what the adapter computes and is not supported; "
            + MERGE_FIRST
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
    _check_tokens(settings.get("trainable_token_indices"), where)


def _check_tokens(stated: Any, where: str) -> None:
    for ids in stated.values() if isinstance(stated, Mapping) else [[] if stated is None else stated]:
        valid = isinstance(ids, list) and all(type(index) is int and index >= 0 for index in ids)
        if not valid or len(set(ids)) != len(ids):
            raise UnsupportedCheckpointError(
                f"{where}: trainable_token_indices has {shorten(ids)}, not a list of different token ids"
            )


def _check_pattern(pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as exc:
        raise UnsupportedCheckpointError(f"{where}: {shorten(pattern)} is not a regular expression ({exc})") from exc
