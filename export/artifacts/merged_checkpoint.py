"""Write a merged checkpoint that transformers loads like any other."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...client.manifest import MergeReport
from ..architectures import EMBEDDINGS, HEADS, SCORE_HEAD
from ..errors import AdapterMismatchError, list_keys
from ..options import MergeOptions
from ..passes.merge_heads import MergedModel, merge_model
from ..passes.resized_vocabulary import resize_vocabulary
from ..progress import Progress, SilentProgress
from ..sources.adapter import open_adapter
from ..sources.checkpoint import Checkpoint, open_checkpoint
from ..sources.modules import MODULES_FILE, read_modules
from ..sources.precedence import reject_adapter_beside_weights, setting_files
from ..sources.setting_files import SETTING_FILES, SettingFiles
from ..sources.trained_base import describe_other_base, other_bases
from ..sources.weights import LazyTensor
from .companion_files import copy_companions
from .staging import refuse_existing, staged_folder
from .weight_shards import ShardTensor, write_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """A written checkpoint."""

    folder: Path
    merges: tuple[MergeReport, ...]
    """How much each adapter changes, in order."""


def write_merged_checkpoint(options: MergeOptions, progress: Progress | None = None) -> MergeResult:
    """Merge adapters into a checkpoint and write the result in the dtype of the base.

    The output folder is created atomically. Sums are computed in fp32 and rounded once. Heads are merged as in an
    export: an adapter of a classifier makes the result a classifier, and an adapter on the embeddings or on the LM
    head unties the two.

    Args:
        options: What to merge, and the output folder.
        progress: Receives stages and steps; None reports nothing.

    Returns:
        The output folder, and how much each adapter changes.

    Raises:
        SourceError: The base or an adapter does not exist or cannot be read.
        UnsupportedCheckpointError: The base or an adapter has a setting that is not supported.
        AdapterMismatchError: An adapter does not fit the base, or rounding to its dtype removes the whole change.
        ModelExistsError: The output folder exists and `options.overwrite` is not set.
        StagingError: The output folder cannot be written.
    """
    progress = progress or SilentProgress()
    refuse_existing(options.output, overwrite=options.overwrite)
    progress.stage(f"reading {options.model}")
    stored = open_checkpoint(options.model)
    adapters = [open_adapter(reference) for reference in options.adapters]
    base = resize_vocabulary(stored, adapters)
    reject_adapter_beside_weights(base, adapters)
    for adapter, trained_on in other_bases(base, adapters).items():
        progress.note(describe_other_base(adapter, trained_on, base))
    dequantization = base.describe_dequantization()
    if dequantization is not None:
        progress.note(f"{dequantization}, and written as {base.written_dtype(EMBEDDINGS)}")
    files = setting_files(base, adapters)
    merged = merge_model(base, adapters)
    progress.stage(f"writing {options.output}")
    with staged_folder(options.output, overwrite=options.overwrite) as content:
        transformer = copy_companions(base, content)
        _copy_settings(files, content)
        _write_config(base, merged, stored.config.vocabulary, transformer / "config.json")
        _write_weights(base, merged, transformer, progress)
    return MergeResult(folder=options.output, merges=merged.reports)


def _copy_settings(files: SettingFiles, content: Path) -> None:
    """Replace the base's setting files by those of the adapters, and the module folders with them."""
    for name in SETTING_FILES:
        found = files.find(name)
        if found is None or found.parent not in files.adapters:
            continue
        shutil.copyfile(found, content / name)
        if name == MODULES_FILE:
            for module in read_modules(files):
                if module.directory != found.parent and (module.directory / "config.json").is_file():
                    target = content / module.directory.relative_to(found.parent)
                    shutil.copytree(module.directory, target, dirs_exist_ok=True)


def _write_config(base: Checkpoint, merged: MergedModel, stored_vocabulary: int, file: Path) -> None:
    """Write config.json if heads or vocabulary changed; otherwise the copy of the base's file stays."""
    changes: dict[str, Any] = {}
    if merged.model_class != base.config.model_class:
        changes["architectures"] = [merged.model_class]
    if base.config.vocabulary != stored_vocabulary:
        changes["vocab_size"] = base.config.vocabulary
    if merged.tied != base.config.tied:
        changes["tie_word_embeddings"] = merged.tied
    head = merged.weights.get(SCORE_HEAD)
    if head is not None and len(base.raw_config.get("id2label") or {}) != head.shape[0]:
        names = [f"LABEL_{index}" for index in range(head.shape[0])]
        changes["id2label"] = {str(index): name for index, name in enumerate(names)}
        changes["label2id"] = {name: index for index, name in enumerate(names)}
    if changes:
        file.write_text(json.dumps(base.raw_config | changes, indent=2) + "\n", encoding="utf-8")


def _write_weights(base: Checkpoint, merged: MergedModel, folder: Path, progress: Progress) -> None:
    """Write the merged tensors in the order of the base."""
    names = [name for name in base.weights if name in merged.weights]
    names += [name for name in merged.weights if name not in base.weights]
    tensors = {
        name: ShardTensor(
            name=_stored_name(base, merged, name), values=merged.weights[name], dtype=base.written_dtype(name)
        )
        for name in names
    }
    names_in_base = {tensor.name: name for name, tensor in tensors.items()}
    changed = 0
    lost: list[str] = []

    def check(tensor: ShardTensor, rounded: torch.Tensor) -> None:
        nonlocal changed
        name = names_in_base[tensor.name]
        if not torch.isfinite(rounded).all():
            raise AdapterMismatchError(f"{name}: the merged values do not fit into {tensor.dtype} of the base")
        origin = base.weights.get(name)
        if tensor.values is not origin:
            changed += 1
            lost.extend([name] if _equals(origin, rounded) else [])

    write_shards(list(tensors.values()), folder, progress, check)
    if len(lost) == changed:
        raise AdapterMismatchError("the merged weights equal the base after rounding to its dtype; nothing was written")
    if lost:
        progress.note(f"rounding to the dtype of the base removes the whole change of {list_keys(lost)}")


def _stored_name(base: Checkpoint, merged: MergedModel, name: str) -> str:
    if name in HEADS:
        return name
    # models with a head have their decoder under `model.`
    return ("model." if merged.model_class != base.config.model_class else base.prefix) + name


def _equals(base: LazyTensor | None, rounded: torch.Tensor) -> bool:
    return base is not None and torch.equal(base.fp32().to(rounded.dtype), rounded)
