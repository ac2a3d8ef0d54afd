"""Qwen2 checkpoints (biases on q, k and v, no norms on heads) against transformers in every precision."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from attention_functions import open_decomposed
from graph_branches import Branch, nodes_of, plain_name
from peft_adapters import peft_truth, write_adapter
from tiny_checkpoint import CAUSAL, CLASSIFIER, TinyCheckpoint, write_checkpoint
from written_graph import min_cosine, official_vectors, random_rows, write_graph

from qwen3_triton.client import ParityReport, Precision
from qwen3_triton.export import (
    AdapterReference,
    CudaAttention,
    CudaProfile,
    Device,
    ExportOptions,
    ExportResult,
    RuntimeVersion,
    SourceReference,
    TaskChoice,
    TritonRelease,
    UnsupportedCheckpointError,
    export_model,
    open_checkpoint,
    weight_format,
)
from qwen3_triton.export.architectures import DecoderConfig
from qwen3_triton.export.passes.rotate import rotate_stream
from qwen3_triton.export.passes.rotation import make_rotation
from qwen3_triton.export.passes.smooth import SmoothingPoint, smooth_weights
from qwen3_triton.export.sources.weights import Weights
from qwen3_triton.export.verification.runtime import WrittenModel

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # from transformers, about a name that PEFT uses

TINY = TinyCheckpoint(model_type="qwen2", layers=3, hidden=64, intermediate=96, heads=4, kv_heads=2, head_dim=16)
SHAPES = {
    "grouped": TINY,
    "one query head per key head": dataclasses.replace(TINY, kv_heads=4),
    "explicit head_dim": dataclasses.replace(TINY, head_dim=24, layers=1),
}
ROWS = random_rows([1, 2, 7, 33, 48, 5])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("qwen2") / "tiny", TINY)


def options(source: Path, repository: Path, **changes: Any) -> ExportOptions:
    fields: dict[str, Any] = {"model": SourceReference(str(source)), "repository": repository, "max_tokens": 64}
    return ExportOptions(**fields | changes)


def parity_of(result: ExportResult) -> ParityReport:
    parity = result.record.parity
    assert isinstance(parity, ParityReport)
    return parity


@pytest.mark.parametrize("tiny", SHAPES.values(), ids=SHAPES.keys())
def test_fp32_equals_transformers_alone_and_batched(tmp_path: Path, tiny: TinyCheckpoint) -> None:
    folder = write_checkpoint(tmp_path / "tiny", tiny)
    session = write_graph(folder, tmp_path / "out").session
    alone = session.run_alone(ROWS)
    assert min_cosine(alone, official_vectors(folder, ROWS)) >= 0.999999
    assert np.array_equal(session.run(ROWS), alone)


def test_each_bias_affects_the_vectors(source: Path, tmp_path: Path) -> None:
    """Parity would fail if one of the three biases were missing."""
    truth = official_vectors(source, ROWS)
    for part in "qkv":

        def without(weights: Weights, _: DecoderConfig, part: str = part) -> Weights:
            return {
                name: tensor.changed(torch.zeros_like) if name.endswith(f"{part}_proj.bias") else tensor
                for name, tensor in weights.items()
            }

        changed = write_graph(source, tmp_path / part, change=without).session.run(ROWS)
        assert min_cosine(changed, truth) < 0.999


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
@pytest.mark.parametrize("tiny", SHAPES.values(), ids=SHAPES.keys())
def test_exports_for_cpus_pass_their_checks(tmp_path: Path, tiny: TinyCheckpoint, precision: Precision) -> None:
    folder = write_checkpoint(tmp_path / "tiny", tiny)
    parity = parity_of(export_model(options(folder, tmp_path / "repository", precision=precision)))
    assert 1 - parity.min_cosine <= weight_format(precision, Device.CPU).tolerance.cosine
    # the order of sums in the CPU's fp16 kernels depends on the number of rows
    assert parity.batched_bit_identical or precision is Precision.FP16


@pytest.mark.parametrize("attention", CudaAttention)
@pytest.mark.parametrize("precision", Precision)
def test_exports_for_gpus_pass_their_checks(
    source: Path, tmp_path: Path, precision: Precision, attention: CudaAttention
) -> None:
    cuda = {"device": Device.CUDA, "cuda_attention": attention, "triton_release": TritonRelease.R26_07}
    result = export_model(options(source, tmp_path / "repository", precision=precision, **cuda))
    assert 1 - parity_of(result).min_cosine <= weight_format(precision, Device.CUDA).tolerance.cosine


@pytest.mark.parametrize("runtime", [RuntimeVersion(1, 23, 2), RuntimeVersion(1, 31)], ids=str)
@pytest.mark.parametrize("attention", CudaAttention)
def test_gpu_graphs_have_biases_and_no_norms_on_heads(
    source: Path, tmp_path: Path, attention: CudaAttention, runtime: RuntimeVersion
) -> None:
    profile = CudaProfile(runtime=runtime, attention=attention)
    file = write_graph(source, tmp_path / "out", Precision.FP16, cuda=profile).file
    graph = onnx.load(file, load_external_data=False).graph
    for branch in Branch:
        nodes = nodes_of(graph, branch)
        attends = [node for node in nodes if node.op_type in ("GroupQueryAttention", "PagedAttention")]
        assert len(attends) == TINY.layers
        for node in attends:
            assert all(node.input[:3]), "q, k and v are separate inputs"
            assert "qk_norm_epsilon" not in {attribute.name for attribute in node.attribute}
        biased = {
            plain_name(node.name) for node in nodes if node.name.startswith("layers.1.") and node.op_type == "Add"
        }
        assert biased == {f"layers.1.attention.{part}_biased" for part in "qkv"}
    session = open_decomposed(file)
    for rows in (ROWS, random_rows([9] * 4)):
        assert min_cosine(session.run(rows), official_vectors(source, rows)) >= 0.9999


@pytest.mark.parametrize("point", SmoothingPoint, ids=[point.name for point in SmoothingPoint])
def test_smoothing_and_rotation_preserve_the_function(source: Path, tmp_path: Path, point: SmoothingPoint) -> None:
    rng = torch.Generator().manual_seed(3)
    width = {SmoothingPoint.VALUE: TINY.kv_heads * TINY.head_dim, SmoothingPoint.INTERMEDIATE: TINY.intermediate}
    scales = {
        index: {point: 10 ** (2 * torch.rand(width.get(point, TINY.hidden), generator=rng) - 1)}
        for index in range(TINY.layers)
    }

    def change(weights: Weights, config: DecoderConfig) -> Weights:
        rotated = rotate_stream(smooth_weights(weights, config, scales), config, make_rotation(config.hidden))
        return smooth_weights(rotated, config, scales) if point in width else rotated

    vectors = write_graph(source, tmp_path / "out", change=change).session.run(ROWS)
    assert min_cosine(vectors, official_vectors(source, ROWS)) >= 0.99999


@pytest.mark.parametrize("causal", [False, True])
def test_merged_adapters_equal_peft(tmp_path: Path, causal: bool) -> None:
    folder = write_checkpoint(tmp_path / "tiny", dataclasses.replace(TINY, layout=CAUSAL) if causal else TINY)
    adapter = write_adapter(tmp_path / "adapter", folder, causal=causal)
    truth = peft_truth(folder, adapter, ROWS, causal=causal)
    reference = (AdapterReference(SourceReference(str(adapter))),)
    result = export_model(options(folder, tmp_path / "repository", adapters=reference))
    assert min_cosine(WrittenModel(result.folder.graph(1)).run(ROWS), truth.forward) >= 0.999999


def test_checkpoint_without_prompts_has_none(source: Path, tmp_path: Path) -> None:
    """The default prompts of Qwen3-Embedding apply to Qwen3 only."""
    manifest = export_model(options(source, tmp_path / "repository")).manifest
    assert json.loads(manifest.to_json())["prompts"] == {
        "query": "{text}",
        "document": "{text}",
        "default_instruction": None,
    }


def test_causal_lm_without_end_token_is_an_embedding_model(tmp_path: Path) -> None:
    tiny = dataclasses.replace(TINY, layout=CAUSAL, end_token=False, answers=True)
    folder = write_checkpoint(tmp_path / "tiny", tiny)
    assert parity_of(export_model(options(folder, tmp_path / "repository"))).passed


@pytest.mark.parametrize("layout", [CAUSAL, CLASSIFIER])
def test_rerankers_are_rejected(tmp_path: Path, layout: str) -> None:
    folder = write_checkpoint(tmp_path / "tiny", dataclasses.replace(TINY, layout=layout))
    with pytest.raises(UnsupportedCheckpointError, match="Qwen2 models are supported for embeddings only"):
        export_model(options(folder, tmp_path / "repository", task=TaskChoice.RERANK))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_bidirectional": True}, "is_bidirectional True is not supported; .* set is_causal to false instead"),
        (
            {"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}},
            r"auto_map .*modeling_qwen.* is not supported; custom",
        ),
        ({"architectures": ["Qwen3Model"]}, "architecture 'Qwen3Model' is not supported; supported: Qwen2Model"),
    ],
)
def test_settings_that_change_the_function_are_rejected(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = write_checkpoint(tmp_path / "tiny", dataclasses.replace(TINY, config_changes=changes))
    with pytest.raises(UnsupportedCheckpointError, match=message):
        open_checkpoint(SourceReference(str(folder)))


def test_missing_bias_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", dataclasses.replace(TINY, model_type="qwen3"))
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"model_type": "qwen2", "architectures": ["Qwen2Model"]}
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UnsupportedCheckpointError, match=r"tensors are missing: layers\.0\.self_attn\.k_proj\.bias"):
        open_checkpoint(SourceReference(str(folder)))
