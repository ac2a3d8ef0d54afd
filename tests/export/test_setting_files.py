"""Files beside the weights: an adapter's take precedence, and keys that change the result are applied or rejected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_adapters import write_adapter
from recorded_notes import Notes
from safetensors.torch import load_file, save_file
from tiny_checkpoint import CAUSAL, TinyCheckpoint, write_checkpoint, write_json, write_tokenizer
from transformers import AutoModel
from written_graph import min_cosine, model_vectors, official_vectors, random_rows

from qwen3_triton.client import EmbeddingManifest, ExportRecord, Prompts
from qwen3_triton.export import (
    AdapterReference,
    ExportError,
    ExportOptions,
    ExportResult,
    MergeOptions,
    SourceError,
    SourceReference,
    UnsupportedCheckpointError,
    export_model,
    open_checkpoint,
    write_merged_checkpoint,
)
from qwen3_triton.export.sources.adapter import open_adapter
from qwen3_triton.export.sources.setting_rules import ADAPTER_RULES, CONFIG_RULES, Treatment
from qwen3_triton.export.verification.runtime import WrittenModel

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers, of a name that PEFT uses

ROWS = random_rows([1, 7, 40])
PROMPTS_FILE = "config_sentence_transformers.json"


def references(*folders: Path) -> tuple[AdapterReference, ...]:
    return tuple(AdapterReference(SourceReference(str(folder))) for folder in folders)


def export(source: Path, repository: Path, *adapters: Path, notes: Notes | None = None, **changes: Any) -> ExportResult:
    options = ExportOptions(
        model=SourceReference(str(source)),
        adapters=references(*adapters),
        repository=repository,
        name=str(changes.pop("name", "model")),
        max_tokens=changes.pop("max_tokens", 64),
        **changes,
    )
    return export_model(options, notes)


def prompts_of(result: ExportResult) -> Prompts:
    assert isinstance(result.manifest, EmbeddingManifest)
    return result.manifest.prompts


def write_pooling(folder: Path, mode: str, *, transformer: str = "") -> None:
    modules = [
        {"idx": 0, "name": "0", "path": transformer, "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    write_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": mode})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A base that states prompts and pooling."""
    folder = write_checkpoint(tmp_path / "base")
    write_json(folder / PROMPTS_FILE, {"prompts": {"query": "Instruct: Find it\nQuery:", "document": ""}})
    write_pooling(folder, "lasttoken")
    return folder


def test_adapter_prompts_replace_those_of_the_base(tmp_path: Path, source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", source)
    assert prompts_of(export(source, tmp_path / "a", adapter)).default_instruction == "Find it"
    write_json(adapter / PROMPTS_FILE, {"prompts": {"query": "search_query: ", "document": "search_document: "}})
    notes = Notes()
    prompts = prompts_of(export(source, tmp_path / "b", adapter, notes=notes))
    assert (prompts.query, prompts.document) == ("search_query: {text}", "search_document: {text}")
    [note] = [note for note in notes.notes if note.startswith("prompts")]
    assert str(adapter / PROMPTS_FILE) in note
    assert "'search_query: how tall is it?'" in note


def test_adapter_that_states_empty_prompts_removes_those_of_the_base(tmp_path: Path, source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", source)
    write_json(adapter / PROMPTS_FILE, {"prompts": {"query": "", "document": ""}})
    assert prompts_of(export(source, tmp_path / "a", adapter)).query == "{text}"


@pytest.mark.parametrize("mode", ["cls", "max", "weightedmean"])
def test_adapter_pooling_is_checked(tmp_path: Path, source: Path, mode: str) -> None:
    adapter = write_adapter(tmp_path / "adapter", source)
    write_pooling(adapter, mode)
    with pytest.raises(UnsupportedCheckpointError, match=f"adapter/1_Pooling/config.json: pooling '{mode}'"):
        export(source, tmp_path / "a", adapter)


def test_adapter_tokenizer_and_length_apply(tmp_path: Path, source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", source)
    write_tokenizer(adapter, end_token=False)
    write_json(adapter / "sentence_bert_config.json", {"max_seq_length": 48})
    manifest = export(source, tmp_path / "a", adapter, max_tokens=None).manifest
    assert isinstance(manifest, EmbeddingManifest)
    assert (manifest.end_token_id, manifest.max_tokens) == (None, 48)
    assert (tmp_path / "a/model/tokenizer.json").read_bytes() == (adapter / "tokenizer.json").read_bytes()


def test_manifest_says_what_came_from_where(tmp_path: Path, source: Path) -> None:
    plain = export(source, tmp_path / "plain").record.origins
    assert plain["tokenizer"] == f"tokenizer.json of {source}"
    assert plain["prompts"] == f"{PROMPTS_FILE} of {source}"
    adapter = write_adapter(tmp_path / "adapter", source)
    write_json(adapter / PROMPTS_FILE, {"prompts": {"query": "q: ", "document": "d: "}})
    write_json(adapter / "sentence_bert_config.json", {"max_seq_length": 48})
    result = export(source, tmp_path / "tuned", adapter, max_tokens=None)
    assert result.record.origins == {
        "tokenizer": f"tokenizer.json of {source}",
        "modules": plain["modules"],
        "prompts": f"{PROMPTS_FILE} of adapter {adapter}",
        "max_tokens": f"sentence_bert_config.json of adapter {adapter}",
    }
    assert ExportRecord.from_json(result.folder.manifest.read_text(encoding="utf-8")).origins == result.record.origins
    chosen = export(source, tmp_path / "chosen", adapter, max_tokens=40, query_template="find {text}").record.origins
    assert (chosen["prompts"], chosen["max_tokens"]) == ("options", "options")


@pytest.mark.parametrize("appended", [True, False])
def test_end_token_that_only_the_config_asks_for_is_reported(tmp_path: Path, appended: bool) -> None:
    """transformers reads the steps of tokenizer.json, too, and ignores `add_eos_token`."""
    folder = write_checkpoint(tmp_path / "model", TinyCheckpoint(end_token=appended))
    config = folder / "tokenizer_config.json"
    write_json(config, json.loads(config.read_text(encoding="utf-8")) | {"add_eos_token": True, "add_bos_token": False})
    notes = Notes()
    result = export(folder, tmp_path / "repository", notes=notes)
    manifest = result.manifest
    assert isinstance(manifest, EmbeddingManifest)
    assert (manifest.end_token_id is not None) is appended
    asked = "although tokenizer_config.json has add_eos_token true; transformers ignores that, too"
    assert any(asked in note for note in notes.notes) is not appended


def test_origins_of_a_bare_checkpoint_are_defaults(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "bare", TinyCheckpoint(max_positions=64))
    stated = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(
        folder / "tokenizer_config.json", {name: value for name, value in stated.items() if name != "model_max_length"}
    )
    assert export(folder, tmp_path / "repository", max_tokens=None).record.origins == {
        "tokenizer": f"tokenizer.json of {folder}",
        "modules": "none stated: last-token pooling",
        "prompts": "no source states one",
        "max_tokens": "default",
    }


def test_adapters_that_disagree_are_an_error_with_both_values(tmp_path: Path, source: Path) -> None:
    one, other = (write_adapter(tmp_path / name, source, seed=seed) for seed, name in enumerate(("one", "other")))
    same = {"prompts": {"query": "q: ", "document": ""}}
    write_json(one / PROMPTS_FILE, same)
    write_json(other / PROMPTS_FILE, same | {"similarity_fn_name": None})
    with pytest.raises(
        UnsupportedCheckpointError, match=r"disagree about config_sentence_transformers\.json"
    ) as caught:
        write_json(other / PROMPTS_FILE, {"prompts": {"query": "find: ", "document": ""}})
        export(source, tmp_path / "a", one, other)
    assert "'q: '" in str(caught.value)
    assert "'find: '" in str(caught.value)
    # the same values in another order of keys are no disagreement
    (other / PROMPTS_FILE).write_text('{"prompts": {"document": "", "query": "q: "}}')
    assert prompts_of(export(source, tmp_path / "b", one, other)).query == "q: {text}"


def test_merged_checkpoint_has_the_files_of_the_adapter(tmp_path: Path, source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", source)
    write_json(adapter / PROMPTS_FILE, {"prompts": {"query": "q: ", "document": "d: "}})
    merged = write_merged_checkpoint(
        MergeOptions(model=SourceReference(str(source)), adapters=references(adapter), output=tmp_path / "merged")
    ).folder
    assert json.loads((merged / PROMPTS_FILE).read_text())["prompts"]["query"] == "q: "
    assert not (merged / "adapter_config.json").exists()
    direct = export(source, tmp_path / "a", adapter)
    assert prompts_of(export(merged, tmp_path / "b")) == prompts_of(direct)


def test_adapter_beside_weights_must_be_passed_explicitly(tmp_path: Path, source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", source)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(adapter / name, source / name)
    with pytest.raises(UnsupportedCheckpointError, match="transformers would apply this adapter"):
        export(source, tmp_path / "a")
    result = export(source, tmp_path / "b", source)
    official = AutoModel.from_pretrained(source, dtype=torch.float32)
    answers = WrittenModel(result.folder.graph(1)).run(ROWS)
    assert min_cosine(answers, model_vectors(official, ROWS)) >= 0.999999
    merged = write_merged_checkpoint(
        MergeOptions(model=SourceReference(str(source)), adapters=references(source), output=tmp_path / "merged")
    ).folder
    assert min_cosine(official_vectors(merged, ROWS), answers) >= 0.999999


def test_transformer_in_a_subfolder(tmp_path: Path) -> None:
    root = tmp_path / "model"
    inner = write_checkpoint(root / "0_Transformer")
    write_pooling(root, "lasttoken", transformer="0_Transformer")
    write_json(root / PROMPTS_FILE, {"prompts": {"query": "q: ", "document": ""}})
    write_json(inner / "sentence_bert_config.json", {"max_seq_length": 40})
    result = export(root, tmp_path / "a", max_tokens=None)
    assert (prompts_of(result).query, result.manifest.max_tokens) == ("q: {text}", 40)
    answers = WrittenModel(result.folder.graph(1)).run(ROWS)
    assert min_cosine(answers, official_vectors(inner, ROWS)) >= 0.999999
    adapter = write_adapter(tmp_path / "adapter", inner)
    merged = write_merged_checkpoint(
        MergeOptions(model=SourceReference(str(root)), adapters=references(adapter), output=tmp_path / "merged")
    ).folder
    assert (merged / "0_Transformer" / "model.safetensors").is_file()
    parity = export(merged, tmp_path / "b").record.parity
    assert parity is not None
    assert parity.passed


def test_module_path_outside_of_the_folder_is_rejected(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    write_pooling(folder, "lasttoken", transformer="../../etc")
    with pytest.raises(SourceError, match="outside of the folder"):
        export(folder, tmp_path / "a")


@pytest.mark.parametrize(
    ("limit", "expected"), [(50, 50), (1e30, 256), (None, 256)], ids=["stated", "unlimited", "absent"]
)
def test_model_max_length_is_the_limit_without_another(tmp_path: Path, limit: float | None, expected: int) -> None:
    folder = write_checkpoint(tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", settings | {"model_max_length": limit})
    assert export(folder, tmp_path / "a", max_tokens=None).manifest.max_tokens == expected
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 30})
    assert export(folder, tmp_path / "b", max_tokens=None).manifest.max_tokens == 30


@pytest.mark.parametrize("name", ["qwen3-embedding-0.6b", "Qwen3-Embedding-8B-law"])
def test_only_qwen3_embedding_has_prompts_that_no_file_states(tmp_path: Path, name: str) -> None:
    known, other = write_checkpoint(tmp_path / name), write_checkpoint(tmp_path / "other")
    assert prompts_of(export(known, tmp_path / "a")).query == "Instruct: {instruction}\nQuery:{text}"
    assert prompts_of(export(other, tmp_path / "b")).query == "{text}"
    adapter = write_adapter(tmp_path / "adapter", other)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    write_json(adapter / "adapter_config.json", settings | {"base_model_name_or_path": f"Qwen/{name}"})
    assert "{instruction}" in prompts_of(export(other, tmp_path / "c", adapter)).query


def test_templates_override_what_the_files_state(tmp_path: Path, source: Path) -> None:
    templates: dict[str, Any] = {"query_template": "{instruction} >> {text}", "document_template": "doc: {text}"}
    prompts = prompts_of(export(source, tmp_path / "a", **templates))
    assert (prompts.query, prompts.document) == ("{instruction} >> {text}", "doc: {text}")
    assert prompts.default_instruction == "Find it"
    plain = prompts_of(export(source, tmp_path / "b", query_template="q {text}"))
    assert (plain.query, plain.document, plain.default_instruction) == ("q {text}", "{text}", None)
    filled = prompts_of(export(source, tmp_path / "c", instruction="Find the law", **templates))
    assert filled.default_instruction == "Find the law"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_template": "query"}, r"query template 'query' has no \{text\}"),
        ({"document_template": "{instruction} {text}"}, r"must not have \{instruction\}"),
        ({"query_template": "q {text}", "instruction": "x"}, "no place for an instruction"),
    ],
)
def test_templates_that_cannot_be_filled_are_rejected(
    tmp_path: Path, source: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export(source, tmp_path / "a", **changes)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"prompts": {"query": "q: "}, "default_prompt_name": "query"}, "state a prompt for 'document'"),
        ({"prompts": {"a": "x: ", "document": ""}, "default_prompt_name": "a"}, "state a prompt for 'query'"),
        ({"prompts": {"query": "q: "}, "truncate_dim": 16}, "truncate_dim 16 is not supported"),
    ],
)
def test_sentence_settings_that_change_the_embedding_are_rejected(
    tmp_path: Path, source: Path, stated: dict[str, Any], message: str
) -> None:
    write_json(source / PROMPTS_FILE, stated)
    with pytest.raises(UnsupportedCheckpointError, match=message):
        export(source, tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_causal": 0}, "is_causal is 0, not true or false"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention True"),
        ({"is_bidirectional": True}, "is_bidirectional True"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling_x.Model"}}, "auto_map"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "weights are quantized"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config: no weight is quantized"),
        ({"mlp_bias": True}, "mlp_bias True"),
    ],
)
def test_config_keys_that_change_the_function_are_rejected(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(config_changes=changes))
    with pytest.raises(UnsupportedCheckpointError, match=message):
        open_checkpoint(SourceReference(str(folder)))


def test_unknown_config_keys_are_reported(tmp_path: Path) -> None:
    changes = {"logit_scale": 0.5, "another_switch": None, "use_cache": True, "is_causal": True}
    folder = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(config_changes=changes))
    notes = Notes()
    export(folder, tmp_path / "a", notes=notes)
    [note] = [note for note in notes.notes if note.startswith("config.json has settings")]
    assert note.endswith("are not applied: logit_scale")


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 2}, None),
        ({"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1}, 32),
        ({"use_sliding_window": False, "sliding_window": 32, "max_window_layers": 0}, None),
        ({"layer_types": ["full_attention"] * 2, "sliding_window": 32, "use_sliding_window": True}, None),
        ({"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 32}, 32),
    ],
)
def test_window_counts_only_where_a_layer_has_it(tmp_path: Path, changes: dict[str, Any], window: int | None) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(config_changes=changes))
    assert open_checkpoint(SourceReference(str(folder))).config.sliding_window == window


@pytest.mark.parametrize("init", [True, False, "gaussian", "Gaussian", "eva", "orthogonal", "mica"])
def test_neutral_initializations_are_accepted(tmp_path: Path, tiny_source: Path, init: object) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    change_adapter(adapter, init_lora_weights=init)
    assert open_adapter(references(adapter)[0]).tensors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_lora_weights": "lora-ga"}, "init_lora_weights 'lora-ga' changed the base as well"),
        ({"init_lora_weights": "mystery"}, "init_lora_weights 'mystery' is not supported"),
        ({"use_new_variant": True}, "use_new_variant may change what the adapter computes"),
        ({"target_parameters": ["x"]}, "target_parameters"),
    ],
)
def test_unknown_adapter_options_are_rejected(
    tmp_path: Path, tiny_source: Path, changes: dict[str, Any], message: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    change_adapter(adapter, **changes)
    with pytest.raises(UnsupportedCheckpointError, match=message):
        open_adapter(references(adapter)[0])


def test_fields_of_ms_swift_are_neutral(tmp_path: Path, tiny_source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    change_adapter(adapter, lora_dtype="bfloat16", lorap_lr_ratio=16.0, lorap_emb_lr=1e-6, future_option=None)
    assert open_adapter(references(adapter)[0]).tensors


def change_adapter(adapter: Path, **changes: object) -> None:
    file = adapter / "adapter_config.json"
    write_json(file, json.loads(file.read_text()) | changes)


@pytest.mark.parametrize("rules", [ADAPTER_RULES, CONFIG_RULES], ids=["adapter", "config"])
def test_every_key_has_one_rule(rules: tuple[Any, ...]) -> None:
    keys = [key for rule in rules for key in rule.keys]
    assert len(keys) == len(set(keys))
    for rule in rules:
        assert rule.note
        assert (rule.treatment is Treatment.CHECKED) == bool(rule.remedy)


def test_every_option_of_the_installed_peft_has_a_rule() -> None:
    import dataclasses

    from peft import LoraConfig

    known = {key for rule in ADAPTER_RULES for key in rule.keys}
    assert {field.name for field in dataclasses.fields(LoraConfig)} <= known


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "model._orig_mod."])
def test_prefix_of_torch_compile_is_removed(tmp_path: Path, wrapper: str) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(layout=CAUSAL))
    adapter = write_adapter(tmp_path / "adapter", folder, causal=True)
    plain = export(folder, tmp_path / "a", adapter)
    for file in (folder / "model.safetensors", adapter / "adapter_model.safetensors"):
        tensors = load_file(file)
        wrapped = {
            name.replace("model.", wrapper, 1) if "." in wrapper[:-1] else wrapper + name: tensor
            for name, tensor in tensors.items()
        }
        assert wrapped.keys() != tensors.keys()
        save_file(wrapped, file, metadata={"format": "pt"})
    result = export(folder, tmp_path / "b", adapter)
    weights = [found.folder.graph(1).with_name("model.onnx.data").read_bytes() for found in (plain, result)]
    assert weights[0] == weights[1]
