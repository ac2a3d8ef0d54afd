from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from sample_manifest import make_quantization, make_record, make_retrieval

from qwen3_triton.client import (
    EmbeddingManifest,
    ExportRecord,
    Manifest,
    ManifestError,
    RangeReport,
    RecommendedLoad,
    RerankManifest,
    Verification,
    WitnessReport,
)


def test_round_trip(manifest: EmbeddingManifest, rerank_manifest: RerankManifest) -> None:
    for whole in (manifest, rerank_manifest):
        assert Manifest.from_json(whole.to_json()) == whole
        record = make_record(whole)
        assert ExportRecord.from_json(record.to_json()) == record


def test_a_record_contains_the_fields_of_its_manifest(manifest: EmbeddingManifest) -> None:
    fields = json.loads(make_record(manifest).to_json())
    assert fields.items() >= json.loads(manifest.to_json()).items()
    assert Manifest.from_json(json.dumps(fields)) == manifest


def test_quantization_report_round_trip(manifest: EmbeddingManifest, rerank_manifest: RerankManifest) -> None:
    for whole in (manifest, rerank_manifest):
        record = make_record(whole)
        quantized = dataclasses.replace(record, quantization=make_quantization(record.parity))
        assert ExportRecord.from_json(quantized.to_json()) == quantized


@pytest.mark.parametrize(
    "changes",
    [
        {"fp32_layers": "a"},
        {"layer_errors": {}},
        {"layer_errors": [{"qkv": 0.1}]},
        {"held_out": 1},
        {"calibration": []},
    ],
    ids=str,
)
def test_rejects_a_malformed_quantization_report(manifest: EmbeddingManifest, changes: dict[str, Any]) -> None:
    record = make_record(manifest)
    fields = json.loads(dataclasses.replace(record, quantization=make_quantization(record.parity)).to_json())
    fields["quantization"] |= changes
    with pytest.raises(ManifestError, match="malformed manifest of schema 1"):
        ExportRecord.from_json(json.dumps(fields))
    # a client does not read reports
    assert Manifest.from_json(json.dumps(fields)) == manifest


def test_retrieval_report_round_trip(manifest: EmbeddingManifest) -> None:
    for report in (make_retrieval(), dataclasses.replace(make_retrieval(), ndcg_loss_tolerance=None)):
        evaluated = make_record(manifest, retrieval=report)
        assert ExportRecord.from_json(evaluated.to_json()) == evaluated


def test_verification_round_trip(manifest: EmbeddingManifest) -> None:
    for verification, parity in ((Verification.FULL, make_record(manifest).parity), (Verification.NONE, None)):
        record = make_record(manifest, verification=verification, parity=parity, quantization=make_quantization(parity))
        assert ExportRecord.from_json(record.to_json()) == record
        assert record.verified_tokens == (9 if parity else 0)


def test_reads_a_record_without_optional_reports(manifest: EmbeddingManifest) -> None:
    record = make_record(manifest)
    fields = json.loads(record.to_json())
    del fields["retrieval"], fields["quantization"], fields["verification"]
    assert ExportRecord.from_json(json.dumps(fields)) == record


@pytest.mark.parametrize("changes", [{"evaluation": "sets/mine"}, {"evaluation": {}}], ids=str)
def test_rejects_a_malformed_retrieval_report(manifest: EmbeddingManifest, changes: dict[str, Any]) -> None:
    fields = json.loads(make_record(manifest, retrieval=make_retrieval()).to_json())
    fields["retrieval"] |= changes
    with pytest.raises(ManifestError, match="malformed manifest of schema 1"):
        ExportRecord.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    "changes",
    [
        {"adapters": {}},
        {"adapters": ["a"]},
        {"parity": []},
        {"verification": "some"},
        {"checkpoint": 3},
        {"witness": {}},
        {"fp16_range": 3},
        {"origins": ["a"]},
    ],
    ids=str,
)
def test_rejects_a_malformed_record(manifest: EmbeddingManifest, changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="malformed manifest of schema 1"):
        ExportRecord.from_json(json.dumps(json.loads(make_record(manifest).to_json()) | changes))


def add_fields(value: Any) -> Any:
    """Return `value` with an unknown field added to every object."""
    if isinstance(value, dict):
        return {name: add_fields(entry) for name, entry in value.items()} | {"of_a_later_version": [1]}
    return [add_fields(entry) for entry in value] if isinstance(value, list) else value


def test_unknown_fields_are_ignored_everywhere(manifest: EmbeddingManifest, rerank_manifest: RerankManifest) -> None:
    for whole in (manifest, rerank_manifest):
        record = make_record(whole)
        record = dataclasses.replace(
            record,
            quantization=make_quantization(record.parity),
            retrieval=make_retrieval(),
            witness=WitnessReport(library="sentence-transformers 6.2.0", texts=28, error=1e-12, tolerance=1e-5),
            fp16_range=RangeReport(residual_exponent=2, mlp_exponent=0, headroom=8.5, texts=33, tokens=251),
            origins={"prompts": "config_sentence_transformers.json of adapter a"},
        )
        later = json.dumps(add_fields(json.loads(record.to_json())))
        assert ExportRecord.from_json(later) == record
        assert Manifest.from_json(later) == whole


def test_tolerance_of_a_retrieval_report() -> None:
    report = make_retrieval()
    assert report.ndcg_loss == pytest.approx(0.0025)
    assert report.passed
    assert dataclasses.replace(report, ndcg_at_10=0.5, ndcg_loss_tolerance=0.0).passed
    assert dataclasses.replace(report, ndcg_at_10=0.0, ndcg_loss_tolerance=None).passed
    for found in (0.42, math.nan):
        assert not dataclasses.replace(report, ndcg_at_10=found).passed


def test_manifest_is_one_json_object(manifest: EmbeddingManifest) -> None:
    fields = json.loads(manifest.to_json())
    assert fields["schema_version"] == 1
    assert fields["task"] == "embed"
    assert fields["prompts"]["query"] == "Instruct: {instruction}\nQuery:{text}"


def test_required_fields_depend_on_the_task(manifest: EmbeddingManifest, rerank_manifest: RerankManifest) -> None:
    fields = json.loads(rerank_manifest.to_json())
    assert fields["task"] == "rerank"
    assert fields["prompts"].keys() == {"prefix", "body", "suffix", "default_instruction"}
    for wrong in (json.loads(manifest.to_json()) | {"task": "rerank"}, fields | {"task": "embed"}):
        with pytest.raises(ManifestError, match="malformed manifest"):
            Manifest.from_json(json.dumps(wrong))


@pytest.mark.parametrize("text", ["", "not JSON", "[]", "3", "null", "{}"])
def test_rejects_text_that_is_not_a_manifest(text: str) -> None:
    with pytest.raises(ManifestError, match="not a qwen3-triton manifest"):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "translate"},
        {"precision": "fp64"},
        {"load": 5},
        {"load": {"request_tokens": 5}},
        {"load": {"request_tokens": 0, "tokens_in_flight": 5}},
        {"load": {"request_tokens": 5, "tokens_in_flight": "6"}},
        {"dimension": "256"},
        {"max_tokens": None},
        {"prompts": None},
        {"prompts": {"query": "{text}"}},
        {"tokenizer": {"sha256": "0"}},
        {"tokenizer": "0"},
    ],
    ids=str,
)
def test_rejects_malformed_fields(manifest: EmbeddingManifest, changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="malformed manifest of schema 1"):
        Manifest.from_json(json.dumps(json.loads(manifest.to_json()) | changes))


@pytest.mark.parametrize("missing", ["task", "dimension", "prompts", "tokenizer", "end_token_id"])
def test_rejects_missing_fields(manifest: EmbeddingManifest, missing: str) -> None:
    fields = json.loads(manifest.to_json())
    del fields[missing]
    with pytest.raises(ManifestError, match=missing):
        Manifest.from_json(json.dumps(fields))


@pytest.mark.parametrize("version", [2, 99, "1", None])
def test_rejects_a_newer_schema_before_reading_other_fields(version: object) -> None:
    with pytest.raises(ManifestError, match="upgrade qwen3-triton"):
        Manifest.from_json(json.dumps({"schema_version": version}))


def test_recommended_load_survives_json(manifest: EmbeddingManifest, rerank_manifest: RerankManifest) -> None:
    load = RecommendedLoad(request_tokens=512, tokens_in_flight=1024)
    for whole in (manifest, rerank_manifest):
        assert Manifest.from_json(dataclasses.replace(whole, load=load).to_json()).load == load


def test_manifests_of_earlier_exports_recommend_no_load(manifest: EmbeddingManifest) -> None:
    fields = manifest.to_fields()
    del fields["load"]
    assert Manifest.from_json(json.dumps(fields)).load is None
