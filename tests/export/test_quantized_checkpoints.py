"""Quantized checkpoints: dequantized exactly when they are read, or rejected with what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked_exports import tiny_options
from peft_adapters import peft_truth, write_adapter
from quantized_checkpoint import (
    QuantizedMatrix,
    Tensors,
    awq,
    awq_settings,
    compressed_settings,
    fp8_blocks,
    fp8_settings,
    gptq,
    gptq_settings,
    packed_rows,
    packed_settings,
    quantize_folder,
    scaled_rows,
)
from recorded_notes import Notes
from safetensors.torch import load_file, save_file
from test_witness import write_sentence_files
from tiny_checkpoint import CAUSAL, TinyCheckpoint, write_checkpoint, write_json
from transformers import AutoModel
from written_graph import min_cosine, model_vectors, official_vectors, random_rows

from qwen3_triton.client import Precision
from qwen3_triton.export import (
    AdapterReference,
    ExportError,
    FuseOptions,
    FusionMethod,
    MergeOptions,
    SourceError,
    SourceReference,
    UnsupportedCheckpointError,
    WeightedCheckpoint,
    export_model,
    write_fused_checkpoint,
    write_merged_checkpoint,
)
from qwen3_triton.export.plan import plan_export
from qwen3_triton.export.sources import weights
from qwen3_triton.export.sources.checkpoint import Checkpoint, open_checkpoint
from qwen3_triton.export.sources.quantized import packed_codes
from qwen3_triton.export.verification.runtime import WrittenModel

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # from transformers, about a name that PEFT uses

SHAPE = TinyCheckpoint(hidden=64, intermediate=96)
ROWS = random_rows([1, 9, 40])
FORMS: Mapping[str, tuple[Mapping[str, Any], Callable[[torch.Tensor], QuantizedMatrix]]] = {
    "fp8": (fp8_settings((16, 32)), fp8_blocks((16, 32))),
    "fp8-ragged": (fp8_settings((24, 40)), fp8_blocks((24, 40))),
    "float-by-channel": (compressed_settings("float"), scaled_rows(torch.float8_e4m3fn, "channel")),
    "float-by-tensor": (compressed_settings("float"), scaled_rows(torch.float8_e4m3fn, "tensor")),
    "int-by-channel": (compressed_settings("int"), scaled_rows(torch.int8, "channel")),
    "packed-4-bits": (packed_settings(4), packed_rows(4)),
    "packed-8-bits": (packed_settings(8), packed_rows(8)),
    "gptq": (gptq_settings(4, 32), gptq(4, 32)),
    "gptq-2-bits": (gptq_settings(2, 16), gptq(2, 16)),
    "gptq-8-bits": (gptq_settings(8, -1), gptq(8, -1)),
    "gptq-desc-act": (gptq_settings(4, 32, desc_act=True), gptq(4, 32, shuffle=True)),
    "gptq-v2": (gptq_settings(4, 32, checkpoint_format="gptq_v2"), gptq(4, 32, stored_minus=0)),
    "awq": (awq_settings(32), awq(32)),
}


def quantized(folder: Path, form: str, tiny: TinyCheckpoint = SHAPE, *, skip: tuple[str, ...] = ()) -> Tensors:
    """Write a quantized checkpoint and return its weights."""
    settings, quantize = FORMS[form]
    return quantize_folder(write_checkpoint(folder, tiny), settings, quantize, skip=skip)


def read(folder: Path) -> Checkpoint:
    return open_checkpoint(SourceReference(str(folder)))


def change_settings(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] |= changes
    write_json(folder / "config.json", config)


def change_tensors(folder: Path, change: Callable[[Tensors], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_those_of_the_codes(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (weights, packed_codes):
        monkeypatch.setattr(module, "_PART", 700)
    truth = quantized(tmp_path / "model", form, skip=("layers.1.self_attn.k_proj",))
    found = read(tmp_path / "model")
    assert found.dequantized == {name for name in truth if "_proj" in name} - {"layers.1.self_attn.k_proj.weight"}
    for name, tensor in found.weights.items():
        assert torch.equal(tensor.fp32(), truth[name]), name
        # what packs the inputs of other rows into a word is read whole
        assert tensor.load_rows is not None or form.startswith(("gptq", "awq"))
        assert torch.equal(torch.cat(list(tensor.fp32_parts())), truth[name])
        assert torch.equal(tensor.fp32_rows([7, 2, 2]), truth[name][[7, 2, 2]])


def test_fp8_equals_the_dequantization_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers", minversion="5.0")
    folder = tmp_path / "model"
    # names of a causal LM, as in the published checkpoints
    tiny = TinyCheckpoint(hidden=64, intermediate=96, layout=CAUSAL)
    settings = fp8_settings((16, 32), modules_to_not_convert=["lm_head", "model.layers.1.mlp.down_proj"])
    quantize_folder(write_checkpoint(folder, tiny), settings, fp8_blocks((16, 32)), skip=("layers.1.mlp.down",))
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    found = read(folder)
    assert len(found.dequantized) == 13
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.weights[name].fp32(), tensor.float()), name
        assert name not in found.dequantized or tensor.dtype == torch.float32


def test_fp8_blocks_at_the_edges_are_smaller(tmp_path: Path) -> None:
    """The truth is each code times the scale of its block, and the kernel of transformers where it has one."""
    kernels = pytest.importorskip("transformers.integrations.finegrained_fp8")
    kernel = getattr(kernels, "_dequantize_fp8_weight", None)
    quantized(tmp_path / "model", "fp8-ragged")
    stored, checkpoint = load_file(tmp_path / "model" / "model.safetensors"), read(tmp_path / "model")
    assert not checkpoint.transformers_agrees
    for name in checkpoint.dequantized:
        codes, scales = stored[name], stored[f"{name}_scale_inv"].float()
        rows, columns = (torch.arange(size) // block for size, block in zip(codes.shape, (24, 40), strict=True))
        found = checkpoint.weights[name].fp32()
        assert torch.equal(found, codes.float() * scales[rows][:, columns]), name
        if kernel is not None:
            assert torch.equal(found, kernel(codes, stored[f"{name}_scale_inv"], [24, 40], torch.float32)), name


@pytest.mark.parametrize("scale", [torch.ones(()), torch.ones(1)])
def test_fp8_without_blocks_has_one_scale(tmp_path: Path, scale: torch.Tensor) -> None:
    folder = write_checkpoint(tmp_path / "model", SHAPE)

    def quantize(matrix: torch.Tensor) -> QuantizedMatrix:
        codes = matrix.to(torch.float8_e4m3fn)
        return QuantizedMatrix({".weight": codes, ".weight_scale_inv": 0.5 * scale}, 0.5 * codes.float())

    truth = quantize_folder(folder, fp8_settings(None), quantize)
    assert all(torch.equal(tensor.fp32(), truth[name]) for name, tensor in read(folder).weights.items())


def test_zero_points_that_borrow_from_their_neighbors(tmp_path: Path) -> None:
    """Positive weights have zero points of 0, which the format `gptq` stores as -1."""
    folder = write_checkpoint(tmp_path / "model", SHAPE)

    def positive(tensors: Tensors) -> None:
        tensors["layers.0.self_attn.q_proj.weight"][3::8].abs_()

    change_tensors(folder, positive)
    settings, quantize = FORMS["gptq"]
    truth = quantize_folder(folder, settings, quantize)
    zeros = load_file(folder / "model.safetensors")["layers.0.self_attn.q_proj.qzeros"]
    assert bool(((zeros >> 12 & 15) == 15).all())
    name = "layers.0.self_attn.q_proj.weight"
    assert torch.equal(read(folder).weights[name].fp32(), truth[name])


@pytest.mark.parametrize(
    ("form", "precision"),
    [("fp8", Precision.FP32), ("fp8", Precision.INT8), ("gptq", Precision.FP16), ("awq", Precision.FP32)],
)
def test_export_has_the_vectors_of_the_dequantized_model(tmp_path: Path, form: str, precision: Precision) -> None:
    folder = tmp_path / "model"
    truth = quantized(folder, form, TinyCheckpoint(hidden=64, intermediate=96, layers=3))
    checkpoint = read(folder)
    model = checkpoint.config.architecture.load_classes().model(checkpoint.transformers_config())
    model.load_state_dict(truth)
    options = tiny_options(folder, tmp_path / "repository", precision=precision)
    result = export_model(options)
    least = {Precision.FP32: 0.999999, Precision.FP16: 0.9999, Precision.INT8: 0.99}[precision]
    assert min_cosine(WrittenModel(result.folder.graph(1)).run(ROWS), model_vectors(model, ROWS)) >= least
    assert result.record.origins["weights"].startswith("dequantized from ")


def test_plan_says_that_weights_are_dequantized(tmp_path: Path) -> None:
    quantized(tmp_path / "model", "fp8")
    notes = Notes()
    plan = plan_export(tiny_options(tmp_path / "model", tmp_path / "repository"), notes)
    assert "14 tensors are dequantized from FP8 to fp32" in notes.notes
    assert plan.bytes > 0


def test_second_witness_dequantizes_fp8_by_its_own_code(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", minversion="5.4")
    pytest.importorskip("transformers", minversion="5.0")
    folder = tmp_path / "model"
    quantized(folder, "fp8")
    write_sentence_files(folder)
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 64, "pooling_mode_lasttoken": True})
    witness = export_model(tiny_options(folder, tmp_path / "repository")).record.witness
    assert witness is not None
    assert witness.passed


@pytest.mark.parametrize("form", ["fp8-ragged", "gptq"])
def test_second_witness_is_left_out_where_it_would_read_other_weights(tmp_path: Path, form: str) -> None:
    quantized(tmp_path / "model", form)
    write_sentence_files(tmp_path / "model")
    notes = Notes()
    assert export_model(tiny_options(tmp_path / "model", tmp_path / "repository"), notes).record.witness is None
    assert any(note.startswith("no second witness: ") and "dequantized" in note for note in notes.notes)


@pytest.mark.parametrize("form", ["fp8", "gptq"])
def test_adapter_on_a_quantized_checkpoint(tmp_path: Path, form: str) -> None:
    folder, plain = tmp_path / "model", tmp_path / "plain"
    truth = quantized(folder, form)
    save_file(truth, write_checkpoint(plain, SHAPE) / "model.safetensors", metadata={"format": "pt"})
    adapter = write_adapter(tmp_path / "adapter", plain)
    expected = peft_truth(plain, adapter, ROWS)
    reference = AdapterReference(SourceReference(str(adapter)))
    options = tiny_options(folder, tmp_path / "repository", adapters=(reference,))
    assert min_cosine(WrittenModel(export_model(options).folder.graph(1)).run(ROWS), expected.forward) >= 0.999999

    merged = tmp_path / "merged"
    write_json(folder / "quantize_config.json", {})
    notes = Notes()
    write_merged_checkpoint(MergeOptions(model=options.model, adapters=(reference,), output=merged), notes)
    assert any(note.endswith(" to fp32, and written as torch.bfloat16") for note in notes.notes)
    assert "quantization_config" not in (merged / "config.json").read_text(encoding="utf-8")
    assert not (merged / "quantize_config.json").exists()
    # the dtype of the embeddings
    stored = load_file(merged / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert min_cosine(official_vectors(merged, ROWS), expected.forward) >= 0.999


def test_fusion_with_a_quantized_checkpoint(tmp_path: Path) -> None:
    truth = quantized(tmp_path / "a", "fp8")
    other = write_checkpoint(tmp_path / "b", TinyCheckpoint(hidden=64, intermediate=96, seed=5))
    checkpoints = tuple(WeightedCheckpoint(SourceReference(str(folder)), 0.5) for folder in (tmp_path / "a", other))
    fused = write_fused_checkpoint(
        FuseOptions(checkpoints=checkpoints, output=tmp_path / "fused", method=FusionMethod.LINEAR)
    )
    assert "quantization_config" not in (fused / "config.json").read_text(encoding="utf-8")
    found, second = load_file(fused / "model.safetensors"), load_file(other / "model.safetensors")
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.float(), (truth[name] + second[name]) / 2, rtol=2**-8, atol=1e-6)


def drop(end: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        del tensors[f"layers.0.mlp.up_proj{end}"]

    return change


def cut(end: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[f"layers.0.mlp.up_proj{end}"] = tensors[f"layers.0.mlp.up_proj{end}"][:-1].clone()

    return change


def to_floats(end: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[f"layers.0.mlp.up_proj{end}"] = tensors[f"layers.0.mlp.up_proj{end}"].float()

    return change


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        ("fp8", drop(".weight_scale_inv"), r"lack .*layers.0.mlp.up_proj.weight_scale_inv; is the download complete\?"),
        ("fp8", cut(".weight_scale_inv"), r"has shape \[5, 2\] instead of \[6, 2\]"),
        ("float-by-channel", drop(".weight_scale"), "lack .*up_proj.weight_scale;"),
        ("float-by-channel", cut(".weight_scale"), r"has shape \[95, 1\] instead of"),
        ("packed-4-bits", drop(".weight_shape"), "lack .*up_proj.weight_shape;"),
        ("packed-4-bits", cut(".weight_packed"), r"weight_packed \[95, 8\] does not have the shape of 96 x 64 codes"),
        ("gptq", drop(".qzeros"), "lack .*layers.0.mlp.up_proj.qzeros;"),
        ("awq", drop(".scales"), "lack .*layers.0.mlp.up_proj.scales;"),
        ("awq", cut(".scales"), r"scales \[1, 96\] do not have the shapes of 2 groups of 32 inputs and 96 outputs"),
        ("gptq", to_floats(".qzeros"), "qweight and qzeros are not matrices of 32-bit integers"),
        ("gptq", cut(".g_idx"), r"g_idx has shape \[63\]"),
        ("gptq", cut(".qweight"), r"g_idx has shape \[64\] instead of \[56\]"),
    ],
)
def test_incomplete_weights_are_named(
    tmp_path: Path, form: str, change: Callable[[Tensors], None], message: str
) -> None:
    quantized(tmp_path / "model", form)
    change_tensors(tmp_path / "model", change)
    with pytest.raises(UnsupportedCheckpointError, match=message) as caught:
        read(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_groups_that_do_not_exist_are_named_when_they_are_read(tmp_path: Path) -> None:
    quantized(tmp_path / "model", "gptq")

    def change(tensors: Tensors) -> None:
        tensors["layers.0.mlp.up_proj.g_idx"][5] = 2

    change_tensors(tmp_path / "model", change)
    tensor = read(tmp_path / "model").weights["layers.0.mlp.up_proj.weight"]
    with pytest.raises(SourceError, match=r"layers.0.mlp.up_proj.g_idx has groups other than 0 to 1"):
        tensor.fp32()


@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_codes_of_nan_are_refused(tmp_path: Path, code: int) -> None:
    quantized(tmp_path / "model", "fp8")
    name = "layers.1.mlp.down_proj.weight"

    def change(tensors: Tensors) -> None:
        tensors[name].view(torch.uint8)[3, 5] = code

    change_tensors(tmp_path / "model", change)
    tensor = read(tmp_path / "model").weights[name]
    assert np.isfinite(tensor.fp32_rows([2]).numpy()).all()
    with pytest.raises(SourceError, match=f"tensor '{name}' has NaN or infinite values"):
        tensor.fp32()


@pytest.mark.parametrize(
    ("form", "settings", "message"),
    [
        ("fp8", {"quant_method": "bitsandbytes"}, "'bitsandbytes' is not supported; export the checkpoint"),
        ("fp8", {"quant_method": "hqq"}, "quant_method 'hqq' is not supported; export the checkpoint"),
        ("fp8", {"quant_method": None}, "is not supported; export the checkpoint"),
        ("fp8", {"weight_block_size": [0, 128]}, "not two positive integers"),
        ("fp8", {"weight_block_size": 128}, "not two positive integers"),
        ("float-by-channel", {"format": "nvfp4-pack-quantized"}, "'nvfp4-pack-quantized' of compressed-tensors is not"),
        ("packed-4-bits", {"config_groups": {"a": {"weights": {"num_bits": 3}}}}, r"num_bits of weights is \[3\]"),
        ("packed-4-bits", {"config_groups": None}, r"num_bits of weights is \[\]"),
        ("gptq", {"bits": 3}, "GPTQ of 3 bits is not supported"),
        ("gptq", {"bits": None}, "'bits' is missing"),
        ("gptq", {"group_size": 0}, "group_size is 0"),
        ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format 'marlin' is not supported"),
        ("awq", {"version": "gemv"}, "'gemv' is not supported; supported: 4 bits, gemm"),
        ("awq", {"bits": 8}, "AWQ of 8 bits"),
    ],
)
def test_other_forms_are_rejected_with_what_to_do(
    tmp_path: Path, form: str, settings: dict[str, Any], message: str
) -> None:
    quantized(tmp_path / "model", form)
    change_settings(tmp_path / "model", **settings)
    with pytest.raises(UnsupportedCheckpointError, match=message) as caught:
        read(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_codes_without_settings_are_rejected(tmp_path: Path) -> None:
    quantized(tmp_path / "model", "fp8")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    del config["quantization_config"]
    write_json(tmp_path / "model" / "config.json", config)
    with pytest.raises(ExportError, match="is F8_E4M3; only F32, F16 and BF16 are supported"):
        read(tmp_path / "model")
