"""Fused checkpoints: their tensors, their files, and what is refused."""

from __future__ import annotations

import dataclasses
import filecmp
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_notes import Notes
from safetensors.torch import load_file
from test_fuse import WITHOUT_BASE, published_linear
from test_fuse import fuse as fuse_values
from test_setting_files import PROMPTS_FILE, write_pooling
from test_task_vectors import load_sum, load_ties
from tiny_checkpoint import (
    CAUSAL,
    CLASSIFIER,
    TinyCheckpoint,
    decoder_tensors,
    stored_tensors,
    write_checkpoint,
    write_json,
    write_tokenizer,
    write_weights,
)
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Qwen3ForCausalLM, Qwen3Model
from written_graph import min_cosine, model_vectors, official_vectors, random_rows

from qwen3_triton.export import (
    FuseOptions,
    FusionError,
    FusionMethod,
    ModelExistsError,
    SourceError,
    SourceReference,
    UnsupportedCheckpointError,
    WeightedCheckpoint,
    write_fused_checkpoint,
)
from qwen3_triton.export.artifacts import weight_shards

ROWS = random_rows([1, 8, 40])
LINEAR, SLERP = WITHOUT_BASE
TASK_ARITHMETIC, TIES = FusionMethod.TASK_ARITHMETIC, FusionMethod.TIES
TINY = TinyCheckpoint()


def fuse(
    output: Path,
    *sources: Path,
    weights: tuple[float, ...] = (),
    method: FusionMethod = SLERP,
    notes: Notes | None = None,
    overwrite: bool = False,
    base: Path | None = None,
    density: float = 0.2,
    scale: float = 1.0,
) -> Path:
    weights = weights or (1.0,) * len(sources)
    checkpoints = tuple(
        WeightedCheckpoint(SourceReference(str(source)), weight)
        for source, weight in zip(sources, weights, strict=True)
    )
    options = FuseOptions(
        checkpoints=checkpoints,
        output=output,
        method=method,
        base=SourceReference(str(base)) if base else None,
        density=density,
        scale=scale,
        overwrite=overwrite,
    )
    return write_fused_checkpoint(options, notes)


def pair(folder: Path, tiny: TinyCheckpoint = TINY, **changes: Any) -> tuple[Path, Path]:
    """Write two checkpoints that differ in their weights, and in `changes`."""
    first = write_checkpoint(folder / "first", tiny)
    return first, write_checkpoint(folder / "second", dataclasses.replace(tiny, seed=tiny.seed + 10, **changes))


def load_all(folder: Path) -> dict[str, torch.Tensor]:
    return {name: values for file in folder.glob("*.safetensors") for name, values in load_file(file).items()}


@pytest.mark.parametrize("method", WITHOUT_BASE)
@pytest.mark.parametrize("layout", ["Qwen3Model", CAUSAL], ids=["model", "causal"])
def test_output_loads_in_transformers(tmp_path: Path, layout: str, method: FusionMethod) -> None:
    tiny = TinyCheckpoint(layout=layout, tied=layout != CAUSAL)
    first, second = pair(tmp_path, tiny, shards=2)
    output = fuse(tmp_path / "out" / "fused", first, second, weights=(3.0, 1.0), method=method)
    model = (Qwen3ForCausalLM if layout == CAUSAL else Qwen3Model).from_pretrained(output, dtype=torch.float32)
    loaded = model.state_dict()
    sources = [load_all(folder) for folder in (first, second)]
    assert set(load_all(output)) == set(sources[0])
    for name in sources[0]:
        expected = fuse_values([source[name] for source in sources], (3.0, 1.0), method)
        assert torch.equal(loaded[name], expected)
    decoder = model.get_submodule("model") if layout == CAUSAL else model
    assert min_cosine(official_vectors(output, ROWS), model_vectors(decoder, ROWS)) >= 0.9999999
    assert min_cosine(official_vectors(output, ROWS), official_vectors(first, ROWS)) < 0.99
    assert AutoTokenizer.from_pretrained(output)("the capital")["input_ids"][-1] == 278


@pytest.mark.parametrize("method", [TASK_ARITHMETIC, TIES])
@pytest.mark.parametrize("layout", ["Qwen3Model", CAUSAL], ids=["model", "causal"])
def test_output_with_a_base_loads_in_transformers(tmp_path: Path, layout: str, method: FusionMethod) -> None:
    tiny = TinyCheckpoint(layout=layout, tied=layout != CAUSAL)
    first, second = pair(tmp_path, tiny, shards=2)
    base = write_checkpoint(tmp_path / "base", dataclasses.replace(tiny, seed=5))
    (base / "tokenizer.json").unlink()
    output = fuse(
        tmp_path / "fused", first, second, weights=(0.5, 1.0), method=method, base=base, density=0.4, scale=0.7
    )
    loaded = (Qwen3ForCausalLM if layout == CAUSAL else Qwen3Model).from_pretrained(output).state_dict()
    origin, *sources = (load_all(folder) for folder in (base, first, second))
    assert set(load_all(output)) == set(sources[0])
    for name in sources[0]:
        tensors = [source[name] for source in sources]
        expected = (
            load_sum(origin[name], tensors, (0.5, 1.0), 0.7)
            if method is TASK_ARITHMETIC
            else load_ties(origin[name], tensors, (0.5, 1.0), 0.4, 0.7)
        )
        assert torch.equal(loaded[name], expected)
    assert AutoTokenizer.from_pretrained(output)("the capital")["input_ids"][-1] == 278


def test_task_arithmetic_of_one_checkpoint_scales_its_fine_tuning(tmp_path: Path) -> None:
    base, tuned = pair(tmp_path)
    notes = Notes()
    output = load_all(fuse(tmp_path / "out", tuned, weights=(-0.5,), method=TASK_ARITHMETIC, base=base, notes=notes))
    before, after = load_all(base), load_all(tuned)
    for name, values in output.items():
        torch.testing.assert_close(values, 1.5 * before[name] - 0.5 * after[name])
    ways = [note.rpartition(" by ")[0] for note in notes.notes]
    assert ways == [f"the result differs from {tuned} (weight -0.5)", f"the result differs from {base} (base)"]


def test_only_the_weights_of_a_base_count(tmp_path: Path) -> None:
    """Its prompts, pooling, dtype and end token may be others."""
    first, base = pair(tmp_path, layout=CAUSAL, end_token=False, dtype=torch.bfloat16)
    write_prompts(prompts={"query": "q: "})(base)
    pool("mean")(base)
    output = fuse(tmp_path / "fused", first, first, method=TIES, base=base)
    assert not (output / PROMPTS_FILE).exists()
    assert not (output / "modules.json").exists()
    assert (output / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"hidden": 48}, "hidden_size is 48 instead of 40"),
        ({"tokenizer_size": 290}, "tokenizer.json has another model and added_tokens"),
        ({"layout": CLASSIFIER}, "shape of score.weight is [1, 40] instead of not stated"),
    ],
    ids=str,
)
def test_another_base_is_refused(tmp_path: Path, changes: dict[str, Any], difference: str) -> None:
    first, base = pair(tmp_path, **changes)
    with pytest.raises(FusionError) as raised:
        fuse(tmp_path / "out" / "fused", first, method=TASK_ARITHMETIC, base=base)
    assert f"compared with {first}, the base {base} ({difference}" in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (TIES, {"with_base": False}, "ties needs a base"),
        (SLERP, {}, "slerp has no use for a base"),
        (TIES, {"weights": (1.0, -1.0)}, "tiny=-1': ties takes no negative weights"),
        (TASK_ARITHMETIC, {"weights": (1.0, 0.0)}, "tiny=0': the weight must be a finite number other than 0"),
        (TIES, {"density": 0.0}, "density 0: must be above 0 and at most 1"),
        (TIES, {"density": 1.5}, "density 1.5: must be above 0 and at most 1"),
        (TIES, {"scale": float("nan")}, "scale nan: must be a finite number other than 0"),
    ],
    ids=str,
)
def test_invalid_options_with_a_base_are_refused(
    tmp_path: Path, tiny_source: Path, method: FusionMethod, options: dict[str, Any], message: str
) -> None:
    base = tiny_source if options.pop("with_base", True) else None
    with pytest.raises(FusionError, match=re.escape(message)):
        fuse(tmp_path / "fused", tiny_source, tiny_source, method=method, base=base, **options)


def test_classifier_heads_are_fused(tmp_path: Path) -> None:
    first, second = pair(tmp_path, TinyCheckpoint(layout=CLASSIFIER, labels=2))
    output = fuse(tmp_path / "fused", first, second, method=LINEAR)
    model = AutoModelForSequenceClassification.from_pretrained(output, dtype=torch.float32)
    heads = [load_all(folder)["score.weight"] for folder in (first, second)]
    torch.testing.assert_close(model.score.weight.data, (heads[0] + heads[1]) / 2)


def test_values_are_rounded_once(tmp_path: Path) -> None:
    tiny = TinyCheckpoint(dtype=torch.bfloat16)
    folders = [write_checkpoint(tmp_path / str(seed), dataclasses.replace(tiny, seed=seed)) for seed in (1, 2, 3)]
    output = load_all(fuse(tmp_path / "fused", *folders, weights=(1.0, 1.0, 3.0), method=LINEAR))
    sources = [load_all(folder) for folder in folders]
    for name, values in output.items():
        exact = torch.from_numpy(published_linear((1.0, 1.0, 3.0), [source[name] for source in sources]))
        assert values.dtype is torch.bfloat16
        half_a_step = torch.exp2(torch.frexp(exact).exponent.double() - 9)
        assert ((values.double() - exact).abs() <= half_a_step + 1e-6).all()


@pytest.mark.parametrize("method", FusionMethod)
@pytest.mark.parametrize(
    "tiny",
    [
        TinyCheckpoint(dtype=torch.bfloat16),
        TinyCheckpoint(dtype=torch.float16, layout=CAUSAL),
        TinyCheckpoint(layout=CAUSAL, tied=False, dtype=torch.bfloat16),
        TinyCheckpoint(layout=CLASSIFIER),
    ],
    ids=["bf16", "tied", "untied", "classifier"],
)
def test_fusing_a_model_with_itself_returns_its_file(
    tmp_path: Path, tiny: TinyCheckpoint, method: FusionMethod
) -> None:
    source = write_checkpoint(tmp_path / "tiny", tiny)
    base = source if method.needs_base else None
    output = fuse(
        tmp_path / "out" / "fused", source, source, source, weights=(0.3, 0.9, 1 / 7), method=method, base=base
    )
    before, after = load_all(source), load_all(output)
    assert {name: values.dtype for name, values in after.items()} == {name: v.dtype for name, v in before.items()}
    assert all(torch.equal(after[name], values) for name, values in before.items())
    assert (output / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_the_same_fusion_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = pair(tmp_path, TinyCheckpoint(dtype=torch.bfloat16))
    once, again = (fuse(tmp_path / name, first, second, weights=(0.6, 0.4)) for name in ("once", "again"))
    names = sorted(entry.name for entry in once.iterdir())
    assert filecmp.cmpfiles(once, again, names, shallow=False) == (names, [], [])


def test_layouts_and_dtypes_may_differ_and_the_first_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pair(tmp_path, TinyCheckpoint(layout=CAUSAL, dtype=torch.bfloat16), layout="Qwen3Model", shards=3)
    write_weights(second, {name: values.float() for name, values in decoder_tensors(TINY).items()})
    for file in second.glob("model-*"):
        file.unlink()
    (second / "model.safetensors.index.json").unlink()
    monkeypatch.setattr(weight_shards, "SHARD_BYTES", 30_000)
    output = fuse(tmp_path / "fused", first, second)
    after = load_all(output)
    assert {name: values.dtype for name, values in after.items()} == {
        name: values.dtype for name, values in load_all(first).items()
    }
    index = json.loads((output / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(after)
    assert Qwen3ForCausalLM.from_pretrained(output).config.tie_word_embeddings


def test_a_stored_copy_of_tied_embeddings_stays_equal_to_them(tmp_path: Path) -> None:
    first, second = pair(tmp_path, TinyCheckpoint(layout=CAUSAL))
    stored = stored_tensors(TinyCheckpoint(layout=CAUSAL))
    write_weights(first, stored | {"lm_head.weight": stored["model.embed_tokens.weight"].clone()})
    after = load_all(fuse(tmp_path / "fused", first, second))
    assert torch.equal(after["lm_head.weight"], after["model.embed_tokens.weight"])


def test_a_head_that_the_first_does_not_have_is_left_out(tmp_path: Path) -> None:
    second, first = pair(tmp_path, TinyCheckpoint(layout=CAUSAL, tied=False), layout="Qwen3Model")
    assert "lm_head.weight" not in load_all(fuse(tmp_path / "fused", first, second))


def test_notes_state_the_distance_to_each_checkpoint(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    notes = Notes()
    output = load_all(fuse(tmp_path / "fused", first, second, weights=(3.0, 1.0), method=LINEAR, notes=notes))
    for folder, share, note in zip((first, second), (0.75, 0.25), notes.notes, strict=True):
        source = load_all(folder)
        change = torch.cat([(output[name] - values).flatten() for name, values in source.items()])
        norm = torch.cat([values.flatten() for values in source.values()]).norm()
        found = re.fullmatch(r"the result differs from (.+) \(share (.+)\) by (.+) of its norm", note)
        assert found is not None
        assert found[1] == str(folder)
        assert float(found[2]) == share
        assert float(found[3]) == pytest.approx(float(change.norm() / norm), rel=6e-3)


def test_files_of_the_first_apply_where_others_have_none(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    write_pooling(first, "lasttoken")
    write_json(first / PROMPTS_FILE, {"prompts": {"query": "q: ", "document": ""}})
    notes = Notes()
    output = fuse(tmp_path / "fused", first, second, notes=notes)
    assert notes.notes[0] == f"{second} has no modules.json, {PROMPTS_FILE}; those of {first} apply"
    for name in ("modules.json", PROMPTS_FILE, "1_Pooling/config.json", "tokenizer.json"):
        assert (output / name).read_bytes() == (first / name).read_bytes()


def test_what_decides_nothing_may_differ(tmp_path: Path) -> None:
    """Padding, spelling of rope, empty prompts, length limits and layouts of a pooling config."""
    first, second = pair(tmp_path, rope_spelling="rope_parameters")
    for folder in (first, second):
        write_pooling(folder, "lasttoken")
    write_json(second / "1_Pooling" / "config.json", {"pooling_mode_lasttoken": True, "word_embedding_dimension": 40})
    write_json(first / PROMPTS_FILE, {"prompts": {"query": "q: ", "document": ""}})
    write_json(second / PROMPTS_FILE, {"prompts": {"query": "q: "}, "default_prompt_name": None, "x": 1})
    write_json(second / "sentence_bert_config.json", {"max_seq_length": 48})
    tokenizer = AutoTokenizer.from_pretrained(second).backend_tokenizer
    tokenizer.enable_padding(pad_id=278)
    tokenizer.enable_truncation(32)
    tokenizer.save(str(second / "tokenizer.json"))
    fuse(tmp_path / "fused", first, second)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"hidden": 48}, "hidden_size is 48 instead of 40"),
        ({"layers": 3}, "num_hidden_layers is 3 instead of 2"),
        ({"heads": 2}, "num_attention_heads is 2 instead of 4"),
        ({"vocabulary": 310}, "vocab_size is 310 instead of 300"),
        ({"max_positions": 512}, "max_position_embeddings is 512 instead of 256"),
        ({"theta": 1e6}, "rope_theta is 1000000.0 instead of 10000.0"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
            "rope rope_type is 'linear' instead of 'default'; rope factor is 2.0 instead of not stated",
        ),
        ({"config_changes": {"rms_norm_eps": 1e-5}}, "rms_norm_eps is 1e-05 instead of 1e-06"),
        ({"layout": CLASSIFIER}, "shape of score.weight is [1, 40] instead of not stated"),
        ({"end_token": False}, "tokenizer.json has another post_processor"),
        ({"tokenizer_size": 290}, "tokenizer.json has another added_tokens and post_processor and model"),
    ],
    ids=str,
)
def test_other_models_are_refused(tmp_path: Path, changes: dict[str, Any], difference: str) -> None:
    first, second = pair(tmp_path, **changes)
    with pytest.raises(FusionError, match="checkpoints of different models cannot be fused") as raised:
        fuse(tmp_path / "out" / "fused", first, second)
    assert f"compared with {first}, {second} ({difference}" in str(raised.value)
    assert not (tmp_path / "out").exists()


def remove_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def write_prompts(**settings: Any) -> Callable[[Path], None]:
    return lambda folder: write_json(folder / PROMPTS_FILE, settings)


def pool(mode: str, **settings: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_pooling(folder, mode)
        write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": mode} | settings)

    return write


def write_dense(folder: Path) -> None:
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    write_json(folder / "modules.json", modules)


def score_logits(template: str, yes: int = 7) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        modules = [
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_LogitScore", "type": "sentence_transformers.cross_encoder.modules.LogitScore"},
        ]
        write_json(folder / "modules.json", modules)
        (folder / "1_LogitScore").mkdir()
        write_json(folder / "1_LogitScore" / "config.json", {"true_token_id": yes, "false_token_id": 5})
        (folder / "chat_template.jinja").write_text(template)

    return write


def nothing(_: Path) -> None:
    """Leave the checkpoint as it is."""


@pytest.mark.parametrize(
    ("change_first", "change_second", "difference"),
    [
        (remove_tokenizer, nothing, "it has tokenizer.json, which the first lacks"),
        (nothing, pool("lasttoken"), "it has modules.json, which the first lacks"),
        (pool("lasttoken"), pool("mean"), "'Pooling of mean'] instead of ['Transformer', 'Pooling of lasttoken']"),
        (pool("lasttoken"), pool("lasttoken", include_prompt=False), "'Pooling of lasttoken without the prompt'"),
        (write_dense, nothing, "modules.json has 'Dense', whose weights are not fused"),
        (score_logits("x"), score_logits("x", yes=9), "'LogitScore of 9 and 5'"),
        (score_logits("x"), score_logits("y"), "it has another chat template"),
        (nothing, write_prompts(prompts={"query": "q: "}), "the prompt 'query' is 'q: ' instead of not stated"),
        (
            write_prompts(prompts={"query": "q: "}),
            write_prompts(prompts={"query": "Q: "}, default_prompt_name="query"),
            "the prompt 'query' is 'Q: ' instead of 'q: '; the prompt by default is 'query' instead of not stated",
        ),
    ],
    ids=["tokenizer", "modules", "pooling", "include_prompt", "dense", "answers", "template", "no-prompts", "prompts"],
)
def test_other_settings_are_refused(
    tmp_path: Path, change_first: Callable[[Path], None], change_second: Callable[[Path], None], difference: str
) -> None:
    first, second = pair(tmp_path)
    change_first(first)
    change_second(second)
    with pytest.raises(FusionError, match=re.escape(difference)):
        fuse(tmp_path / "fused", first, second)


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ({"tied": False}, {"tied": True}, "lm_head.weight is tied to the embeddings"),
        ({"tied": False}, {"layout": "Qwen3Model"}, "lm_head.weight is missing"),
        ({"tied": True}, {"tied": False}, "lm_head.weight is not tied to the embeddings"),
        ({"layout": CLASSIFIER}, {"layout": CAUSAL}, "shape of score.weight is not stated instead of [1, 40]"),
        ({"layout": CLASSIFIER}, {"labels": 2}, "shape of score.weight is [2, 40] instead of [1, 40]"),
        (
            {"layout": CLASSIFIER, "labels": 2, "config_changes": {"id2label": {"0": "no", "1": "yes"}}},
            {"config_changes": {"id2label": {"0": "yes", "1": "no"}}},
            "id2label is {'0': 'yes', '1': 'no'} instead of {'0': 'no', '1': 'yes'}",
        ),
    ],
    ids=["untied and tied", "head is missing", "tied and untied", "classifier", "labels", "names of labels"],
)
def test_other_heads_are_refused(tmp_path: Path, one: dict[str, Any], other: dict[str, Any], difference: str) -> None:
    first, second = pair(tmp_path, dataclasses.replace(TinyCheckpoint(layout=CAUSAL), **one), **other)
    with pytest.raises(FusionError, match=re.escape(difference)):
        fuse(tmp_path / "fused", first, second)


def test_the_differences_of_all_checkpoints_are_listed(tmp_path: Path) -> None:
    first, second = pair(tmp_path, theta=1e6, hidden=48)
    third = write_checkpoint(tmp_path / "third", TinyCheckpoint(end_token=False))
    with pytest.raises(FusionError) as raised:
        fuse(tmp_path / "fused", first, second, first, third)
    assert str(raised.value) == (
        f"checkpoints of different models cannot be fused: compared with {first}, {second} (hidden_size is 48 instead "
        f"of 40; rope_theta is 1000000.0 instead of 10000.0), {third} (tokenizer.json has another post_processor)"
    )


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (-1.0, "slerp takes no negative weights"),
        *((weight, "the weight must be a finite number other than 0") for weight in (0.0, float("nan"), float("inf"))),
    ],
)
def test_invalid_weights_are_refused(tmp_path: Path, tiny_source: Path, weight: float, reason: str) -> None:
    with pytest.raises(FusionError, match=f"tiny={weight:g}': {reason}"):
        fuse(tmp_path / "fused", tiny_source, tiny_source, weights=(1.0, weight))


def test_a_weight_that_is_no_number_is_refused() -> None:
    assert WeightedCheckpoint.parse("owner/name@main=0.5") == WeightedCheckpoint(
        SourceReference("owner/name", "main"), 0.5
    )
    with pytest.raises(SourceError, match="checkpoint 'a=half': 'half' is not a number; write DIR or DIR=WEIGHT"):
        WeightedCheckpoint.parse("a=half")


def test_one_checkpoint_is_refused(tmp_path: Path, tiny_source: Path) -> None:
    with pytest.raises(FusionError, match="two or more checkpoints"):
        fuse(tmp_path / "fused", tiny_source)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    first, second = pair(tmp_path, TinyCheckpoint(dtype=torch.float16))
    # between orthogonal tensors, slerp multiplies both with 0.71
    for source, other in ((first, 60_000.0), (second, -60_000.0)):
        tensors = load_all(source)
        tensors["norm.weight"][3:5] = torch.tensor([60_000.0, other])
        write_weights(source, tensors)
    with pytest.raises(FusionError, match=r"norm\.weight: the fused values do not fit into torch\.float16"):
        fuse(tmp_path / "out" / "fused", first, second)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_adapter_beside_the_weights_is_refused(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    write_json(second / "adapter_config.json", {})
    with pytest.raises(UnsupportedCheckpointError, match=r"second/adapter_config\.json"):
        fuse(tmp_path / "fused", first, second)


def test_an_existing_output_is_kept_unless_it_is_overwritten(tmp_path: Path, tiny_source: Path) -> None:
    output = tmp_path / "out" / "fused"
    write_tokenizer(write_checkpoint(output / "old").parent)
    with pytest.raises(ModelExistsError, match="fused exists; overwrite it"):
        fuse(output, tiny_source, tmp_path / "missing")
    assert (output / "old").exists()
    fuse(output, tiny_source, tiny_source, overwrite=True)
    assert not (output / "old").exists()
