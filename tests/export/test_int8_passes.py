"""Rotation and smoothing preserve the function: fp32 graphs against transformers with the original checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_checkpoint import CAUSAL, CLASSIFIER, TinyCheckpoint, write_checkpoint
from written_graph import min_cosine, official_vectors, random_rows, write_graph

from qwen3_triton.export import SourceReference
from qwen3_triton.export.architectures import DecoderConfig
from qwen3_triton.export.passes.rescale import Rescale
from qwen3_triton.export.passes.rotate import UNROTATE, rotate_stream
from qwen3_triton.export.passes.rotation import Rotation, make_rotation
from qwen3_triton.export.passes.smooth import LayerScales, SmoothingPoint, smooth_weights
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.sources.weights import Weights, in_memory

ROWS = random_rows([1, 2, 7, 33, 64])
HADAMARD = [1, 2, 12, 20, 24, 28, 40, 128, 256, 768, 1024, 2560, 3072]
OTHERS = [3, 7, 10, 52, 93]
SHAPES = {
    "four-queries-per-key": TinyCheckpoint(heads=4, kv_heads=1, head_dim=32, hidden=48, layers=3),
    "one-query-per-key": TinyCheckpoint(heads=3, kv_heads=3, head_dim=16, hidden=40, layers=3),
    "one-layer": TinyCheckpoint(layers=1, heads=2, kv_heads=1, head_dim=64, hidden=24, intermediate=20),
    "odd-widths": TinyCheckpoint(layers=3, heads=2, kv_heads=2, head_dim=16, hidden=93, intermediate=17),
    "untied-bf16": TinyCheckpoint(layers=2, layout=CAUSAL, tied=False, dtype=torch.bfloat16),
}
TOUCHED = {
    SmoothingPoint.ATTENTION: ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    SmoothingPoint.VALUE: ("self_attn.v_proj", "self_attn.o_proj"),
    SmoothingPoint.MLP: ("post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj"),
    SmoothingPoint.INTERMEDIATE: ("mlp.up_proj", "mlp.down_proj"),
}


def matrix(rotation: Rotation) -> torch.Tensor:
    return rotation.rotate_rows(torch.eye(rotation.size))


@pytest.mark.parametrize("size", HADAMARD + OTHERS)
def test_rotation_is_orthogonal_and_distributes_each_channel(size: int) -> None:
    rotation = make_rotation(size, seed=3)
    q = matrix(rotation)
    assert torch.allclose(q.T @ q, torch.eye(size), atol=1e-5)
    if size in HADAMARD:
        assert torch.allclose(q.abs(), torch.full((size, size), size**-0.5), rtol=1e-5)
        assert max(map(len, rotation.factors), default=1) <= 128
    elif size > 10:
        assert float(q.abs().max()) < 0.7
    values = torch.randn(size, 3, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(rotation.rotate_columns(values), q.T @ values, atol=1e-5)
    assert torch.allclose(rotation.rotate_rows(values.T), values.T @ q, atol=1e-5)


def test_rotation_in_chunks_equals_single_rows() -> None:
    rotation = make_rotation(24)
    values = torch.randn(20000, 24, generator=torch.Generator().manual_seed(0))
    rotated = rotation.rotate_rows(values)
    assert torch.equal(rotated[[0, 8191, 8192, 19999]], rotation.rotate_rows(values[[0, 8191, 8192, 19999]]))


def test_rotation_is_determined_by_its_seed() -> None:
    assert torch.equal(matrix(make_rotation(40, 1)), matrix(make_rotation(40, 1)))
    assert not torch.equal(matrix(make_rotation(40, 1)), matrix(make_rotation(40, 2)))


def rotate(weights: Weights, config: DecoderConfig) -> Weights:
    return rotate_stream(weights, config, make_rotation(config.hidden))


def random_scales(tiny: TinyCheckpoint, sites: tuple[SmoothingPoint, ...], seed: int) -> dict[int, LayerScales]:
    """Return scales between 1/30 and 30."""
    rng = torch.Generator().manual_seed(seed)
    widths = {
        SmoothingPoint.ATTENTION: tiny.hidden,
        SmoothingPoint.MLP: tiny.hidden,
        SmoothingPoint.VALUE: tiny.kv_heads * tiny.head_dim,
        SmoothingPoint.INTERMEDIATE: tiny.intermediate,
    }
    return {
        index: {site: 30 ** (2 * torch.rand(widths[site], generator=rng) - 1) for site in sites}
        for index in range(tiny.layers)
    }


@pytest.mark.parametrize("tiny", SHAPES.values(), ids=SHAPES.keys())
def test_rotation_preserves_the_function(tmp_path: Path, tiny: TinyCheckpoint) -> None:
    source = write_checkpoint(tmp_path / "tiny", tiny)
    vectors = write_graph(source, tmp_path / "out", change=rotate).session.run(ROWS)
    assert min_cosine(vectors, official_vectors(source, ROWS)) >= 0.999999


@pytest.mark.parametrize("site", list(SmoothingPoint), ids=[site.name for site in SmoothingPoint])
@pytest.mark.parametrize("tiny", SHAPES.values(), ids=SHAPES.keys())
def test_smoothing_preserves_the_function(tmp_path: Path, tiny: TinyCheckpoint, site: SmoothingPoint) -> None:
    source = write_checkpoint(tmp_path / "tiny", tiny)
    scales = random_scales(tiny, (site,), seed=5)
    graph = write_graph(
        source, tmp_path / "out", change=lambda weights, config: smooth_weights(weights, config, scales)
    )
    assert min_cosine(graph.session.run(ROWS), official_vectors(source, ROWS)) >= 0.999999
    before = open_checkpoint(SourceReference(str(source))).weights
    after = graph.checkpoint.weights
    changed = {name.split(".", 2)[2] for name in after if not torch.equal(after[name].fp32(), before[name].fp32())}
    assert changed == {f"{name}.weight" for name in TOUCHED[site]}


def test_rescale_rotation_and_smoothing_compose(tmp_path: Path, tiny_source: Path) -> None:
    tiny = TinyCheckpoint()
    scales = random_scales(tiny, tuple(SmoothingPoint), seed=9)
    graph = write_graph(
        tiny_source,
        tmp_path / "out",
        rescale=Rescale(residual=5, intermediate=3),
        change=lambda weights, config: smooth_weights(rotate(weights, config), config, scales),
    )
    assert min_cosine(graph.session.run(ROWS), official_vectors(tiny_source, ROWS)) >= 0.999999


def test_gains_are_one_except_those_of_norms_on_heads(tiny_source: Path) -> None:
    checkpoint = open_checkpoint(SourceReference(str(tiny_source)))
    weights, rotated = checkpoint.weights, rotate(checkpoint.weights, checkpoint.config)
    for name, tensor in rotated.items():
        if name.endswith(("layernorm.weight", "_norm.weight")) or name == "norm.weight":
            same = name.endswith(("q_norm.weight", "k_norm.weight"))
            expected = weights[name].fp32() if same else torch.ones(tensor.shape)
            assert torch.equal(tensor.fp32(), expected), name
    assert rotated[UNROTATE].shape == (40, 40)


def test_checkpoint_head_reads_the_rotated_stream(tmp_path: Path) -> None:
    """score · (gain ⊙ h) equals the folded row times the rotated h."""
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(layout=CLASSIFIER))
    checkpoint = open_checkpoint(SourceReference(str(source)))
    weights, rotated = checkpoint.weights, rotate(checkpoint.weights, checkpoint.config)
    hidden = torch.randn(5, 40, generator=torch.Generator().manual_seed(2))
    rotated_hidden = make_rotation(40).rotate_rows(hidden)
    plain = (hidden * weights["norm.weight"].fp32()) @ weights["score.weight"].fp32().T
    assert torch.allclose(rotated_hidden @ rotated["score.weight"].fp32().T, plain, atol=1e-5)
    final = hidden * weights["norm.weight"].fp32()
    assert torch.allclose(rotated_hidden @ rotated[UNROTATE].fp32().T, final, atol=1e-5)


def test_rotation_distributes_an_outlier_channel(tmp_path: Path) -> None:
    """One channel is a thousand times larger than the others."""
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(hidden=256))
    checkpoint = open_checkpoint(SourceReference(str(source)))
    weights = dict(checkpoint.weights)
    table = weights["embed_tokens.weight"].fp32().clone()
    table[:, 17] *= 1000
    weights["embed_tokens.weight"] = in_memory(table)

    def peak_to_rms(values: torch.Tensor) -> float:
        return float((values.abs().amax(1) / values.square().mean(1).sqrt()).median())

    assert peak_to_rms(table) > 15
    assert peak_to_rms(rotate(weights, checkpoint.config)["embed_tokens.weight"].fp32()) < 1.1
