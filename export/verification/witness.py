"""A second witness: sentence-transformers reads the same sources by its own code and embeds or scores the same texts.

The reference in transformers gets token ids, so it shares this exporter's reading of prompts, tokenizer, pooling and
length limit. sentence-transformers starts from the texts.

    sources ─┬─ this exporter ─→ rows of ids ─ transformers fp32 ─→ vectors ─┐
             └─ sentence-transformers fp32, from texts ────────────→ vectors ┴─ 1 - cosine
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...client.manifest import WitnessReport
from ..errors import ExportError, WitnessError
from ..sources.adapter import Adapter
from ..sources.checkpoint import Checkpoint
from ..sources.config import read_json
from ..sources.modules import MODULES_FILE, TRANSFORMER, read_modules
from ..sources.sentence_transformers import DOCUMENT_PROMPTS, PROMPTS_FILE
from ..sources.setting_files import SETTING_FILES, SettingFiles

PACKAGE = "sentence-transformers"
_MODULE = "sentence_transformers"
COSINE_TOLERANCE = 1e-5
"""Largest 1 - cosine between two fp32 computations of one embedding."""
SCORE_TOLERANCE = 1e-4
_LOADING = {"device": "cpu", "local_files_only": True, "model_kwargs": {"dtype": torch.float32}}
_SHOWN = 40
_ADAPTER_CONFIG = "adapter_config.json"


class WitnessUnavailableError(ExportError):
    """sentence-transformers cannot read these sources, or not like a client; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessFolder:
    """What sentence-transformers loads."""

    folder: Path
    """A model, or an adapter that names a local base."""
    adapter: Path | None = None
    """An adapter to load on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessTexts:
    """Texts of one kind, and how to embed them."""

    kind: str
    """query or document."""
    texts: Sequence[str]
    """Without prompts; with them if `filled`."""
    filled: bool
    """Whether the prompts are in the texts, because options set them and not the sources."""


def witness_folder(
    checkpoint: Checkpoint, adapters: Sequence[Adapter], files: SettingFiles, scratch: Path
) -> WitnessFolder:
    """Return what to load.

    An adapter with setting files of its own is loaded itself, from a folder of links in `scratch` that names the local
    base. Any other adapter is loaded on top of the base.

    Raises:
        WitnessUnavailableError: sentence-transformers would not read the sources as a client does, or is missing.
    """
    modules = files.find(MODULES_FILE)
    if modules is None:
        raise WitnessUnavailableError(f"the sources have no {MODULES_FILE}, so {PACKAGE} would use other pooling")
    if importlib.util.find_spec(_MODULE) is None:
        raise WitnessUnavailableError(f"{PACKAGE} is not installed (pip install 'qwen3-triton[witness]')")
    form = checkpoint.quantized_as
    if form is not None and (torch.cuda.is_available() or not checkpoint.transformers_agrees):
        raise WitnessUnavailableError(f"{PACKAGE} would not compute with the dequantized {form.name} weights")
    if not adapters:
        return WitnessFolder(folder=checkpoint.root)
    if len(adapters) > 1 or adapters[0].reference.weight != 1.0:
        raise WitnessUnavailableError(f"{PACKAGE} loads one adapter of weight 1")
    if importlib.util.find_spec("peft") is None:
        raise WitnessUnavailableError("loading an adapter needs peft")
    [adapter] = adapters
    if adapter.settings.get("use_dora"):
        raise WitnessUnavailableError(f"{PACKAGE} loads adapters by transformers, which drops the magnitudes of DoRA")
    if not any((adapter.root / name).is_file() for name in SETTING_FILES):
        return WitnessFolder(folder=checkpoint.root, adapter=adapter.directory)
    return WitnessFolder(folder=_link_sources(adapter, checkpoint.directory, files, scratch / "witness"))


def embed_texts(
    source: WitnessFolder, texts: Sequence[WitnessTexts], max_tokens: int
) -> tuple[str, NDArray[np.float32]]:
    """Return the library's name and version, and its embeddings [n, hidden] of all `texts` in fp32 on the CPU."""
    with hide_messages():
        model = _load("SentenceTransformer", source)
        model.truncate_dim = None
        model.max_seq_length = min(model.max_seq_length or max_tokens, max_tokens)
        found = [_embed(model, each, _document_prompt(source.folder)) for each in texts]
    return _version(), np.concatenate(found).astype(np.float32)


def score_pairs(
    source: WitnessFolder, pairs: Sequence[tuple[str, str]], max_tokens: int
) -> tuple[str, NDArray[np.float32]]:
    """Return the library's name and version, and its scores [n, 1] of query-document pairs in fp32 on the CPU."""
    with hide_messages():
        model = _load("CrossEncoder", source)
        model.max_length = min(model.max_length or max_tokens, max_tokens)
        scores = model.predict(list(pairs), show_progress_bar=False)
    return _version(), np.asarray(scores, np.float32).reshape(-1, 1)


def report_witness(library: str, errors: NDArray[np.float64], texts: Sequence[str], tolerance: float) -> WitnessReport:
    """Return the report.

    Args:
        library: Name and version of the witness.
        errors: [n], 1 - cosine of each text's embeddings, or the absolute difference of its scores.
        texts: [n], descriptions of the texts.
        tolerance: Largest allowed error.

    Raises:
        WitnessError: An error exceeds `tolerance`, or is NaN.
    """
    worst = int(np.argmax(np.nan_to_num(errors, nan=np.inf)))
    report = WitnessReport(library=library, texts=len(errors), error=float(errors[worst]), tolerance=tolerance)
    if not report.passed:
        raise WitnessError(
            f"{library} reads the same files differently: an error of {report.error:.2g} for {texts[worst]} "
            f"(allowed: {tolerance:g}); its prompts, tokenizer, pooling or length limit are not those of this export. "
            "If this export is right, turn the witness off"
        )
    return report


@contextmanager
def hide_messages() -> Iterator[None]:
    """Hide the progress bars and warnings of transformers, and compute without gradients."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with torch.inference_mode():
            yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def shorten(text: str) -> str:
    """Return the beginning of `text`, quoted."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _load(kind: str, source: WitnessFolder) -> Any:
    """Load a SentenceTransformer or CrossEncoder."""
    try:
        model = getattr(importlib.import_module(_MODULE), kind)(str(source.folder), **_LOADING)
        if source.adapter is not None:
            model.load_adapter(str(source.adapter))
        # transformers leaves some tensors of quantized checkpoints in bf16
        model.float()
    except Exception as exc:
        reason = str(exc).strip().splitlines()
        raise WitnessUnavailableError(
            f"{PACKAGE} cannot load the sources: {reason[0] if reason else type(exc).__name__}"
        ) from exc
    return model


def _embed(model: Any, group: WitnessTexts, document_prompt: str | None) -> NDArray[np.float32]:
    texts = list(group.texts)
    if group.filled:
        found = model.encode(texts, prompt="", show_progress_bar=False)
    elif group.kind == "query":
        found = model.encode_query(texts, show_progress_bar=False)
    elif document_prompt is not None:
        found = model.encode(texts, prompt_name=document_prompt, show_progress_bar=False)
    else:
        found = model.encode_document(texts, show_progress_bar=False)
    return np.asarray(found, np.float32)


def _link_sources(adapter: Adapter, base: Path, files: SettingFiles, folder: Path) -> Path:
    """Return a folder of links to the adapter's files and to the setting files of its base; its config names `base`."""
    root = adapter.root.resolve()
    for source in root.rglob("*"):
        if source.is_file():
            _link(source, folder / source.relative_to(root))
    for name in SETTING_FILES:
        found = files.find(name)
        if found is not None:
            _link(found, folder / name)
    for module in read_modules(files):
        if module.kind != TRANSFORMER:
            for source in module.directory.glob("*"):
                _link(source, folder / module.directory.name / source.name)
    config = folder / adapter.directory.resolve().relative_to(root) / _ADAPTER_CONFIG
    config.unlink()
    stated = dict(adapter.settings) | {"base_model_name_or_path": str(base.resolve())}
    config.write_text(json.dumps(stated), encoding="utf-8")
    return folder


def _link(source: Path, target: Path) -> None:
    """Link `target` to `source`, unless it exists."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve())


def _document_prompt(folder: Path) -> str | None:
    """Return the name of the prompt for documents, if it is one that encode_document does not use."""
    file = folder / PROMPTS_FILE
    stated = read_json(file).get("prompts") if file.is_file() else None
    names = [name for name in DOCUMENT_PROMPTS if name in (stated or {})]
    return names[0] if names and names[0] != DOCUMENT_PROMPTS[0] else None


def _version() -> str:
    return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
