"""Settings of tokenizer, pooling, prompts and length are applied or rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tiny_checkpoint import END_TOKEN, write_json, write_tokenizer
from tokenizers import Tokenizer, processors

from qwen3_triton.client import Prompts
from qwen3_triton.export import ExportError, SourceError, SourceReference, UnsupportedCheckpointError
from qwen3_triton.export.architectures import DecoderConfig
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.sources.embedding_head import EmbeddingHead, Pooling
from qwen3_triton.export.sources.head_modules import read_head
from qwen3_triton.export.sources.sentence_transformers import (
    DEFAULT_INSTRUCTION,
    MODEL_CARD,
    QUERY_TEMPLATE,
    SentenceSettings,
    StatedLength,
    read_sentence_settings,
)
from qwen3_triton.export.sources.setting_files import SettingFiles
from qwen3_triton.export.sources.tokenizer import read_tokenizer
from qwen3_triton.export.tasks.prompts import override_instruction

VOCABULARY = 300


def test_tokenizer_appends_its_end_token(tiny_source: Path) -> None:
    tokenizer = read_tokenizer(tiny_source, VOCABULARY)
    end_id = Tokenizer.from_file(str(tiny_source / "tokenizer.json")).token_to_id(END_TOKEN)
    assert tokenizer.end_token_id == end_id == 278
    rows = tokenizer.rows(["", "the capital", "x" * 50], 8)
    assert [row[-1] for row in rows] == [end_id] * 3
    assert [row.count(end_id) for row in rows] == [1, 1, 1]
    assert [len(row) for row in rows][::2] == [1, 8]


def test_tokenizer_without_an_end_token_appends_none(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, end_token=False)
    tokenizer = read_tokenizer(tmp_path, VOCABULARY)
    assert tokenizer.end_token_id is None
    assert tokenizer.rows(["", "x"], 8)[0] == []
    assert 278 not in tokenizer.rows(["the capital"], 8)[0]


@pytest.mark.parametrize("single", [f"$A {END_TOKEN} {END_TOKEN}", f"{END_TOKEN} $A"])
def test_other_added_tokens_are_rejected(tmp_path: Path, single: str) -> None:
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=[(END_TOKEN, 278)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UnsupportedCheckpointError, match="more than one end token"):
        read_tokenizer(tmp_path, VOCABULARY)


def test_tokenizer_of_a_larger_vocabulary_is_rejected(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, size=290)
    assert read_tokenizer(tmp_path, 290).end_token_id == 288
    with pytest.raises(UnsupportedCheckpointError, match=r"has id 289, .* ends at 288; .* another model's tokenizer"):
        read_tokenizer(tmp_path, 289)


def test_tokenizer_that_differs_in_transformers_is_rejected(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    # transformers adds the token to its vocabulary and finds it in the probes
    added = {"content": "capital", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    write_json(tmp_path / "tokenizer_config.json", settings | {"added_tokens_decoder": {"285": added}})
    with pytest.raises(UnsupportedCheckpointError, match="returns other ids than"):
        read_tokenizer(tmp_path, VOCABULARY)


def test_missing_or_broken_tokenizer_file_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no tokenizer\.json, and no vocab\.json with merges\.txt; write one with"):
        read_tokenizer(tmp_path, VOCABULARY)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError, match=r"tokenizer\.json: not readable as a tokenizer"):
        read_tokenizer(tmp_path, VOCABULARY)


def read_settings(folder: Path, *, is_qwen3_embedding: bool = False) -> SentenceSettings:
    return read_sentence_settings(SettingFiles.of_folder(folder), is_qwen3_embedding=is_qwen3_embedding)


def write_modules(folder: Path, pooling: dict[str, Any], kinds: tuple[str, ...] = ("Transformer", "Pooling")) -> None:
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "LayerNorm": "2_LayerNorm"}
    modules = [
        {"idx": number, "name": str(number), "path": paths[kind], "type": f"sentence_transformers.models.{kind}"}
        for number, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", pooling)


LAST = {"word_embedding_dimension": 40, "pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}


@pytest.fixture(scope="module")
def config(tiny_source: Path) -> DecoderConfig:
    return open_checkpoint(SourceReference(str(tiny_source))).config


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        (LAST, Pooling.LAST_TOKEN),
        ({"pooling_mode": "lasttoken"}, Pooling.LAST_TOKEN),
        ({"pooling_mode": ["lasttoken"]}, Pooling.LAST_TOKEN),
        ({"pooling_mode_mean_tokens": True}, Pooling.MEAN),
        ({"pooling_mode": "mean"}, Pooling.MEAN),
        ({"pooling_mode": "mean", "pooling_mode_mean_tokens": True}, Pooling.MEAN),
    ],
)
@pytest.mark.parametrize("kinds", [("Transformer", "Pooling"), ("Transformer", "Pooling", "Normalize")])
def test_pooling_of_both_layouts(
    tmp_path: Path, config: DecoderConfig, pooling: dict[str, Any], mode: Pooling, kinds: tuple[str, ...]
) -> None:
    write_modules(tmp_path, pooling, kinds)
    assert read_head(SettingFiles.of_folder(tmp_path), config) == EmbeddingHead(pooling=mode)


def test_prompts_of_the_model_card(tmp_path: Path) -> None:
    write_modules(tmp_path, LAST)
    assert read_settings(tmp_path, is_qwen3_embedding=True) == SentenceSettings(
        prompts=Prompts(query=QUERY_TEMPLATE, document="{text}", default_instruction=DEFAULT_INSTRUCTION),
        prompts_origin=MODEL_CARD,
        length=None,
    )
    assert read_settings(tmp_path).prompts == Prompts(query="{text}", document="{text}", default_instruction=None)


@pytest.mark.parametrize(
    ("pooling", "named"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_lasttoken": False}, "cls"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_max_tokens": True}, "lasttoken + max"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
        ({"pooling_mode_lasttoken": False}, "none"),
    ],
)
def test_other_pooling_is_rejected_by_name(
    tmp_path: Path, config: DecoderConfig, pooling: dict[str, Any], named: str
) -> None:
    write_modules(tmp_path, pooling)
    with pytest.raises(UnsupportedCheckpointError) as caught:
        read_head(SettingFiles.of_folder(tmp_path), config)
    assert str(tmp_path / "1_Pooling" / "config.json") in str(caught.value)
    assert f"pooling '{named}' is not supported" in str(caught.value)


def test_further_modules_are_rejected_by_name(tmp_path: Path, config: DecoderConfig) -> None:
    write_modules(tmp_path, LAST, ("Transformer", "Pooling", "LayerNorm"))
    with pytest.raises(UnsupportedCheckpointError, match="module 'LayerNorm' is not supported"):
        read_head(SettingFiles.of_folder(tmp_path), config)


@pytest.mark.parametrize("content", ["{", '{"a": 1}', '[{"type": "x"}]'])
def test_invalid_modules_file_raises_an_error(tmp_path: Path, config: DecoderConfig, content: str) -> None:
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(SourceError, match=r"modules\.json: not a list of sentence-transformers modules"):
        read_head(SettingFiles.of_folder(tmp_path), config)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (
            {"query": "Instruct: Find the law\nQuery:", "document": ""},
            Prompts(
                query="Instruct: {instruction}\nQuery:{text}", document="{text}", default_instruction="Find the law"
            ),
        ),
        (
            {"query": "Instruct: Find {it}\nQuery: ", "document": "Passage: "},
            Prompts(
                query="Instruct: {instruction}\nQuery: {text}",
                document="Passage: {text}",
                default_instruction="Find {it}",
            ),
        ),
        (
            {"query": "query: ", "passage": "passage: "},
            Prompts(query="query: {text}", document="passage: {text}", default_instruction=None),
        ),
        ({"document": "d: "}, Prompts(query="{text}", document="d: {text}", default_instruction=None)),
    ],
)
def test_prompts_are_read(tmp_path: Path, prompts: dict[str, str], expected: Prompts) -> None:
    write_json(tmp_path / "config_sentence_transformers.json", {"prompts": prompts, "similarity_fn_name": "cosine"})
    assert read_settings(tmp_path).prompts == expected


def test_prompt_with_a_placeholder_is_rejected(tmp_path: Path) -> None:
    write_json(tmp_path / "config_sentence_transformers.json", {"prompts": {"query": "q {text}"}})
    with pytest.raises(UnsupportedCheckpointError, match="placeholder"):
        read_settings(tmp_path)


def test_length_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 77})
    assert read_settings(tmp_path).length == StatedLength(77, tmp_path / "sentence_bert_config.json")


def test_instruction_option_replaces_the_default() -> None:
    prompts = Prompts(query=QUERY_TEMPLATE, document="{text}", default_instruction="a")
    assert override_instruction(prompts, None) == prompts
    assert override_instruction(prompts, "b").default_instruction == "b"
    with pytest.raises(ExportError, match="no place for an instruction"):
        override_instruction(Prompts(query="q: {text}", document="{text}", default_instruction=None), "b")


@pytest.mark.skipif(transformers.__version__ >= "5", reason="transformers 5 knows the class")
def test_tokenizer_saved_by_a_newer_transformers_is_named(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write_json(tmp_path / "tokenizer_config.json", settings | {"tokenizer_class": "TokenizersBackend"})
    with pytest.raises(SourceError, match=r"class TokenizersBackend of transformers 5, and 4.* is installed: install"):
        read_tokenizer(tmp_path, VOCABULARY)
