"""Exported rerankers against the model card's recipe in transformers fp32."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from official_reranker import (
    INSTRUCTION,
    PREFIX,
    SUFFIX,
    classifier_scores,
    official_rows,
    official_scores,
)
from recorded_notes import Notes
from safetensors.torch import load_file
from tiny_checkpoint import CAUSAL, CLASSIFIER, MODEL, TinyCheckpoint, write_checkpoint, write_json, write_weights
from written_graph import Vectors

from qwen3_triton.client import Precision, RerankManifest, ScoreParityReport
from qwen3_triton.export import (
    ExportOptions,
    ExportResult,
    PairTemplate,
    ParityError,
    SourceReference,
    TaskChoice,
    UnsupportedCheckpointError,
    export_model,
)
from qwen3_triton.export.architectures import LM_HEAD
from qwen3_triton.export.graph import head as graph_head
from qwen3_triton.export.passes.merge_heads import merge_with_heads
from qwen3_triton.export.passes.rerank_head import take_answer_rows
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.sources.cross_encoder import AnswerIds
from qwen3_triton.export.sources.weights import LazyTensor
from qwen3_triton.export.verification.runtime import WrittenModel

MAX_TOKENS = 420
FLOAT32_NOISE = 1e-6
PAIRS = [
    ("what is the capital?", "the capital of the country is the city"),
    ("what is the capital?", "🙂"),
    ("", ""),
    ("", "the answer"),
    ("ein Zug fährt", ""),
    ("yes or no", "yes yes no <|im_end|> <|endoftext|>"),
    ("long", "the document and the text, " * 60),
]
# seeds whose scores for PAIRS are far apart
SHAPES = {
    "four-queries-per-key": TinyCheckpoint(heads=4, kv_heads=1, head_dim=32, hidden=48, layers=3),
    "one-query-per-key": TinyCheckpoint(heads=3, kv_heads=3, head_dim=16, hidden=40, layers=3, seed=2),
    "one-layer": TinyCheckpoint(layers=1, heads=2, kv_heads=1, head_dim=64, hidden=24, intermediate=20),
    "wide-untied": TinyCheckpoint(layers=3, heads=2, kv_heads=2, head_dim=16, hidden=96, intermediate=17, tied=False),
    "overflowing": TinyCheckpoint(layers=3, residual_shift=12, intermediate_shift=14, seed=5),
}


def as_reranker(tiny: TinyCheckpoint) -> TinyCheckpoint:
    """Return a causal LM with small logits, so that scores are not all close to 0 or 1."""
    scale = 0.3 * 2.0**-tiny.residual_shift
    return dataclasses.replace(tiny, layout=CAUSAL, end_token=False, answers=True, max_positions=512, head_scale=scale)


TINY = as_reranker(TinyCheckpoint(layers=3, seed=4))


def options_for(source: Path, repository: Path, **changes: Any) -> ExportOptions:
    options = ExportOptions(
        model=SourceReference(str(source)), repository=repository, name="model", max_tokens=MAX_TOKENS
    )
    return dataclasses.replace(options, **changes)


def export_reranker(source: Path, repository: Path, **changes: Any) -> ExportResult:
    result = export_model(options_for(source, repository, **changes))
    assert isinstance(result.manifest, RerankManifest)
    return result


def run(result: ExportResult, rows: list[list[int]]) -> Vectors:
    """Return the scores [n] of the written graph."""
    answers = WrittenModel(result.folder.graph(result.version), threads=1).run(rows)
    assert answers.shape == (len(rows), 1)
    assert answers.dtype == np.float32
    scores: Vectors = answers[:, 0]
    return scores


def rerank_manifest(result: ExportResult) -> RerankManifest:
    assert isinstance(result.manifest, RerankManifest)
    return result.manifest


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("reranker") / "tiny", TINY)


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export_reranker(source, tmp_path_factory.mktemp("exported") / "repository")


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("tiny", SHAPES.values(), ids=SHAPES.keys())
def test_scores_equal_the_official_recipe(tmp_path: Path, tiny: TinyCheckpoint, precision: Precision) -> None:
    folder = write_checkpoint(tmp_path / "tiny", as_reranker(tiny))
    result = export_reranker(folder, tmp_path / "repository", precision=precision)
    rows = official_rows(folder, PAIRS, MAX_TOKENS)
    truth = official_scores(folder, rows)
    scores = run(result, rows)
    assert np.abs(scores - truth).max() <= {Precision.FP32: 1e-4, Precision.FP16: 1e-2}[precision]
    # otherwise a model with constant output could pass
    assert truth.max() - truth.min() > 0.2
    alone = np.concatenate([run(result, [row]) for row in rows])
    assert np.abs(alone - scores).max() <= {Precision.FP32: FLOAT32_NOISE, Precision.FP16: 1e-3}[precision]


def test_tied_head_is_not_rescaled(tmp_path: Path) -> None:
    """The score head is taken from the embeddings before the rescale."""
    folder = write_checkpoint(tmp_path / "tiny", as_reranker(SHAPES["overflowing"]))
    notes = Notes()
    export_model(options_for(folder, tmp_path / "repository", precision=Precision.FP16), notes)
    [rescaled] = [note for note in notes.notes if note.startswith("rescaled to fp16's range: residual 2^-")]
    assert "residual 2^-0" not in rescaled


def test_scores_are_batch_invariant(source: Path, exported: ExportResult) -> None:
    rows = official_rows(source, PAIRS, MAX_TOKENS)
    truth = run(exported, rows)
    rng = random.Random(4)
    for _ in range(5):
        order = [rng.randrange(len(rows)) for _ in range(19)]
        padded = [[-1] * rng.randrange(6) + rows[index] + [-9] * rng.randrange(6) for index in order]
        assert np.abs(run(exported, padded) - truth[order]).max() <= FLOAT32_NOISE


@pytest.mark.parametrize("bad", [[], [-1, -1], [300], [5, 2**40], [1] * (MAX_TOKENS + 1)])
def test_bad_row_is_nan_and_affects_no_other_row(source: Path, exported: ExportResult, bad: list[int]) -> None:
    rows = official_rows(source, PAIRS, MAX_TOKENS)
    truth = run(exported, rows)
    for place in (0, 3, len(rows)):
        scores = run(exported, [*rows[:place], bad, *rows[place:]])
        assert np.isnan(scores[place])
        assert np.abs(np.delete(scores, place) - truth).max() <= FLOAT32_NOISE
    assert np.isnan(run(exported, [bad])).all()


def test_manifest_describes_the_export(source: Path, exported: ExportResult) -> None:
    manifest = rerank_manifest(exported)
    assert manifest.dimension == 1
    assert manifest.max_tokens == MAX_TOKENS
    assert (manifest.prompts.prefix, manifest.prompts.suffix) == (PREFIX, SUFFIX)
    assert manifest.prompts.body == "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    assert manifest.prompts.default_instruction == INSTRUCTION
    report = exported.record.parity
    assert isinstance(report, ScoreParityReport)
    assert report.passed
    assert (report.pairs, report.longest_tokens) == (21, MAX_TOKENS)
    assert report.max_score_error <= 2e-5
    assert report.min_score + 0.2 < report.max_score
    assert report.max_batched_score_error <= FLOAT32_NOISE
    assert exported.folder.tokenizer.read_bytes() == (source / "tokenizer.json").read_bytes()
    assert 'name: "score"' in exported.folder.config.read_text()


def test_template_and_instruction_are_applied(tmp_path: Path, source: Path) -> None:
    result = export_reranker(
        source, tmp_path / "repository", template=PairTemplate.BLANK_LINE, instruction="Find the law"
    )
    prompts = rerank_manifest(result).prompts
    body = prompts.body.replace("{instruction}", prompts.default_instruction or "")
    assert body == "<Instruct>: Find the law\n\n<Query>: {query}\n\n<Document>: {document}"


def test_only_one_row_of_the_lm_head_is_stored(tmp_path: Path) -> None:
    tiny = as_reranker(TinyCheckpoint(tied=False))
    result = export_reranker(write_checkpoint(tmp_path / "tiny", tiny), tmp_path / "repository")
    graph = onnx.load(str(result.folder.graph(1)), load_external_data=False).graph
    head = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer if tensor.name.startswith("head.")}
    assert head == {"head.norm.gain": (tiny.hidden,), "head.score.weight": (1, tiny.hidden)}
    vocabulary_sized = [tensor.name for tensor in graph.initializer if tiny.vocabulary in tensor.dims]
    assert vocabulary_sized == ["embedding.table.weight"]


def test_only_two_rows_of_the_lm_head_are_read(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", as_reranker(TinyCheckpoint(tied=False)))
    stored = load_file(folder / "model.safetensors")[LM_HEAD]
    base = open_checkpoint(SourceReference(str(folder)))
    head = base.weights[LM_HEAD]

    def load_all() -> torch.Tensor:
        raise AssertionError("the whole head was read")

    guarded = LazyTensor(head.shape, head.dtype, load_all, head.load_rows)
    base = base.with_weights({**base.weights, LM_HEAD: guarded})
    merged = base.with_weights(merge_with_heads(base, []).weights)
    rows = take_answer_rows(base, merged, AnswerIds(no=7, yes=3)).weights["score.weight"].fp32()
    assert torch.equal(rows, stored[[7, 3]])


def to_classifier(source: Path, folder: Path, labels: dict[str, str] | None, *, swap: bool = False) -> Path:
    """Convert a tied causal LM to a sequence classifier: one row without labels, otherwise two."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    tensors = load_file(source / "model.safetensors")
    vocabulary = json.loads((source / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in vocabulary}
    table = tensors.pop("lm_head.weight", tensors["model.embed_tokens.weight"])
    no, yes = table[ids["no"]], table[ids["yes"]]
    tensors["score.weight"] = (yes - no)[None] if labels is None else torch.stack([yes, no] if swap else [no, yes])
    config = json.loads((source / "config.json").read_text()) | {"architectures": [CLASSIFIER]}
    names = {"0": "LABEL_0"} if labels is None else labels
    config |= {"id2label": names, "label2id": {name: int(index) for index, name in names.items()}}
    write_json(folder / "config.json", config)
    write_weights(folder, tensors)
    return folder


CONVERSIONS: dict[str, tuple[dict[str, str] | None, bool]] = {
    "one-row": (None, False),
    "two-rows": ({"0": "LABEL_0", "1": "LABEL_1"}, False),
    "two-named-rows": ({"0": "no", "1": "Yes"}, False),
    "two-swapped-rows": ({"0": "relevant", "1": "irrelevant"}, True),
}


@pytest.mark.parametrize(("labels", "swap"), CONVERSIONS.values(), ids=CONVERSIONS.keys())
def test_converted_classifiers_equal_their_causal_lm(
    tmp_path: Path, source: Path, exported: ExportResult, labels: dict[str, str] | None, swap: bool
) -> None:
    folder = to_classifier(source, tmp_path / "classifier", labels, swap=swap)
    rows = official_rows(source, PAIRS, MAX_TOKENS)
    scores = run(export_reranker(folder, tmp_path / "repository"), rows)
    assert np.abs(scores - run(exported, rows)).max() <= 1e-6
    assert np.abs(scores - official_scores(source, rows)).max() <= 1e-4
    theirs = classifier_scores(folder, rows)
    assert np.abs(scores - (1 - theirs if swap else theirs)).max() <= 1e-4


def test_ambiguous_labels_are_rejected(tmp_path: Path, source: Path) -> None:
    folder = to_classifier(source, tmp_path / "classifier", {"0": "cat", "1": "dog"})
    with pytest.raises(UnsupportedCheckpointError, match=r"labels 'cat' and 'dog'.*id2label"):
        export_model(options_for(folder, tmp_path / "repository"))


@pytest.mark.parametrize("task", [TaskChoice.AUTO, TaskChoice.RERANK])
def test_three_labels_are_rejected(tmp_path: Path, task: TaskChoice) -> None:
    folder = write_checkpoint(tmp_path / "tiny", dataclasses.replace(TINY, layout=CLASSIFIER, labels=3))
    with pytest.raises(UnsupportedCheckpointError, match=r"3 (labels|rows)"):
        export_model(options_for(folder, tmp_path / "repository", task=task))


def test_end_token_of_the_tokenizer_is_left_out(tmp_path: Path, source: Path, exported: ExportResult) -> None:
    folder = write_checkpoint(tmp_path / "tiny", dataclasses.replace(TINY, end_token=True))
    result = export_reranker(folder, tmp_path / "repository", task=TaskChoice.RERANK)
    rows = official_rows(source, PAIRS, MAX_TOKENS)
    assert np.array_equal(run(result, rows), run(exported, rows))
    assert result.record.parity == exported.record.parity


def test_answers_that_are_not_single_tokens_are_rejected(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", dataclasses.replace(TINY, answers=False))
    with pytest.raises(UnsupportedCheckpointError, match=r"tokenizer.json: '(no|yes)' is not a single token"):
        export_model(options_for(folder, tmp_path / "repository"))


def test_checkpoint_without_a_head_is_rejected(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", dataclasses.replace(TINY, layout=MODEL, tied=False))
    with pytest.raises(UnsupportedCheckpointError, match=r"needs score.weight, lm_head.weight or tied embeddings"):
        export_model(options_for(folder, tmp_path / "repository", task=TaskChoice.RERANK))


@pytest.mark.parametrize("differs", [False, True])
def test_stored_head_of_a_tied_model(tmp_path: Path, source: Path, exported: ExportResult, differs: bool) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TINY)
    tensors = load_file(folder / "model.safetensors")
    write_weights(folder, tensors | {LM_HEAD: tensors["model.embed_tokens.weight"] + (0.1 if differs else 0.0)})
    if differs:
        with pytest.raises(UnsupportedCheckpointError, match=r"config.json ties lm_head.weight to the embeddings"):
            export_model(options_for(folder, tmp_path / "repository"))
        return
    rows = official_rows(source, PAIRS, MAX_TOKENS)
    assert np.array_equal(run(export_reranker(folder, tmp_path / "repository"), rows), run(exported, rows))


def test_head_of_another_width_is_rejected(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", as_reranker(TinyCheckpoint(tied=False)))
    tensors = load_file(folder / "model.safetensors")
    write_weights(folder, tensors | {LM_HEAD: torch.zeros(300, 41)})
    with pytest.raises(
        UnsupportedCheckpointError,
        match=r"tensor shapes differ from config.json: lm_head.weight \[300, 41\] instead of \[300, 40\]",
    ):
        open_checkpoint(SourceReference(str(folder)))


def swap_answers(head: LazyTensor) -> Vectors:
    rows: Vectors = head.fp32().numpy()
    return rows[:1] - rows[1:]


def drop_no(head: LazyTensor) -> Vectors:
    rows: Vectors = head.fp32().numpy()
    return rows[1:]


@pytest.mark.parametrize("wrong", [swap_answers, drop_no])
def test_wrong_head_fails_parity(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[LazyTensor], Vectors]
) -> None:
    monkeypatch.setattr(graph_head, "_one_row", wrong)
    with pytest.raises(ParityError, match=r"a score differs by .* from transformers .* \(allowed: 0.0001\)") as caught:
        export_model(options_for(source, tmp_path / "repository"))
    assert isinstance(caught.value.report, ScoreParityReport)
    assert list((tmp_path / "repository").iterdir()) == []
