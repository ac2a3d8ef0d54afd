"""Pooling, prompts and length limit of a checkpoint, from its sentence-transformers files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...client.manifest import Prompts
from ..architectures import Architecture
from ..errors import SourceError, UnsupportedCheckpointError
from .config import read_json

QUERY_TEMPLATE = "Instruct: {instruction}\nQuery:{text}"
"""Query prompt of Qwen3-Embedding (model card)."""

DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""Default instruction of Qwen3-Embedding (model card)."""

_MODULES = ("Transformer", "Pooling", "Normalize")
_PROMPTS_FILE = "config_sentence_transformers.json"
_QUERY_PROMPT = re.compile(r"Instruct: ?(?P<instruction>.*)\nQuery:(?P<space> ?)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceSettings:
    """Prompts and length limit of a checkpoint."""

    prompts: Prompts
    max_tokens: int | None
    """Longest row in tokens; None if the files do not set one."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module in `modules.json`: the last part of its type, and its folder."""

    kind: str
    directory: Path


def read_sentence_settings(directory: Path, architecture: Architecture) -> SentenceSettings:
    """Read the settings in `directory`; `architecture` decides whether the model card's prompts are the default.

    Raises:
        UnsupportedCheckpointError: Pooling is not that of the last token, there are other modules, or a prompt has a
            placeholder.
    """
    _check_modules(directory)
    return SentenceSettings(prompts=_read_prompts(directory, architecture), max_tokens=read_length(directory))


def read_modules(directory: Path) -> list[Module]:
    """Return the modules in `modules.json`; none if there is no such file."""
    listing = directory / "modules.json"
    if not listing.exists():
        return []
    try:
        modules = json.loads(listing.read_text(encoding="utf-8"))
        return [Module(str(module["type"]).rsplit(".", 1)[-1], directory / str(module["path"])) for module in modules]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SourceError(f"{listing}: not a list of sentence-transformers modules ({exc!r})") from exc


def read_prompt_settings(directory: Path) -> dict[str, Any]:
    """Return the content of `config_sentence_transformers.json`; an empty dict if there is no such file."""
    file = directory / _PROMPTS_FILE
    return read_json(file) if file.exists() else {}


def _check_modules(directory: Path) -> None:
    for module in read_modules(directory):
        if module.kind not in _MODULES:
            raise UnsupportedCheckpointError(
                f"{directory / 'modules.json'}: module '{module.kind}' is not supported, because the graph ends with "
                "last-token pooling and L2 norm"
            )
        if module.kind == "Pooling":
            _check_pooling(module.directory / "config.json")


def _check_pooling(file: Path) -> None:
    pooling = read_json(file)
    modes = [key.removeprefix("pooling_mode_") for key, on in pooling.items() if key.startswith("pooling_mode_") and on]
    single = pooling.get("pooling_mode")
    if single is not None:
        modes += [single] if isinstance(single, str) else list(single)
    if set(modes) != {"lasttoken"}:
        raise UnsupportedCheckpointError(
            f"{file}: pooling '{' + '.join(map(str, modes)) or 'none'}' is not supported, only the last token's"
        )


def _read_prompts(directory: Path, architecture: Architecture) -> Prompts:
    stated = read_prompt_settings(directory).get("prompts")
    if not stated and not architecture.official_prompts:
        return Prompts(query="{text}", document="{text}", default_instruction=None)
    if not stated:
        return Prompts(query=QUERY_TEMPLATE, document="{text}", default_instruction=DEFAULT_INSTRUCTION)
    query = str(stated.get("query") or "")
    document = _literal(str(stated.get("document") or stated.get("passage") or ""))
    matched = _QUERY_PROMPT.fullmatch(query)
    if matched is None:
        return Prompts(query=_literal(query), document=document, default_instruction=None)
    head = query[: matched.start("instruction")]
    template = f"{head}{{instruction}}\nQuery:{matched['space']}{{text}}"
    return Prompts(query=template, document=document, default_instruction=matched["instruction"])


def _literal(prompt: str) -> str:
    if "{text}" in prompt or "{instruction}" in prompt:
        raise UnsupportedCheckpointError(
            f"prompt {prompt!r} contains '{{text}}' or '{{instruction}}', which are placeholders of prompt templates; "
            f"remove it from {_PROMPTS_FILE}"
        )
    return prompt + "{text}"


def read_length(directory: Path) -> int | None:
    """Return `max_seq_length` of `sentence_bert_config.json` in tokens; None if it is not set."""
    file = directory / "sentence_bert_config.json"
    stated = read_json(file).get("max_seq_length") if file.exists() else None
    return int(stated) if stated else None
