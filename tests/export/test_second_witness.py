"""The second witness of an export: sentence-transformers reads the same sources, and a difference fails the export."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft_adapters import write_adapter
from recorded_notes import Notes
from test_chat_template import TEMPLATES
from test_witness import write_sentence_files, write_text_generation_reranker
from tiny_checkpoint import CAUSAL, TinyCheckpoint, write_checkpoint, write_json, write_tokenizer
from transformers import AutoModel
from written_graph import Vectors

from qwen3_triton.client import ExportRecord
from qwen3_triton.export import (
    AdapterReference,
    ExportError,
    ExportOptions,
    ExportResult,
    SourceReference,
    WitnessChoice,
    WitnessError,
    export_model,
    model_sources,
    reference_evidence,
)
from qwen3_triton.export.sources.sentence_transformers import read_sentence_settings

pytest.importorskip("sentence_transformers", minversion="5.4")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

INSTRUCTION = {"query": "Instruct: Find it\nQuery:", "document": ""}


def export(folder: Path, *adapters: Path, **options: Any) -> tuple[ExportResult, list[str]]:
    notes = Notes()
    chosen = ExportOptions(
        model=SourceReference(str(folder)),
        adapters=tuple(AdapterReference(SourceReference(str(adapter))) for adapter in adapters),
        repository=folder.parent / "repository",
        name="model",
        overwrite=True,
    )
    return export_model(dataclasses.replace(chosen, **options), notes), notes.notes


def sentence_model(folder: Path, **settings: Any) -> Path:
    write_checkpoint(folder)
    write_sentence_files(folder, **settings)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_tokens": 40},
        {"query_template": "search: {text}", "document_template": "passage: {text}"},
        {"instruction": "Find something else"},
    ],
    ids=["as stated", "shorter", "templates", "instruction"],
)
def test_witness_agrees_and_is_recorded(tmp_path: Path, options: dict[str, Any]) -> None:
    result, _ = export(sentence_model(tmp_path / "model", prompts=INSTRUCTION), **options)
    witness = result.record.witness
    assert witness is not None
    assert witness.library.startswith("sentence-transformers ")
    assert witness.texts > 20
    assert 0 <= witness.error < witness.tolerance == 1e-5
    assert ExportRecord.from_json(result.folder.manifest.read_text(encoding="utf-8")).witness == witness


@pytest.mark.parametrize(
    "prompts",
    [
        {"query": "search_query: ", "document": "search_document: "},
        {"query": "q: ", "passage": "p: "},
        {"query": "q: ", "document": "", "passage": "p: "},
        {},
    ],
    ids=["both", "passage", "document and passage", "none"],
)
def test_stated_prompts_are_read_alike(tmp_path: Path, prompts: dict[str, str]) -> None:
    assert export(sentence_model(tmp_path / "model", prompts=prompts))[0].record.witness is not None


def test_adapter_on_top_of_the_base(tmp_path: Path) -> None:
    base = sentence_model(tmp_path / "base", prompts=INSTRUCTION)
    assert export(base, write_adapter(tmp_path / "adapter", base))[0].record.witness is not None


def test_adapter_with_its_own_files_and_a_base_of_another_name(tmp_path: Path) -> None:
    """The witness gets links to the adapter and the base that is exported; nothing in the adapter's folder changes."""
    base = sentence_model(tmp_path / "base", prompts=INSTRUCTION)
    adapter = write_adapter(tmp_path / "adapter", base)
    write_sentence_files(adapter, prompts={"query": "search_query: ", "document": "search_document: "})
    write_tokenizer(adapter)
    moved = base.rename(tmp_path / "moved")
    before = {file: file.read_bytes() for file in adapter.rglob("*") if file.is_file()}
    result, _ = export(moved, adapter)
    assert result.record.witness is not None
    assert {file: file.read_bytes() for file in adapter.rglob("*") if file.is_file()} == before


def test_adapter_with_some_files_of_its_own(tmp_path: Path) -> None:
    """The base has modules, pooling and prompts, the adapter only other prompts, which apply."""
    base = sentence_model(tmp_path / "base", prompts=INSTRUCTION)
    adapter = write_adapter(tmp_path / "adapter", base)
    write_json(adapter / "config_sentence_transformers.json", {"prompts": {"query": "find: ", "document": "text: "}})
    result, _ = export(base, adapter)
    assert result.record.witness is not None
    assert result.record.manifest.to_fields()["prompts"]["query"] == "find: {text}"


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [({"query": "{text}"}, "query"), ({"document": "Query:{text}"}, "document")],
    ids=["query", "document"],
)
def test_different_reading_fails_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], kind: str
) -> None:
    read = read_sentence_settings

    def misread(*arguments: Any, **keywords: Any) -> Any:
        settings = read(*arguments, **keywords)
        return dataclasses.replace(settings, prompts=dataclasses.replace(settings.prompts, **wrong))

    monkeypatch.setattr(model_sources, "read_sentence_settings", misread)
    folder = sentence_model(tmp_path / "model", prompts={"query": "search_query: ", "document": "search_document: "})
    with pytest.raises(WitnessError, match=f"reads the same files differently: an error of .* for the {kind} '"):
        export(folder)
    assert not list((tmp_path / "repository").glob("model*"))
    assert export(folder, witness=WitnessChoice.NONE)[0].record.witness is None


def test_cross_encoder_with_a_chat_template(tmp_path: Path) -> None:
    folder = write_text_generation_reranker(tmp_path / "model", next(iter(TEMPLATES.values())))
    result, notes = export(folder, max_tokens=400)
    assert result.record.witness is not None, notes
    assert result.record.witness.tolerance == 1e-4


def test_sources_that_the_witness_cannot_read_are_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    result, notes = export(folder)
    assert result.record.witness is None
    reason = "the sources have no modules.json, so sentence-transformers would use other pooling"
    assert f"no second witness: {reason}" in notes
    with pytest.raises(ExportError, match=reason):
        export(folder, witness=WitnessChoice.SENTENCE_TRANSFORMERS)


def test_official_reranker_prompt_is_not_applied_by_the_witness(tmp_path: Path) -> None:
    tiny = TinyCheckpoint(layout=CAUSAL, end_token=False, answers=True, max_positions=512, head_scale=0.1)
    folder = write_checkpoint(tmp_path / "model", tiny)
    write_json(
        folder / "modules.json",
        [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}],
    )
    result, notes = export(folder, max_tokens=480)
    assert result.record.witness is None
    assert "no second witness: sentence-transformers does not apply Qwen3-Reranker's prompt to pairs" in notes


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def find_others(name: str) -> Any:
        return None if name == "sentence_transformers" else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_others)
    _, notes = export(sentence_model(tmp_path / "model", prompts=INSTRUCTION))
    assert "no second witness: sentence-transformers is not installed (pip install 'qwen3-triton[witness]')" in notes


def test_broken_installation_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example with a version of huggingface_hub that the library cannot use."""

    load = importlib.import_module

    def broken(name: str, *arguments: Any) -> Any:
        if name == "sentence_transformers":
            raise ImportError("cannot import name 'x' from 'y'")
        return load(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", broken)
    _, notes = export(sentence_model(tmp_path / "model", prompts=INSTRUCTION))
    assert "no second witness: sentence-transformers cannot load the sources: cannot import name 'x' from 'y'" in notes


def test_dora_has_no_witness(tmp_path: Path) -> None:
    """`load_adapter` of transformers 5 reports the magnitudes as unexpected and computes with untrained ones."""
    base = sentence_model(tmp_path / "base", prompts=INSTRUCTION)
    adapter = write_adapter(tmp_path / "adapter", base, use_dora=True)
    result, notes = export(base, adapter)
    assert result.record.witness is None
    expected = "sentence-transformers loads adapters by transformers, which drops the magnitudes of DoRA"
    assert f"no second witness: {expected}" in notes


@pytest.mark.parametrize(
    "settings",
    [{"trainable_token_indices": [1, 2, 3]}, {"use_rslora": True, "modules_to_save": ["norm"]}],
    ids=["tokens", "rslora-norms"],
)
def test_other_forms_of_adapters_agree(tmp_path: Path, settings: dict[str, Any]) -> None:
    base = sentence_model(tmp_path / "base", prompts=INSTRUCTION)
    result, notes = export(base, write_adapter(tmp_path / "adapter", base, **settings))
    assert result.record.witness is not None, notes
    assert result.record.witness.passed


def test_several_adapters_have_no_witness(tmp_path: Path) -> None:
    base = sentence_model(tmp_path / "base", prompts=INSTRUCTION)
    adapters = [write_adapter(tmp_path / f"adapter{seed}", base) for seed in range(2)]
    _, notes = export(base, *adapters)
    assert "no second witness: sentence-transformers loads one adapter of weight 1" in notes


def states_of(folder: Path, scale: float) -> Any:
    """A stand-in for optimum's graph: the final states of transformers, in which `scale` changes one channel."""

    def pooled_states(_checkpoint: object, rows: list[list[int]], _scratch: Path) -> tuple[str, Vectors]:
        model = AutoModel.from_pretrained(folder, dtype=torch.float32)
        with torch.inference_mode():
            found = [model(input_ids=torch.tensor([row])).last_hidden_state[0, -1].numpy() for row in rows]
        states = np.stack(found)
        states[:, 0] *= scale
        return "optimum-onnx 1", states

    return pooled_states


@pytest.mark.parametrize("layout", [None, CAUSAL], ids=["embedding", "reranker"])
def test_graph_of_optimum_is_compared_with_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Any
) -> None:
    tiny = TinyCheckpoint(layout=CAUSAL, end_token=False, answers=True, max_positions=512, head_scale=0.1)
    folder = write_checkpoint(tmp_path / "model", tiny if layout else TinyCheckpoint())
    options = {"max_tokens": 480 if layout else 50, "witness": WitnessChoice.OPTIMUM}
    monkeypatch.setattr(reference_evidence, "pooled_states", states_of(folder, 1.0))
    witness = export(folder, **options)[0].record.witness
    assert witness is not None
    assert witness.library == "optimum-onnx 1"
    monkeypatch.setattr(reference_evidence, "pooled_states", states_of(folder, -3.0))
    with pytest.raises(WitnessError, match=r"for a row of [0-9]+ tokens"):
        export(folder, **options)


@pytest.mark.skipif(importlib.util.find_spec("optimum") is not None, reason="optimum is installed")
def test_optimum_is_not_part_of_the_default_installation(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    with pytest.raises(ExportError, match=r"optimum-onnx is not installed \(pip install 'qwen3-triton\[optimum\]'\)"):
        export(folder, witness=WitnessChoice.OPTIMUM)
