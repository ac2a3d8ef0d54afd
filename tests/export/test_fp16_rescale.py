"""The power-of-two rescale: exact in fp32, and no overflow in fp16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from recorded_notes import Notes
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from transformers import Qwen3Model
from watched_graph import group_nodes, run_watched
from written_graph import min_cosine, model_vectors, official_vectors, random_rows, write_graph

from qwen3_triton.client import ParityReport, Precision
from qwen3_triton.export import (
    ExportOptions,
    SourceReference,
    UnsupportedCheckpointError,
    export_model,
)
from qwen3_triton.export.passes.rescale import (
    FP16_MAX,
    HEADROOM,
    NO_RESCALE,
    ActivationPeaks,
    Rescale,
    choose_rescale,
    require_activation_range,
    require_fp16_range,
    rescale_weights,
)
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.sources.weights import LazyTensor, Weights
from qwen3_triton.export.verification.reference import ReferenceModel

ROWS = random_rows([1, 4, 17, 50])
MASSIVE = {
    "residual": TinyCheckpoint(layers=3, residual_shift=12),
    "intermediate": TinyCheckpoint(layers=3, intermediate_shift=14),
    "up-with-small-gate": TinyCheckpoint(layers=3, intermediate_shift=15, gate_shift=-7),
    "both": TinyCheckpoint(layers=3, residual_shift=12, intermediate_shift=14),
}

NO_TENSOR = ("SequenceEmpty", "Loop")
UNUSED_OUTPUTS = ("norm.1", "norm.2")


def peaks_of(source: Path) -> ActivationPeaks:
    checkpoint = open_checkpoint(SourceReference(str(source)))
    return ReferenceModel(checkpoint).embed(ROWS, lambda _done, _total: None).peaks


@pytest.mark.parametrize(
    "rescale", [Rescale(residual=5), Rescale(intermediate=7), Rescale(residual=9, intermediate=3)], ids=str
)
def test_rescale_is_exact_in_fp32(tmp_path: Path, tiny_source: Path, rescale: Rescale) -> None:
    plain = write_graph(tiny_source, tmp_path / "plain").session.run(ROWS)
    assert np.array_equal(write_graph(tiny_source, tmp_path / "out", rescale=rescale).session.run(ROWS), plain)


def test_rescale_multiplies_four_kinds_of_tensors_by_powers_of_two(tiny_source: Path) -> None:
    checkpoint = open_checkpoint(SourceReference(str(tiny_source)))
    weights = checkpoint.weights
    rescaled = rescale_weights(weights, checkpoint.config, Rescale(residual=4, intermediate=3))
    factors = {
        "embed_tokens.weight": 2.0**-4,
        "self_attn.o_proj.weight": 2.0**-4,
        "mlp.up_proj.weight": 2.0**-3,
        "mlp.down_proj.weight": 2.0**-1,
    }
    for name, tensor in weights.items():
        factor = next((value for end, value in factors.items() if name.endswith(end)), 1.0)
        assert torch.equal(rescaled[name].fp32(), tensor.fp32() * factor), name
    assert Rescale(residual=4).eps(1e-6) == 1e-6 * 2.0**-8


def largest_half_values(file: Path) -> dict[str, float]:
    """Return the largest absolute value of each fp16 tensor in the layers; infinite after an overflow.

    On a CPU, ONNX Runtime computes fp16 graphs in fp32 and rounds only values that are read, so all values are outputs.
    """
    nodes = group_nodes(onnx.load(file, load_external_data=False))
    named = [node for node in nodes if node.name.startswith("layers.") and node.op_type not in NO_TENSOR]
    outputs = [output for node in named for output in node.output if not output.endswith(UNUSED_OUTPUTS)]
    answers = run_watched(file, outputs, ROWS)
    return {name: float(np.abs(value).max()) for name, value in answers.items() if value.dtype == np.float16}


def half_model(source: Path, weights: Weights, rescale: Rescale) -> torch.nn.Module:
    """Load weights, which were rescaled, in transformers in fp16."""
    model: torch.nn.Module = Qwen3Model.from_pretrained(source, dtype=torch.float32)
    model.load_state_dict({name: tensor.fp32() for name, tensor in weights.items()})
    for name, module in model.named_modules():
        if name.endswith("layernorm") or name == "norm":
            module.variance_epsilon = rescale.eps(float(module.variance_epsilon))
    return model.to(torch.float16)


@pytest.mark.parametrize("tiny", MASSIVE.values(), ids=MASSIVE.keys())
def test_rescale_prevents_overflow_in_fp16(tmp_path: Path, tiny: TinyCheckpoint) -> None:
    source = write_checkpoint(tmp_path / "tiny", tiny)
    truth = official_vectors(source, ROWS)
    rescale = choose_rescale(peaks_of(source))
    overflowing = write_graph(source, tmp_path / "without", Precision.FP16)
    saved = write_graph(source, tmp_path / "with", Precision.FP16, rescale=rescale)
    checkpoint = open_checkpoint(SourceReference(str(source)))
    rescaled = rescale_weights(checkpoint.weights, checkpoint.config, rescale)
    # NaN, or finite and wrong
    assert not min_cosine(model_vectors(half_model(source, checkpoint.weights, NO_RESCALE), ROWS), truth) >= 0.999
    assert min_cosine(model_vectors(half_model(source, rescaled, rescale), ROWS), truth) >= 0.9999
    assert max(largest_half_values(overflowing.file).values()) == float("inf")
    assert max(largest_half_values(saved.file).values()) <= FP16_MAX / HEADROOM
    assert min_cosine(saved.session.run(ROWS), truth) >= 0.9999


def test_peaks_exclude_padding(tmp_path: Path, tiny_source: Path) -> None:
    """Peaks scale with the weights, and are those of the rows without padding."""
    plain = peaks_of(tiny_source)
    scaled = peaks_of(write_checkpoint(tmp_path / "tiny", TinyCheckpoint(residual_shift=6, intermediate_shift=3)))
    assert scaled.residual == pytest.approx(plain.residual * 2**6, rel=1e-4)
    assert scaled.intermediate == pytest.approx(plain.intermediate * 2**3, rel=1e-4)
    checkpoint = open_checkpoint(SourceReference(str(tiny_source)))
    alone = [ReferenceModel(checkpoint).embed([row], lambda _done, _total: None, 1).peaks for row in ROWS]
    assert plain.residual == pytest.approx(max(peaks.residual for peaks in alone), rel=1e-5)
    assert plain.intermediate == pytest.approx(max(peaks.intermediate for peaks in alone), rel=1e-5)


@pytest.mark.parametrize("peak", [0.0, 1.0, FP16_MAX / HEADROOM, 8189.0, 60000.0, 1e5, 3e7])
def test_smallest_exponent_that_leaves_headroom(peak: float) -> None:
    for rescale in (
        choose_rescale(ActivationPeaks(residual=peak, intermediate=0.0)).residual,
        choose_rescale(ActivationPeaks(residual=0.0, intermediate=peak)).intermediate,
    ):
        assert peak * HEADROOM * 2.0**-rescale <= FP16_MAX
        assert rescale == 0 or peak * HEADROOM * 2.0 ** -(rescale - 1) > FP16_MAX


def test_overflowing_projections_are_rejected(tmp_path: Path, tiny_source: Path) -> None:
    assert peaks_of(tiny_source).projection < FP16_MAX
    loud = peaks_of(write_checkpoint(tmp_path / "loud", TinyCheckpoint(gate_shift=24)))
    assert loud.projection > FP16_MAX
    with pytest.raises(UnsupportedCheckpointError, match=r"gate_proj.weight: activations reach .* use precision fp32"):
        require_activation_range(loud, choose_rescale(loud))


def lazy(values: list[float]) -> LazyTensor:
    tensor = torch.tensor(values)
    return LazyTensor((len(values),), torch.float32, lambda: tensor)


def test_weights_outside_fp16_are_rejected_when_they_are_read() -> None:
    good = require_fp16_range({"a": lazy([FP16_MAX, -FP16_MAX]), "b": lazy([0.0, 1e-9])})
    assert [len(tensor.fp32()) for tensor in good.values()] == [2, 2]
    bad = {"large": lazy([0.0, -65505.0]), "nan": lazy([float("nan")]), "inf": lazy([float("inf")])}
    for name, tensor in require_fp16_range(bad).items():
        for read in (tensor.fp32, lambda tensor=tensor: tensor.fp32_rows(range(len(tensor.fp32())))):
            with pytest.raises(UnsupportedCheckpointError, match=f"^{name}: weights are not .*; use precision fp32"):
                read()


def test_fp16_export_applies_the_rescale(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", MASSIVE["both"])
    options = ExportOptions(
        model=SourceReference(str(source)),
        repository=tmp_path / "repository",
        precision=Precision.FP16,
        max_tokens=96,
        name="massive",
    )
    notes = Notes()
    result = export_model(options, notes)
    parity = result.record.parity
    assert isinstance(parity, ParityReport)
    assert parity.min_cosine >= 0.9999
    assert parity.min_batched_cosine >= 0.9999999
    _, witness, rescaled, budget = notes.notes
    assert witness.startswith("no second witness:")
    assert rescaled.startswith("rescaled to fp16's range:")
    assert budget.startswith("a batch has at most")
    assert max(largest_half_values(result.folder.graph(1)).values()) <= FP16_MAX / HEADROOM
