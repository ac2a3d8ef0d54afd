"""All checkpoint layouts give the same vectors; unsupported checkpoints are rejected with an explicit error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoint import (
    CAUSAL,
    CLASSIFIER,
    MODEL,
    TinyCheckpoint,
    raw_config,
    stored_tensors,
    write_checkpoint,
    write_json,
    write_weights,
)
from written_graph import Vectors, min_cosine, official_vectors, random_rows, write_graph

from qwen3_triton.export import SourceError, SourceReference, UnsupportedCheckpointError
from qwen3_triton.export.sources.checkpoint import open_checkpoint

ROWS = random_rows([1, 5, 23])


def graph_vectors(source: Path, output: Path) -> Vectors:
    return write_graph(source, output).session.run(ROWS)


def rewrite(source: Path, tensors: dict[str, torch.Tensor]) -> None:
    (source / "model.safetensors").unlink()
    write_weights(source, tensors)


@pytest.fixture(scope="module")
def plain_vectors(tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    return graph_vectors(tiny_source, tmp_path_factory.mktemp("plain") / "out")


@pytest.mark.parametrize(
    "changes",
    [
        {"layout": CAUSAL},
        {"layout": CAUSAL, "tied": False},
        {"layout": CLASSIFIER},
        {"layout": MODEL, "tied": False},
        {"shards": 3},
        {"layout": CAUSAL, "shards": 2, "rope_spelling": "rope_parameters"},
        {"rope_spelling": "rope_parameters"},
    ],
    ids=str,
)
def test_vectors_are_bit_identical_in_every_layout(
    tmp_path: Path, changes: dict[str, Any], plain_vectors: Vectors
) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(**changes))
    assert np.array_equal(graph_vectors(source, tmp_path / "out"), plain_vectors)


def test_plain_vectors_equal_transformers(tiny_source: Path, plain_vectors: Vectors) -> None:
    assert min_cosine(plain_vectors, official_vectors(tiny_source, ROWS)) >= 0.999999


@pytest.mark.parametrize("layout", [MODEL, CAUSAL])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_checkpoints_are_read_exactly(
    tmp_path: Path, dtype: torch.dtype, layout: str, plain_vectors: Vectors
) -> None:
    tiny = TinyCheckpoint(dtype=dtype, layout=layout, shards=2)
    source = write_checkpoint(tmp_path / "half", tiny)
    single = write_checkpoint(tmp_path / "single")
    rewrite(single, {name.removeprefix("model."): tensor.float() for name, tensor in stored_tensors(tiny).items()})
    vectors = graph_vectors(source, tmp_path / "out")
    assert np.array_equal(vectors, graph_vectors(single, tmp_path / "out-single"))
    assert min_cosine(vectors, official_vectors(source, ROWS)) >= 0.999999
    assert not np.array_equal(vectors, plain_vectors)


def test_config_without_architectures_is_a_bare_model(tmp_path: Path, plain_vectors: Vectors) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(config_changes={"architectures": None}))
    assert np.array_equal(graph_vectors(source, tmp_path / "out"), plain_vectors)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "weights.pth", "model.ckpt"])
def test_pickled_weights_are_rejected_without_reading(tmp_path: Path, file: str) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    (source / "model.safetensors").rename(source / file)
    with pytest.raises(UnsupportedCheckpointError, match=rf"only pickled weights \({file}\).*safetensors"):
        open_checkpoint(SourceReference(str(source)))


def test_missing_tensors_are_listed(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    tensors = stored_tensors(TinyCheckpoint())
    del tensors["layers.1.mlp.up_proj.weight"], tensors["norm.weight"]
    rewrite(source, tensors)
    with pytest.raises(UnsupportedCheckpointError, match=r"missing: layers\.1\.mlp\.up_proj\.weight, norm\.weight$"):
        open_checkpoint(SourceReference(str(source)))


def test_unknown_tensors_are_listed_and_counted(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    strays = {f"layers.0.experts.{index}.weight": torch.zeros(1) for index in range(10)}
    rewrite(source, stored_tensors(TinyCheckpoint()) | strays)
    with pytest.raises(
        UnsupportedCheckpointError, match=r"do not exist in Qwen3 models: layers\.0\.experts\.0.* and 2 more$"
    ):
        open_checkpoint(SourceReference(str(source)))


def test_wrong_shapes_are_listed_with_both_shapes(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    write_json(source / "config.json", raw_config(TinyCheckpoint(kv_heads=4)))
    wanted = r"layers\.0\.self_attn\.k_proj\.weight \[32, 40\] instead of \[64, 40\]"
    with pytest.raises(UnsupportedCheckpointError, match=wanted):
        open_checkpoint(SourceReference(str(source)))


def test_integer_weights_are_rejected(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    rewrite(source, stored_tensors(TinyCheckpoint()) | {"norm.weight": torch.ones(40, dtype=torch.int8)})
    with pytest.raises(UnsupportedCheckpointError, match=r"'norm\.weight' is I8"):
        open_checkpoint(SourceReference(str(source)))


def test_duplicate_tensor_is_rejected(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    save_file({"norm.weight": torch.ones(40)}, source / "model-extra.safetensors")
    with pytest.raises(UnsupportedCheckpointError, match=r"'norm\.weight' is in two files"):
        open_checkpoint(SourceReference(str(source)))


def test_incomplete_file_is_named(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SourceError, match=r"model\.safetensors: not readable as safetensors .*complete"):
        open_checkpoint(SourceReference(str(source)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; only qwen3 and qwen2 are supported"),
        ({"model_type": "qwen3_moe"}, "model_type is 'qwen3_moe'"),
        ({"architectures": ["Qwen3ForTokenClassification"]}, "Qwen3ForTokenClassification"),
        ({"attention_bias": True}, "attention_bias is true"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "no weight is quantized"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"rope_theta": None}, "rope_theta"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide', not an integer"),
        (
            {"use_sliding_window": True, "max_window_layers": "none", "sliding_window": 32},
            "max_window_layers is 'none', not an integer",
        ),
        (
            {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 2, "sliding_window": None},
            "'sliding_window' is missing",
        ),
    ],
)
def test_unsupported_config_is_rejected(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(config_changes=changes))
    with pytest.raises(UnsupportedCheckpointError, match=message) as caught:
        open_checkpoint(SourceReference(str(source)))
    assert str(source / "config.json") in str(caught.value)


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings"])
def test_config_without_a_required_field_is_rejected(tmp_path: Path, field: str) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    raw = json.loads((source / "config.json").read_text())
    del raw[field]
    write_json(source / "config.json", raw)
    with pytest.raises(UnsupportedCheckpointError, match=f"'{field}' is missing"):
        open_checkpoint(SourceReference(str(source)))


def test_unused_sliding_window_is_ignored(tmp_path: Path) -> None:
    unused = {"use_sliding_window": False, "sliding_window": 8}
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(config_changes=unused))
    assert open_checkpoint(SourceReference(str(source))).config.sliding_window is None


@pytest.mark.parametrize("reference", ["no/such/folder", "nowhere", "/no/such/folder", "acme/loras//../x"])
def test_missing_source_raises_an_error(reference: str) -> None:
    with pytest.raises(SourceError, match=f"'{reference}' is neither a directory nor a hub id"):
        open_checkpoint(SourceReference(reference))


@pytest.mark.parametrize(
    "text", ["acme/model", "acme/model@main", "/models/with@sign", "folder"], ids=["hub", "revision", "path", "name"]
)
def test_source_text_form_round_trips(text: str) -> None:
    assert str(SourceReference.parse(text)) == text


def test_at_sign_in_an_existing_folder_is_not_a_revision(tmp_path: Path) -> None:
    folder = tmp_path / "model@main"
    folder.mkdir()
    assert SourceReference.parse(str(folder)) == SourceReference(str(folder))
