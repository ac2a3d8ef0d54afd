"""Mean pooling, Dense modules and bidirectional attention, against sentence-transformers on the same folder."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from peft_adapters import write_adapter
from safetensors.torch import load_file, save_file
from sentence_models import (
    BIDIRECTIONAL,
    LAST,
    MEAN,
    NARROW,
    NEW_MEAN,
    RECIPES,
    WIDE,
    DenseModule,
    SentenceModel,
)
from test_cuda_graph import BATCHES
from test_setting_files import export, references
from test_witness import TEXTS, assert_same
from tiny_checkpoint import CLASSIFIER, TinyCheckpoint, write_checkpoint, write_json
from watched_graph import group_nodes
from written_graph import BLOCK_BOUNDARY_LENGTHS, min_cosine, official_vectors, random_rows, write_graph

from qwen3_triton.client import (
    EmbeddingClient,
    EmbeddingManifest,
    ExportRecord,
    InvalidInputError,
    Precision,
    Verification,
)
from qwen3_triton.client.manifest import ModelRecipe
from qwen3_triton.export import (
    CudaAttention,
    Device,
    ExportResult,
    FuseOptions,
    FusionError,
    MergeOptions,
    SourceReference,
    TritonRelease,
    UnsupportedCheckpointError,
    WeightedCheckpoint,
    write_fused_checkpoint,
    write_merged_checkpoint,
)
from qwen3_triton.export.architectures import EMBEDDINGS
from qwen3_triton.export.graph import CudaProfile
from qwen3_triton.export.int8.error import measure_groups
from qwen3_triton.export.int8.layer_walk import DecoderLayer, embed_texts, finish_texts
from qwen3_triton.export.sources.checkpoint import Checkpoint, open_checkpoint
from qwen3_triton.export.sources.head_modules import read_head
from qwen3_triton.export.sources.setting_files import SettingFiles
from qwen3_triton.export.verification.reference import ReferenceModel
from qwen3_triton.export.verification.runtime import WrittenModel
from qwen3_triton.server import start_triton

sentence_transformers: Any = pytest.importorskip("sentence_transformers", minversion="5.4")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

HONORS_IS_CAUSAL = tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 2)
needs_bidirectional = pytest.mark.skipif(not HONORS_IS_CAUSAL, reason="transformers 5.2 is the first with is_causal")
CASES = [
    pytest.param(name, id=name, marks=needs_bidirectional if changes else ()) for name, (_, changes) in RECIPES.items()
]
EVERYTHING, CAUSAL_HEAD = "everything", "mean and two Dense"


def write_recipe(folder: Path, name: str, **tiny: Any) -> Path:
    model, changes = RECIPES[name]
    return model.write(folder, TinyCheckpoint(max_positions=512, config_changes=changes, **tiny))


def open_with_head(folder: Path) -> Checkpoint:
    checkpoint = open_checkpoint(SourceReference(str(folder)))
    return dataclasses.replace(checkpoint, head=read_head(SettingFiles.of_folder(folder), checkpoint.config))


def run(result: ExportResult, rows: list[list[int]]) -> tuple[Any, Any]:
    """Vectors of `rows` alone, and shuffled in one batch."""
    session = WrittenModel(result.folder.graph(result.version), threads=2)
    order = list(range(len(rows)))
    random.Random(5).shuffle(order)
    batched = session.run([rows[index] for index in order])
    return session.run_alone(rows), batched[np.argsort(order)]


@pytest.mark.parametrize("name", CASES)
def test_equals_sentence_transformers_alone_and_batched(tmp_path: Path, name: str) -> None:
    """Bit-identical over several groups, and with lengths around the block size."""
    folder = write_recipe(tmp_path / "model", name)
    result = export(folder, tmp_path / "repository", max_tokens=512)
    assert_same(folder, result)
    manifest, witness = result.manifest, result.record.witness
    assert isinstance(manifest, EmbeddingManifest)
    assert witness is not None
    assert 0 <= witness.error < 1e-9
    dimension = open_with_head(folder).head.width(40)
    assert (manifest.dimension, manifest.min_dimension) == (dimension, min(dimension, 32))
    assert f"dims: {dimension}\n" in result.folder.config.read_text(encoding="utf-8")
    rng = random.Random(5)
    alone, batched = run(result, random_rows([*(rng.randrange(1, 512) for _ in range(12)), *BLOCK_BOUNDARY_LENGTHS]))
    assert alone.shape[1] == dimension
    assert np.linalg.norm(alone, axis=1) == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(batched, alone)


@needs_bidirectional
def test_recipes_differ(tmp_path: Path) -> None:
    """Otherwise a setting could be ignored by everybody."""
    rows = random_rows([9, 30])
    vectors = {}
    for name, (model, changes) in RECIPES.items():
        if not any(isinstance(module, DenseModule) for module in model.modules):
            folder = model.write(tmp_path / name, TinyCheckpoint(config_changes=changes))
            vectors[name] = ReferenceModel(open_with_head(folder)).embed(rows, lambda _done, _total: None).vectors
    names = ["mean", "bidirectional", "bidirectional mean"]
    vectors["last token"] = official_vectors(write_checkpoint(tmp_path / "plain"), rows)
    for index, name in enumerate(names):
        for other in ["last token", *names[:index]]:
            assert min_cosine(vectors[name], vectors[other]) < 0.99, (name, other)
    assert min_cosine(vectors["mean"], vectors["mean, without Normalize"]) >= 0.999999


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(CAUSAL_HEAD, Precision.FP16),
        pytest.param(CAUSAL_HEAD, Precision.INT8),
        pytest.param(EVERYTHING, Precision.FP16, marks=needs_bidirectional),
        pytest.param(EVERYTHING, Precision.INT8, marks=needs_bidirectional),
    ],
)
def test_other_precisions(tmp_path: Path, name: str, precision: Precision) -> None:
    """The export compares with the reference, in int8 also on held-out texts. Dense products are fp32."""
    folder = write_recipe(tmp_path / "model", name)
    result = export(folder, tmp_path / "repository", precision=precision, max_tokens=512)
    assert result.record.witness is not None
    rng = random.Random(6)
    alone, batched = run(result, random_rows([*(rng.randrange(1, 512) for _ in range(12)), 128, 256, 257]))
    if precision is Precision.INT8:
        assert np.array_equal(batched, alone)
    else:
        assert min_cosine(batched, alone) >= 0.9999999
    model = onnx.load(result.folder.graph(1), load_external_data=False)
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert weights["head.dense.0.weight"] == onnx.TensorProto.FLOAT
    products = {node.name for node in group_nodes(model) if node.op_type.startswith("MatMul")}
    # no layer is pruned
    assert "layers.1.attention.qkv" in products


@pytest.mark.parametrize("hidden", [64, 100])
def test_mean_does_not_depend_on_threads(tmp_path: Path, hidden: int) -> None:
    """A matrix product would sum long rows in another order."""
    folder = SentenceModel(pooling=MEAN).write(tmp_path / "model", TinyCheckpoint(hidden=hidden, max_positions=512))
    graph = write_graph(folder, tmp_path / "out", max_tokens=512, head=open_with_head(folder).head)
    rows = random_rows([30, 300, 500, 512])
    assert np.array_equal(graph.session.run_alone(rows), WrittenModel(graph.file, threads=1).run_alone(rows))


@pytest.mark.parametrize("name", [CAUSAL_HEAD, pytest.param(EVERYTHING, marks=needs_bidirectional)])
def test_layer_walk_equals_the_reference(tmp_path: Path, name: str) -> None:
    """Calibration measures errors on it. The paths of its products are those of the graph."""
    folder = write_recipe(tmp_path / "model", name)
    checkpoint = open_with_head(folder)
    rows = random_rows([2, 7, 20, 33])
    expected = ReferenceModel(checkpoint).embed(rows, lambda _done, _total: None).vectors
    batches = embed_texts(checkpoint.weights[EMBEDDINGS], rows)
    for index in range(checkpoint.config.layers):
        layer = DecoderLayer(checkpoint, index)
        batches = [layer.run(batch) for batch in batches]
    assert len(batches) == 1
    assert min_cosine(finish_texts(checkpoint, batches).numpy(), expected) >= 0.999999
    groups = measure_groups(checkpoint, rows, lambda _done, _total: None)
    paths = frozenset(path for group in groups for path in group.paths)
    graph = write_graph(folder, tmp_path / "out", Precision.INT8, fp32_layers=paths, head=checkpoint.head)
    assert min_cosine(graph.session.run(rows), expected) >= 0.999999


def test_bad_rows_are_nan_and_affect_no_other_row(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path / "model", CAUSAL_HEAD)
    checkpoint = open_with_head(folder)
    session = write_graph(folder, tmp_path / "out", head=checkpoint.head).session
    rows = random_rows([1, 2, 33, 64])
    truth = session.run(rows)
    vectors = session.run([[-1], *rows[:2], [300], *[[-1, *row, -3] for row in rows[2:]], [1] * 65])
    assert np.isnan(vectors[[0, 3, 6]]).all()
    assert np.array_equal(vectors[[1, 2, 4, 5]], truth)
    assert np.isnan(session.run([[-1], [300]])).all()


@pytest.mark.parametrize("profile", [CudaProfile(cpu_twin=True), CudaProfile(cpu_twin=True, dense_batches=False)])
def test_graph_for_gpus_equals_the_reference(tmp_path: Path, profile: CudaProfile) -> None:
    """With CPU kernels: packed and dense batches."""
    folder = write_recipe(tmp_path / "model", CAUSAL_HEAD, layers=3)
    checkpoint = open_with_head(folder)
    session = write_graph(folder, tmp_path / "out", cuda=profile, head=checkpoint.head).session
    for rows in BATCHES.values():
        expected = ReferenceModel(checkpoint).embed(rows, lambda _done, _total: None).vectors
        assert min_cosine(session.run(rows), expected) >= 0.999999
        assert min_cosine(session.run_alone(rows), expected) >= 0.999999


@pytest.mark.parametrize("release", [TritonRelease.R25_08, TritonRelease.R26_07])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_export_for_gpus(tmp_path: Path, precision: Precision, release: TritonRelease) -> None:
    """Every node has a CUDA kernel; batches of mixed lengths are computed in rows, also where pages are faster."""
    folder = write_recipe(tmp_path / "model", CAUSAL_HEAD)
    options: dict[str, Any] = {
        "device": Device.CUDA,
        "precision": precision,
        "triton_release": release,
        "verify": Verification.NONE,
    }
    result = export(folder, tmp_path / "repository", **options)
    nodes = onnx.load(result.folder.graph(1), load_external_data=False).graph.node
    assert not any(node.op_type == "PagedAttention" for node in nodes)
    with pytest.raises(UnsupportedCheckpointError, match="mean pooling is not supported with attention over pages"):
        export(folder, tmp_path / "other", cuda_attention=CudaAttention.PAGES, **options)


@pytest.mark.parametrize("verify", [Verification.QUICK, Verification.NONE])
def test_bidirectional_attention_is_for_cpus(tmp_path: Path, verify: Verification) -> None:
    folder = write_recipe(tmp_path / "model", "bidirectional")
    with pytest.raises(UnsupportedCheckpointError, match=r"is_causal is false, .* use device cpu"):
        export(folder, tmp_path / "repository", device=Device.CUDA, verify=verify)


def test_transformers_that_ignores_the_direction_is_no_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_recipe(tmp_path / "model", "bidirectional")
    monkeypatch.setattr(transformers, "__version__", "4.57.6")
    with pytest.raises(UnsupportedCheckpointError, match=r"transformers 4\.57\.6 ignores.*5\.2 or later"):
        export(folder, tmp_path / "repository")
    assert export(folder, tmp_path / "repository", verify=Verification.NONE).record.parity is None


@needs_bidirectional
def test_bidirectional_model_without_modules_has_mean_pooling(tmp_path: Path) -> None:
    """As in sentence-transformers."""
    bare = write_checkpoint(tmp_path / "bare", TinyCheckpoint(config_changes=BIDIRECTIONAL))
    result = export(bare, tmp_path / "repository", max_tokens=None)
    assert result.record.origins["modules"] == "none stated: mean pooling"
    assert_same(bare, result)


@needs_bidirectional
def test_bidirectional_qwen2(tmp_path: Path) -> None:
    tiny = TinyCheckpoint(model_type="qwen2", heads=4, kv_heads=2, head_dim=10, config_changes=BIDIRECTIONAL)
    folder = SentenceModel(pooling=MEAN).write(tmp_path / "model", tiny)
    assert_same(folder, export(folder, tmp_path / "repository", max_tokens=None))


@needs_bidirectional
def test_bidirectional_reranker(tmp_path: Path) -> None:
    tiny = TinyCheckpoint(layout=CLASSIFIER, max_positions=512, config_changes=BIDIRECTIONAL)
    parity = export(write_checkpoint(tmp_path / "model", tiny), tmp_path / "repository", max_tokens=300).record.parity
    assert parity is not None
    assert parity.passed


HEAD = SentenceModel(pooling=MEAN, modules=(NARROW, "Normalize"))


def head_with(**changes: Any) -> SentenceModel:
    return dataclasses.replace(HEAD, modules=(dataclasses.replace(NARROW, changes=changes), "Normalize"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (head_with(activation_function="torch.nn.modules.activation.ReLU"), "activation_function 'torch.*ReLU' is not"),
        (head_with(activation_function="my_package.Tanh"), "activation_function 'my_package.Tanh' is not supported"),
        (head_with(use_residual=True), "use_residual True is not supported"),
        (head_with(module_input_name="token_embeddings"), "module_input_name 'token_embeddings' is not supported"),
        (head_with(gate=True), "2_Dense/config.json: gate True is not known"),
        (head_with(in_features=48), "in_features is 48, but the module reads 40 components"),
        (head_with(out_features=25), r"linear\.weight missing, unknown or of another shape"),
        (head_with(bias=True), r"linear\.bias missing, unknown or of another shape"),
        (head_with(out_features="24"), "out_features is '24', not an integer"),
        (dataclasses.replace(HEAD, modules=("LayerNorm",)), "module 'LayerNorm' is not supported"),
        (dataclasses.replace(HEAD, pooling={"pooling_mode": ["mean", "max"]}), r"pooling 'mean \+ max' is not"),
        (dataclasses.replace(HEAD, pooling={"embedding_dimension": 40}), "pooling 'none' is not supported"),
        (dataclasses.replace(HEAD, pooling=MEAN | {"include_prompt": False}), "include_prompt False is not supported"),
        (dataclasses.replace(HEAD, pooling=MEAN | {"weights": [1]}), "1_Pooling/config.json: weights .* is not known"),
    ],
)
def test_other_heads_are_rejected_by_name(tmp_path: Path, model: SentenceModel, message: str) -> None:
    folder = model.write(tmp_path / "model")
    with pytest.raises(UnsupportedCheckpointError, match=message):
        export(folder, tmp_path / "repository")


def test_dense_before_pooling_is_rejected(tmp_path: Path) -> None:
    folder = HEAD.write(tmp_path / "model")
    listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    write_json(folder / "modules.json", [listed[0], listed[2], listed[1]])
    with pytest.raises(UnsupportedCheckpointError, match="Dense is listed before Pooling"):
        export(folder, tmp_path / "repository")


def test_pickled_dense_is_rejected_with_the_command_that_converts_it(tmp_path: Path) -> None:
    folder = HEAD.write(tmp_path / "model")
    stored = folder / "2_Dense" / "model.safetensors"
    expected = load_file(stored)
    torch.save(expected, folder / "2_Dense" / "pytorch_model.bin")
    stored.unlink()
    with pytest.raises(UnsupportedCheckpointError, match=r"only pickled weights \(pytorch_model\.bin\)") as caught:
        export(folder, tmp_path / "repository")
    command = str(caught.value).partition("convert them: ")[2].replace("python -c", f"{sys.executable} -c")
    subprocess.run(command, shell=True, check=True, timeout=120)
    assert torch.equal(load_file(stored)["linear.weight"], expected["linear.weight"])


def test_adapter_brings_its_head(tmp_path: Path) -> None:
    """Directly and after a merge; the identity of the model includes the head's weights."""
    base = SentenceModel(pooling=LAST).write(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter", base)
    SentenceModel(pooling=NEW_MEAN, modules=(WIDE, "Normalize")).write_modules(adapter)
    direct = export(base, tmp_path / "direct", adapter, max_tokens=None)
    assert direct.record.recipe == ModelRecipe(
        causal=True, pooling="mean pooling", modules=("Dense 40 → 72 with Tanh",)
    )
    assert direct.record.witness is not None or transformers.__version__.startswith("4.")
    options = MergeOptions(
        model=SourceReference(str(base)), adapters=references(adapter), output=tmp_path / "out" / "merged"
    )
    merged = write_merged_checkpoint(options).folder
    result = export(merged, tmp_path / "merged", max_tokens=None)
    rows = random_rows([3, 30])
    assert np.array_equal(run(result, rows)[0], run(direct, rows)[0])
    assert_same(merged, result)
    dense = merged / "2_Dense" / "model.safetensors"
    tensors = load_file(dense)
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, dense, metadata={"format": "pt"})
    changed = export(merged, tmp_path / "changed").record.checkpoint
    assert changed.sha256 != result.record.checkpoint.sha256


def test_direction_and_head_are_compared_before_a_fusion(tmp_path: Path) -> None:
    first = SentenceModel(pooling=MEAN).write(tmp_path / "first")
    others: Mapping[str, tuple[SentenceModel, Mapping[str, Any], str]] = {
        "direction": (SentenceModel(pooling=NEW_MEAN), BIDIRECTIONAL, "is_causal is False instead of True"),
        "pooling": (SentenceModel(pooling=LAST), {}, "Pooling of lasttoken"),
        "dense": (SentenceModel(pooling=MEAN, modules=(NARROW, "Normalize")), {}, "Dense"),
    }
    for name, (model, changes, message) in others.items():
        folder = model.write(tmp_path / name, TinyCheckpoint(seed=1, config_changes=changes))
        checkpoints = tuple(WeightedCheckpoint.parse(str(each)) for each in (first, folder))
        with pytest.raises(FusionError, match=message):
            write_fused_checkpoint(FuseOptions(checkpoints=checkpoints, output=tmp_path / "fused"))


def test_inspect_shows_pooling_and_head(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path / "model", EVERYTHING)
    result = export(folder, tmp_path / "repository", verify=Verification.NONE)
    command = [str(Path(sys.executable).with_name("qwen3-triton")), "inspect", str(result.folder.path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "bidirectional attention, mean pooling, Dense 40 → 24\n" in shown
    record = ExportRecord.from_json(result.folder.manifest.read_text(encoding="utf-8"))
    assert record.recipe == result.record.recipe


def test_client_keeps_components_of_the_dense_output(tmp_path: Path) -> None:
    """Through a real tritonserver."""
    folder = write_recipe(tmp_path / "model", CAUSAL_HEAD)
    result = export(folder, tmp_path / "repository", max_tokens=512)
    expected = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode_document(TEXTS)
    shorter = expected[:, :32] / np.linalg.norm(expected[:, :32], axis=1, keepdims=True)
    repository = result.folder.path.parent
    with (
        start_triton(repository) as server,
        EmbeddingClient(server.grpc_url, "model", repository=repository) as client,
    ):
        assert min_cosine(client.embed_documents(TEXTS), expected) >= 0.99999
        assert min_cosine(client.embed_documents(TEXTS, dim=32), shorter) >= 0.99999
        with pytest.raises(InvalidInputError, match="33"):
            client.embed_documents(TEXTS, dim=40)


def test_recipe_of_the_default_head(tmp_path: Path) -> None:
    result = export(SentenceModel(pooling=LAST).write(tmp_path / "model"), tmp_path / "repository")
    assert result.record.recipe == ModelRecipe(causal=True, pooling="last-token pooling")
