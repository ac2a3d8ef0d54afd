"""Detection of the task of a checkpoint and its adapters, and settings files of rerankers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoint import CAUSAL, CLASSIFIER, MODEL, TinyCheckpoint, write_checkpoint, write_json

from qwen3_triton.client import Task
from qwen3_triton.export import AdapterReference, SourceReference, TaskChoice, UnsupportedCheckpointError
from qwen3_triton.export.sources.adapter import Adapter
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.sources.cross_encoder import AnswerIds, read_cross_encoder_settings
from qwen3_triton.export.sources.setting_files import SettingFiles
from qwen3_triton.export.sources.tokenizer import read_tokenizer
from qwen3_triton.export.tasks.task import recognise_task

EMBED, RERANK = Task.EMBED, Task.RERANK


def adapter_of(task_type: str | None) -> Adapter:
    reference = AdapterReference(SourceReference("somewhere"), 1.0)
    folder = Path("somewhere")
    return Adapter(reference=reference, root=folder, directory=folder, settings={"task_type": task_type}, tensors={})


def recognise(folder: Path, *task_types: str | None, choice: TaskChoice = TaskChoice.AUTO) -> Task:
    checkpoint = open_checkpoint(SourceReference(str(folder)))
    adapters = [adapter_of(task_type) for task_type in task_types]
    files = SettingFiles.of_folder(folder)
    return recognise_task(checkpoint, files, read_tokenizer(folder, 300), adapters, choice).task


def write_modules(folder: Path, *kinds: str) -> None:
    modules = [
        {"idx": number, "name": str(number), "path": f"{number}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for number, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)


def write_logit_score(folder: Path, **ids: Any) -> None:
    write_modules(folder, "Transformer", "LogitScore")
    (folder / "1_LogitScore").mkdir()
    write_json(folder / "1_LogitScore" / "config.json", ids)


@pytest.mark.parametrize(
    ("tiny", "expected"),
    [
        (TinyCheckpoint(), EMBED),
        (TinyCheckpoint(end_token=False), EMBED),
        (TinyCheckpoint(layout=CAUSAL), EMBED),
        (TinyCheckpoint(layout=CAUSAL, end_token=False), RERANK),
        (TinyCheckpoint(layout=CLASSIFIER), RERANK),
        (TinyCheckpoint(layout=CLASSIFIER, labels=2, end_token=False), RERANK),
    ],
)
def test_task_follows_from_architecture_head_and_tokenizer(
    tmp_path: Path, tiny: TinyCheckpoint, expected: Task
) -> None:
    folder = write_checkpoint(tmp_path / "tiny", tiny)
    assert recognise(folder) is expected
    assert recognise(folder, choice=TaskChoice.EMBED) is EMBED
    assert recognise(folder, choice=TaskChoice.RERANK) is RERANK


@pytest.mark.parametrize("layout", [MODEL, CAUSAL, CLASSIFIER])
def test_adapter_task_type_overrides_the_base(tmp_path: Path, layout: str) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(layout=layout, end_token=layout == MODEL))
    base = recognise(folder)
    assert recognise(folder, "SEQ_CLS") is RERANK
    assert recognise(folder, "FEATURE_EXTRACTION", None) is EMBED
    assert recognise(folder, "CAUSAL_LM", None) is base
    assert recognise(folder, "SEQ_CLS", choice=TaskChoice.EMBED) is EMBED
    with pytest.raises(UnsupportedCheckpointError, match="set the task"):
        recognise(folder, "SEQ_CLS", "FEATURE_EXTRACTION")


def test_modules_override_the_architecture(tmp_path: Path) -> None:
    causal = write_checkpoint(tmp_path / "causal", TinyCheckpoint(layout=CAUSAL, end_token=False))
    write_modules(causal, "Transformer", "Pooling", "Normalize")
    assert recognise(causal) is EMBED
    write_modules(causal, "Transformer")
    assert recognise(causal) is RERANK
    plain = write_checkpoint(tmp_path / "plain", TinyCheckpoint(layout=CAUSAL))
    write_modules(plain, "Transformer", "LogitScore")
    assert recognise(plain) is RERANK


def test_defaults_without_settings_files(tmp_path: Path) -> None:
    settings = read_cross_encoder_settings(SettingFiles.of_folder(tmp_path))
    assert (settings.instruction, settings.length, settings.answers) == (None, None, None)


def test_logit_score_sets_answers_and_instruction(tmp_path: Path) -> None:
    write_logit_score(tmp_path, true_token_id=9693, false_token_id=2152)
    write_json(
        tmp_path / "config_sentence_transformers.json",
        {"prompts": {"query": "Find the law", "other": "x"}, "default_prompt_name": "query"},
    )
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 4096})
    settings = read_cross_encoder_settings(SettingFiles.of_folder(tmp_path))
    assert settings.answers == AnswerIds(no=2152, yes=9693)
    assert settings.instruction == "Find the law"
    assert settings.length is not None
    assert settings.length.tokens == 4096


@pytest.mark.parametrize("ids", [{"true_token_id": 5}, {"true_token_id": 5, "false_token_id": None}])
def test_score_of_one_logit(tmp_path: Path, ids: dict[str, Any]) -> None:
    write_logit_score(tmp_path, **ids)
    assert read_cross_encoder_settings(SettingFiles.of_folder(tmp_path)).answers == AnswerIds(no=None, yes=5)


@pytest.mark.parametrize("ids", [{}, {"true_token_id": None, "false_token_id": 5}, {"true_token_id": "yes"}])
def test_answers_must_be_token_ids(tmp_path: Path, ids: dict[str, Any]) -> None:
    write_logit_score(tmp_path, **ids)
    with pytest.raises(UnsupportedCheckpointError, match="must be a token id, and false_token_id"):
        read_cross_encoder_settings(SettingFiles.of_folder(tmp_path))


@pytest.mark.parametrize("kind", ["Dense", "Pooling"])
def test_further_modules_are_rejected(tmp_path: Path, kind: str) -> None:
    write_modules(tmp_path, "Transformer", kind)
    with pytest.raises(UnsupportedCheckpointError, match=f"module '{kind}' is not supported"):
        read_cross_encoder_settings(SettingFiles.of_folder(tmp_path))


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"prompts": {}, "default_prompt_name": None}, False),
        ({"prompts": {"query": "q: "}, "default_prompt_name": None}, False),
        ({"prompts": {"query": ""}, "default_prompt_name": "query"}, False),
        ({"prompts": {"query": "q: "}, "default_prompt_name": "query"}, True),
    ],
)
def test_default_prompt_needs_logit_score(tmp_path: Path, settings: dict[str, Any], refused: bool) -> None:
    write_json(tmp_path / "config_sentence_transformers.json", settings)
    if refused:
        with pytest.raises(UnsupportedCheckpointError, match="'q: ' would be inserted before every query"):
            read_cross_encoder_settings(SettingFiles.of_folder(tmp_path))
    else:
        assert read_cross_encoder_settings(SettingFiles.of_folder(tmp_path)).instruction is None


def test_answers_of_logit_score_are_used(tmp_path: Path) -> None:
    """Ids in the files override the tokenizer's `no` and `yes`."""
    from official_reranker import official_rows
    from test_reranker import MAX_TOKENS, PAIRS, TINY, export_reranker, run

    folder = write_checkpoint(tmp_path / "tiny", TINY)
    words = {
        token["content"]: token["id"] for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    }
    straight = run(export_reranker(folder, tmp_path / "straight"), official_rows(folder, PAIRS, MAX_TOKENS))
    write_logit_score(folder, true_token_id=words["no"], false_token_id=words["yes"])
    swapped = run(export_reranker(folder, tmp_path / "swapped"), official_rows(folder, PAIRS, MAX_TOKENS))
    assert abs(straight + swapped - 1).max() < 1e-6


def test_answers_outside_the_vocabulary_are_rejected(tmp_path: Path) -> None:
    from test_reranker import TINY, export_reranker

    folder = write_checkpoint(tmp_path / "tiny", dataclasses.replace(TINY))
    write_logit_score(folder, true_token_id=300, false_token_id=1)
    with pytest.raises(UnsupportedCheckpointError, match="answer token 300 is outside the vocabulary"):
        export_reranker(folder, tmp_path / "repository")
