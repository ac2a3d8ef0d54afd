"""Prompts and length limit of an embedding model, from the files of sentence-transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...client.manifest import Prompts
from ..errors import UnsupportedCheckpointError
from .config import read_json
from .setting_files import SettingFiles
from .stated_numbers import StatedNumbers, shorten

QUERY_TEMPLATE = "Instruct: {instruction}\nQuery:{text}"
"""Query template of Qwen3-Embedding (model card)."""

DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""Default instruction of Qwen3-Embedding (model card)."""

PROMPTS_FILE = "config_sentence_transformers.json"
LENGTH_FILE = "sentence_bert_config.json"
MODEL_CARD = "the model card of Qwen3-Embedding"
NOWHERE = "no source states one"
_QUERY_PROMPT = re.compile(r"Instruct: ?(?P<instruction>.*)\nQuery:(?P<space> ?)", re.DOTALL)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names of prompts for documents; the first that is stated applies."""
_UNLIMITED = 1 << 24
"""transformers saves a huge `model_max_length` for tokenizers without a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceSettings:
    """What the files state about an embedding model."""

    prompts: Prompts
    prompts_origin: str | Path
    """File that the prompts are from, or why there is none."""
    length: StatedLength | None
    """None if no file states one."""


def read_sentence_settings(files: SettingFiles, *, is_qwen3_embedding: bool) -> SentenceSettings:
    """Return the settings that apply.

    Without stated prompts a model has none, as in sentence-transformers; Qwen3-Embedding has those of its model card.
    Raises UnsupportedCheckpointError for settings that change the embeddings and are not supported.
    """
    file = files.find(PROMPTS_FILE)
    stated = {} if file is None else read_json(file)
    if file is not None:
        _check_settings(stated, file)
    origin: str | Path
    if file is not None and stated.get("prompts"):
        prompts, origin = _parse_prompts(stated, str(file)), file
    elif is_qwen3_embedding and file is None:
        prompts = Prompts(query=QUERY_TEMPLATE, document="{text}", default_instruction=DEFAULT_INSTRUCTION)
        origin = MODEL_CARD
    else:
        prompts, origin = Prompts(query="{text}", document="{text}", default_instruction=None), NOWHERE
    return SentenceSettings(prompts=prompts, prompts_origin=origin, length=read_length(files))


@dataclass(frozen=True, slots=True)
class StatedLength:
    """A length limit in tokens, and the file that states it."""

    tokens: int
    file: Path


def read_length(files: SettingFiles) -> StatedLength | None:
    """Return the length limit: `max_seq_length`, otherwise the tokenizer's `model_max_length`; None without either."""
    file = files.find(LENGTH_FILE)
    stated = {} if file is None else read_json(file)
    if file is not None and stated.get("max_seq_length"):
        return StatedLength(StatedNumbers(stated, str(file)).size("max_seq_length"), file)
    tokenizer = files.find("tokenizer_config.json")
    limit = None if tokenizer is None else read_json(tokenizer).get("model_max_length")
    if tokenizer is not None and isinstance(limit, int | float) and 0 < limit < _UNLIMITED:
        return StatedLength(int(limit), tokenizer)
    return None


def _check_settings(stated: Mapping[str, Any], file: Path) -> None:
    if stated.get("truncate_dim"):
        raise UnsupportedCheckpointError(
            f"{file}: truncate_dim {stated['truncate_dim']} is not supported; remove it, and let clients ask for the "
            "dimension"
        )


def _parse_prompts(stated: Mapping[str, Any], where: str) -> Prompts:
    """The prompts of `encode_query` and `encode_document`."""
    prompts = read_prompts(stated, where)
    query = prompts.get("query")
    document = next((prompts[name] for name in DOCUMENT_PROMPTS if name in prompts), None)
    default = str(stated.get("default_prompt_name") or "")
    if prompts.get(default) and (query is None or document is None):
        missing = "query" if query is None else "document"
        raise UnsupportedCheckpointError(
            f"{where}: default_prompt_name '{default}' applies to some calls of sentence-transformers and not to "
            f"others; state a prompt for '{missing}' there, or pass templates for query and document"
        )
    query, document = query or "", document or ""
    matched = _QUERY_PROMPT.fullmatch(query)
    if matched is None:
        return Prompts(query=_literal(query, where), document=_literal(document, where), default_instruction=None)
    head = query[: matched.start("instruction")]
    template = f"{head}{{instruction}}\nQuery:{matched['space']}{{text}}"
    return Prompts(query=template, document=_literal(document, where), default_instruction=matched["instruction"])


def read_prompts(stated: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return the prompts by name; raise UnsupportedCheckpointError if they are not a JSON object."""
    prompts = stated.get("prompts") or {}
    if not isinstance(prompts, dict):
        raise UnsupportedCheckpointError(f"{where}: prompts is {shorten(prompts)}, not a JSON object")
    return {str(name): str(text or "") for name, text in prompts.items()}


def _literal(prompt: str, where: str) -> str:
    if "{text}" in prompt or "{instruction}" in prompt:
        raise UnsupportedCheckpointError(
            f"{where}: the prompt {prompt!r} has a placeholder, which sentence-transformers would not fill; "
            "pass it as a template instead"
        )
    return prompt + "{text}"


def is_qwen3_embedding(*names: str | None) -> bool:
    """Whether one of a checkpoint's names is that of Qwen3-Embedding."""
    return any("qwen3-embedding" in name.lower() for name in names if name)
