"""fp16 of checkpoints that plain fp16 cannot hold: scaled by powers of two wherever that preserves the function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_exports import tiny_options
from recorded_notes import Notes
from safetensors.torch import load_file, save_file
from test_fp16_rescale import half_model, largest_half_values
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from written_graph import min_cosine, model_vectors, official_vectors, random_rows, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.export import Device, SourceReference, UnsupportedCheckpointError, export_model
from qwen3_triton.export.architectures import DecoderConfig
from qwen3_triton.export.formats import weight_format
from qwen3_triton.export.formats.lowering import LoweredWeights, LoweringInputs
from qwen3_triton.export.passes.balance import balance_weights, choose_exponents
from qwen3_triton.export.passes.rescale import (
    FP16_MAX,
    HEADROOM,
    NO_RESCALE,
    ActivationPeaks,
    choose_rescale,
    rescale_weights,
)
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.sources.weights import LazyTensor, Weights
from qwen3_triton.export.verification.reference import ReferenceModel
from qwen3_triton.export.verification.runtime import WrittenModel

SHAPE = TinyCheckpoint(layers=3, hidden=64, intermediate=96, head_dim=128, dtype=torch.bfloat16)
ROWS = random_rows([1, 4, 17, 40])
Tensors = dict[str, torch.Tensor]


def scale_stream(tensors: Tensors, factor: float) -> None:
    for name, tensor in tensors.items():
        if name.endswith(("embed_tokens.weight", "o_proj.weight", "down_proj.weight")):
            tensor *= factor


def scale_up(tensors: Tensors, layer: str, factor: float, channels: slice) -> None:
    tensors[f"{layer}.mlp.up_proj.weight"][channels] *= factor
    tensors[f"{layer}.mlp.down_proj.weight"][:, channels] /= factor


def scale_value(tensors: Tensors, layer: str, factor: float, channels: slice) -> None:
    output = tensors[f"{layer}.self_attn.o_proj.weight"]
    tensors[f"{layer}.self_attn.v_proj.weight"].view(2, -1, len(output))[:, channels] *= factor
    output.view(len(output), 4, -1)[:, :, channels] /= factor


def scale_norms(tensors: Tensors, layer: str, factor: float, channels: slice) -> None:
    for norm, readers in (
        ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    ):
        tensors[f"{layer}.{norm}.weight"][channels] *= factor
        for reader in readers:
            tensors[f"{layer}.{reader}.weight"][:, channels] /= factor


def scale_head_norms(tensors: Tensors, layer: str, factor: float, channels: slice) -> None:
    # both channels of a pair that rope rotates
    tensors[f"{layer}.self_attn.q_norm.weight"].view(2, -1)[:, channels] *= factor
    tensors[f"{layer}.self_attn.k_norm.weight"].view(2, -1)[:, channels] /= factor


PAIRS = {"up-down": scale_up, "v-o": scale_value, "norms": scale_norms, "norms-of-heads": scale_head_norms}
EXTENTS: dict[str, tuple[tuple[int, ...], slice]] = {
    "all-layers": ((0, 1, 2), slice(None)),
    "one-layer": ((1,), slice(None)),
    "some-channels": ((1,), slice(3, 7)),
}


def write_scaled(folder: Path, change: Callable[[Tensors], None], shape: TinyCheckpoint = SHAPE) -> Path:
    write_checkpoint(folder, shape)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_pair(folder: Path, pair: str, extent: str, factor: float, shape: TinyCheckpoint = SHAPE) -> Path:
    layers, channels = EXTENTS[extent]

    def change(tensors: Tensors) -> None:
        for layer in layers:
            PAIRS[pair](tensors, f"layers.{layer}", factor, channels)

    return write_scaled(folder, change, shape)


def lower(folder: Path) -> LoweredWeights:
    """Lower to fp16 for the activations of ROWS."""
    checkpoint = open_checkpoint(SourceReference(str(folder)))
    peaks = ReferenceModel(checkpoint).embed(ROWS, lambda _done, _total: None).peaks
    format = weight_format(Precision.FP16, Device.CPU)
    inputs = LoweringInputs(checkpoint=checkpoint, peaks=peaks, max_cosine_error=1.0, progress=Notes())
    return format.lower(inputs)


def half_vectors(folder: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Embeddings of the lowered weights in transformers, whose weights and activations are fp16."""
    lowered = lower(folder)
    return model_vectors(half_model(folder, lowered.checkpoint.weights, lowered.rescale), ROWS)


@pytest.mark.parametrize("shift", [24, -24])
@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_of_weights(tmp_path: Path, pair: str, extent: str, shift: int) -> None:
    folder = write_pair(tmp_path / "model", pair, extent, 2.0**shift)
    assert min_cosine(half_vectors(folder), official_vectors(folder, ROWS)) >= 0.9999


@pytest.mark.parametrize("shift", [24, -24])
@pytest.mark.parametrize(
    "name",
    [
        "embed_tokens.weight",
        "layers.1.self_attn.q_proj.weight",
        "layers.1.self_attn.k_proj.weight",
        "layers.1.self_attn.o_proj.weight",
        "layers.1.mlp.down_proj.weight",
    ],
)
def test_single_weights(tmp_path: Path, name: str, shift: int) -> None:
    """Some change the function; it is that of the scaled checkpoint which fp16 must have."""

    def change(tensors: Tensors) -> None:
        tensors[name] *= 2.0**shift

    folder = write_scaled(tmp_path / "model", change)
    assert min_cosine(half_vectors(folder), official_vectors(folder, ROWS)) >= 0.9999


@pytest.mark.parametrize("shift", [24, -24])
@pytest.mark.parametrize("same_function", [True, False])
def test_residual_stream(tmp_path: Path, shift: int, same_function: bool) -> None:
    eps = 1e-6 * (4.0**shift if same_function else 1.0)
    shape = dataclasses.replace(SHAPE, config_changes={"rms_norm_eps": eps})
    folder = write_scaled(tmp_path / "model", lambda tensors: scale_stream(tensors, 2.0**shift), shape)
    truth = official_vectors(folder, ROWS)
    notes = Notes()
    result = export_model(tiny_options(folder, tmp_path / "repository", precision=Precision.FP16), notes)
    assert min_cosine(WrittenModel(result.folder.graph(1)).run(ROWS), truth) >= 0.9999
    [rescaled] = [note for note in notes.notes if note.startswith("rescaled to fp16's range: residual 2^")]
    assert ("2^-" in rescaled.split(",")[0]) is (shift > 0)
    assert result.record.fp16_range is not None
    assert result.record.fp16_range.headroom >= HEADROOM


def test_gain_of_the_final_norm_is_stored_in_fp32(tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        tensors["norm.weight"] *= 2.0**24

    folder = write_scaled(tmp_path / "model", change)
    result = export_model(tiny_options(folder, tmp_path / "repository", precision=Precision.FP16))
    assert min_cosine(WrittenModel(result.folder.graph(1)).run(ROWS), official_vectors(folder, ROWS)) >= 0.9999


@pytest.mark.parametrize("device", [Device.CPU, Device.CUDA])
def test_export_reports_balanced_layers(tmp_path: Path, device: Device) -> None:
    folder = write_pair(tmp_path / "model", "v-o", "one-layer", 2.0**24)
    notes = Notes()
    options = tiny_options(folder, tmp_path / "repository", precision=Precision.FP16, device=device)
    result = export_model(options, notes)
    if device is Device.CPU:
        assert max(largest_half_values(result.folder.graph(1)).values()) <= FP16_MAX
    assert any(note.startswith("balanced weights of 1 layers by powers of two") for note in notes.notes)
    assert result.record.fp16_range is not None
    assert result.record.fp16_range.headroom >= HEADROOM


def test_biases_of_values_are_balanced(tmp_path: Path) -> None:
    shape = dataclasses.replace(SHAPE, model_type="qwen2", hidden=64, head_dim=16)

    def change(tensors: Tensors) -> None:
        scale_value(tensors, "layers.1", 2.0**24, slice(None))
        tensors["layers.1.self_attn.v_proj.bias"] *= 2.0**24

    folder = write_scaled(tmp_path / "model", change, shape)
    result = export_model(tiny_options(folder, tmp_path / "repository", precision=Precision.FP16))
    assert min_cosine(WrittenModel(result.folder.graph(1)).run(ROWS), official_vectors(folder, ROWS)) >= 0.9999


@pytest.mark.parametrize("pair", PAIRS)
def test_balance_is_exact_in_fp32(tmp_path: Path, pair: str) -> None:
    source = write_pair(tmp_path / "model", pair, "some-channels", 2.0**24)
    checkpoint = open_checkpoint(SourceReference(str(source)))
    peaks = ReferenceModel(checkpoint).embed(ROWS, lambda _done, _total: None).peaks

    def balance(weights: Weights, config: DecoderConfig) -> Weights:
        balanced = balance_weights(weights, config, peaks, NO_RESCALE)
        assert balanced.layers == (1,)
        return balanced.weights

    plain = write_graph(source, tmp_path / "plain").session.run(ROWS)
    found = write_graph(source, tmp_path / "balanced", change=balance).session.run(ROWS)
    assert np.array_equal(found, plain)


@pytest.mark.parametrize("pair", PAIRS)
def test_peaks_of_matrices_in_the_reference_are_those_that_are_read(tmp_path: Path, pair: str) -> None:
    checkpoint = open_checkpoint(SourceReference(str(write_pair(tmp_path / "model", pair, "some-channels", 2.0**24))))
    peaks = ReferenceModel(checkpoint).embed(ROWS, lambda _done, _total: None).peaks
    rescale = choose_rescale(peaks)
    read: list[str] = []

    def watched(name: str, tensor: LazyTensor) -> LazyTensor:
        def see(values: torch.Tensor) -> torch.Tensor:
            read.append(name)
            return values

        return tensor.changed(see)

    weights = {name: watched(name, tensor) for name, tensor in checkpoint.weights.items()}
    found = []
    for known in (peaks, dataclasses.replace(peaks, weights={})):
        read.clear()
        rescaled = rescale_weights(weights, checkpoint.config, rescale)
        balanced = balance_weights(rescaled, checkpoint.config, known, rescale)
        # a matrix that was changed is read to balance it with the next
        assert ("layers.0.mlp.down_proj.weight" in read) == (known is not peaks)
        found.append({name: tensor.fp32() for name, tensor in balanced.weights.items()})
    for name, values in found[0].items():
        assert torch.equal(values, found[1][name]), name


def test_ordinary_weights_stay_as_they_are(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", SHAPE)
    lowered, stored = lower(folder), load_file(folder / "model.safetensors")
    assert lowered.rescale == NO_RESCALE
    for name, tensor in lowered.checkpoint.weights.items():
        assert torch.equal(tensor.fp32(), stored[name].float()), name


def test_activations_that_nothing_can_scale_are_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", dataclasses.replace(SHAPE, gate_shift=24))
    with pytest.raises(
        UnsupportedCheckpointError, match=r"^layers.\d.mlp.gate_proj.weight: activations reach .* fp32, or"
    ):
        lower(folder)


@pytest.mark.parametrize(
    ("produced", "read", "activation", "exponent"),
    [
        (1.0, 0.1, 1.0, 0),
        (2.0**24, 2.0**-24, 1.0, 24),
        (2.0**-24, 2.0**24, 2.0**-20, -24),
        # an activation that must stay in range bounds the exponent
        (2.0**-24, 2.0**20, 2.0**10, -5),
        (1.0, 1.0, FP16_MAX * 2, 1),
        # one of two tiny weights is not made worse than the other
        (2.0**-20, 2.0**-20, 1.0, 0),
        (0.0, 0.1, 0.0, 0),
        (0.1, 0.0, 1.0, 0),
    ],
)
def test_exponents(produced: float, read: float, activation: float, exponent: int) -> None:
    found = choose_exponents(*(torch.tensor([value]) for value in (produced, read, activation)))
    assert found.tolist() == [exponent]


def test_peaks_are_joined_by_channel() -> None:
    one = ActivationPeaks(residual=1.0, intermediate=2.0, channels={"a": torch.tensor([1.0, 4.0])})
    other = ActivationPeaks(
        residual=3.0, intermediate=1.0, channels={"a": torch.tensor([2.0, 3.0]), "b": torch.tensor([5.0])}
    )
    joined = one.joined(other)
    assert joined == ActivationPeaks(residual=3.0, intermediate=2.0)
    assert {name: peaks.tolist() for name, peaks in joined.channels.items()} == {"a": [2.0, 4.0], "b": [5.0]}
