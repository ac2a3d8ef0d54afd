from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from sample_contract import make_manifest, make_quantization, make_retrieval

from qwen3_triton.client import Contract, ContractMismatch, EmbeddingContract, Manifest, RerankContract


def test_reads_back_equal(contract: EmbeddingContract, rerank_contract: RerankContract) -> None:
    for whole in (contract, rerank_contract):
        assert Contract.from_json(whole.to_json()) == whole
        manifest = make_manifest(whole)
        assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_manifest_has_the_fields_of_its_contract(contract: EmbeddingContract) -> None:
    fields = json.loads(make_manifest(contract).to_json())
    assert fields.items() >= json.loads(contract.to_json()).items()
    assert Contract.from_json(json.dumps(fields)) == contract


def test_a_quantisation_report_reads_back_equal(contract: EmbeddingContract, rerank_contract: RerankContract) -> None:
    for whole in (contract, rerank_contract):
        manifest = make_manifest(whole)
        quantized = dataclasses.replace(manifest, quantization=make_quantization(manifest.parity))
        assert Manifest.from_json(quantized.to_json()) == quantized


@pytest.mark.parametrize(
    "changes",
    [{"kept": "a"}, {"layer_errors": {}}, {"layer_errors": [{"qkv": 0.1}]}, {"held_out": 1}, {"calibration": []}],
    ids=str,
)
def test_refuses_a_malformed_quantisation_report(contract: EmbeddingContract, changes: dict[str, Any]) -> None:
    manifest = make_manifest(contract)
    fields = json.loads(dataclasses.replace(manifest, quantization=make_quantization(manifest.parity)).to_json())
    fields["quantization"] |= changes
    with pytest.raises(ContractMismatch, match="malformed manifest of schema 1"):
        Manifest.from_json(json.dumps(fields))
    # a client does not read reports
    assert Contract.from_json(json.dumps(fields)) == contract


def test_a_retrieval_report_reads_back_equal(contract: EmbeddingContract) -> None:
    for report in (make_retrieval(), dataclasses.replace(make_retrieval(), gate_max_ndcg_loss=None)):
        evaluated = make_manifest(contract, retrieval=report)
        assert Manifest.from_json(evaluated.to_json()) == evaluated


def test_a_manifest_from_before_there_were_reports_is_read(contract: EmbeddingContract) -> None:
    manifest = make_manifest(contract)
    fields = json.loads(manifest.to_json())
    del fields["retrieval"], fields["quantization"]
    assert Manifest.from_json(json.dumps(fields)) == manifest


@pytest.mark.parametrize("changes", [{"evaluation": "sets/mine"}, {"evaluation": {}}], ids=str)
def test_refuses_a_malformed_retrieval_report(contract: EmbeddingContract, changes: dict[str, Any]) -> None:
    fields = json.loads(make_manifest(contract, retrieval=make_retrieval()).to_json())
    fields["retrieval"] |= changes
    with pytest.raises(ContractMismatch, match="malformed manifest of schema 1"):
        Manifest.from_json(json.dumps(fields))


@pytest.mark.parametrize("changes", [{"adapters": {}}, {"adapters": ["a"]}, {"parity": []}, {"checkpoint": 3}], ids=str)
def test_refuses_a_malformed_manifest(contract: EmbeddingContract, changes: dict[str, Any]) -> None:
    with pytest.raises(ContractMismatch, match="malformed manifest of schema 1"):
        Manifest.from_json(json.dumps(json.loads(make_manifest(contract).to_json()) | changes))


def add_fields(value: Any) -> Any:
    """`value` with a field of a later version in every object."""
    if isinstance(value, dict):
        return {name: add_fields(entry) for name, entry in value.items()} | {"of_a_later_version": [1]}
    return [add_fields(entry) for entry in value] if isinstance(value, list) else value


def test_unknown_fields_are_ignored_everywhere(contract: EmbeddingContract, rerank_contract: RerankContract) -> None:
    for whole in (contract, rerank_contract):
        manifest = make_manifest(whole)
        manifest = dataclasses.replace(
            manifest, quantization=make_quantization(manifest.parity), retrieval=make_retrieval()
        )
        later = json.dumps(add_fields(json.loads(manifest.to_json())))
        assert Manifest.from_json(later) == manifest
        assert Contract.from_json(later) == whole


def test_the_gate_of_a_retrieval_report() -> None:
    report = make_retrieval()
    assert report.ndcg_loss == pytest.approx(0.0025)
    assert report.passed
    assert dataclasses.replace(report, ndcg_at_10=0.5, gate_max_ndcg_loss=0.0).passed
    assert dataclasses.replace(report, ndcg_at_10=0.0, gate_max_ndcg_loss=None).passed
    for found in (0.42, math.nan):
        assert not dataclasses.replace(report, ndcg_at_10=found).passed


def test_stands_in_one_json_object(contract: EmbeddingContract) -> None:
    fields = json.loads(contract.to_json())
    assert fields["schema_version"] == 1
    assert fields["task"] == "embed"
    assert fields["prompts"]["query"] == "Instruct: {instruction}\nQuery:{text}"


def test_task_decides_what_else_must_stand_there(contract: EmbeddingContract, rerank_contract: RerankContract) -> None:
    fields = json.loads(rerank_contract.to_json())
    assert fields["task"] == "rerank"
    assert fields["prompts"].keys() == {"prefix", "body", "suffix", "default_instruction"}
    for wrong in (json.loads(contract.to_json()) | {"task": "rerank"}, fields | {"task": "embed"}):
        with pytest.raises(ContractMismatch, match="malformed contract"):
            Contract.from_json(json.dumps(wrong))


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "3", "null", "{}"])
def test_refuses_what_is_no_contract(text: str) -> None:
    with pytest.raises(ContractMismatch, match="not a qwen3-triton contract"):
        Contract.from_json(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "translate"},
        {"precision": "fp64"},
        {"dimension": "256"},
        {"max_tokens": None},
        {"prompts": None},
        {"prompts": {"query": "{text}"}},
        {"tokenizer": {"sha256": "0"}},
        {"tokenizer": "0"},
    ],
    ids=str,
)
def test_refuses_malformed_fields(contract: EmbeddingContract, changes: dict[str, Any]) -> None:
    with pytest.raises(ContractMismatch, match="malformed contract of schema 1"):
        Contract.from_json(json.dumps(json.loads(contract.to_json()) | changes))


@pytest.mark.parametrize("missing", ["task", "dimension", "prompts", "tokenizer", "end_token_id"])
def test_refuses_missing_fields(contract: EmbeddingContract, missing: str) -> None:
    fields = json.loads(contract.to_json())
    del fields[missing]
    with pytest.raises(ContractMismatch, match=missing):
        Contract.from_json(json.dumps(fields))


@pytest.mark.parametrize("version", [2, 99, "1", None])
def test_refuses_a_newer_schema_before_anything_else(version: object) -> None:
    with pytest.raises(ContractMismatch, match="upgrade qwen3-triton"):
        Contract.from_json(json.dumps({"schema_version": version}))
