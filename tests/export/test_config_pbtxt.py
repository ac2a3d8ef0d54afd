"""`config.pbtxt`, parsed with Triton's protobuf message."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from qwen3_triton.client import (
    EmbeddingManifest,
    Manifest,
    Precision,
    Prompts,
    TokenizerIdentity,
)
from qwen3_triton.export import ExportError, ExportOptions, ServingOptions, SourceReference
from qwen3_triton.export.artifacts.config_pbtxt import render_config
from qwen3_triton.export.batching.limits import BatchLimits
from qwen3_triton.export.option_checks import check_options

MANIFEST = EmbeddingManifest(
    dimension=40,
    min_dimension=32,
    max_tokens=128,
    vocabulary_size=300,
    end_token_id=278,
    prompts=Prompts(
        query="Instruct: {instruction}\nQuery:{text} \"quoted\" \\n 'single' 東京 🦊",
        document="{text}",
        default_instruction=None,
    ),
    tokenizer=TokenizerIdentity(sha256="ab" * 32, origin="/models/tiny"),
    precision=Precision.FP16,
)
LIMITS = BatchLimits(rows=64, tokens=4096)


def render(serving: ServingOptions, version: int, manifest: Manifest, limits: BatchLimits) -> str:
    options = ExportOptions(model=SourceReference("models/tiny"), serving=serving)
    return render_config("tiny", manifest, "dG9rZW5pemVy", options, limits, version)


def parse(
    serving: ServingOptions, version: int = 1, manifest: Manifest = MANIFEST, limits: BatchLimits = LIMITS
) -> Any:
    return text_format.Parse(render(serving, version, manifest, limits), triton.ModelConfig())


def test_default_config() -> None:
    config = parse(ServingOptions())
    assert config.name == "tiny"
    assert config.backend == "onnxruntime"
    assert config.default_model_filename == "model.onnx"
    assert config.max_batch_size == 64
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    # a queue policy or priorities stall models with one instance
    assert not config.dynamic_batching.HasField("default_queue_policy")
    assert config.dynamic_batching.priority_levels == 0
    [group] = config.instance_group
    assert (group.kind, group.count) == (triton.ModelInstanceGroup.KIND_CPU, 1)
    assert list(config.version_policy.specific.versions) == [1]
    assert not config.response_cache.enable
    assert {key: value.string_value for key, value in config.parameters.items() if key != "manifest"} == {
        "intra_op_thread_count": "0",
        "inter_op_thread_count": "1",
        "enable_mem_pattern": "0",
        "max_batch_tokens": "4096",
        "tokenizer.json.xz": "dG9rZW5pemVy",
    }


def test_rows_of_any_width_share_a_batch() -> None:
    config = parse(ServingOptions())
    [ids] = config.input
    assert (ids.name, ids.data_type, list(ids.dims), ids.allow_ragged_batch) == (
        "input_ids",
        triton.TYPE_INT64,
        [-1],
        True,
    )
    # kinds that count elements have one entry per request, not per row
    assert [(entry.kind, list(entry.target_name)) for entry in config.batch_input] == [
        (triton.BatchInput.BATCH_ITEM_SHAPE_FLATTEN, ["row_lengths"]),
        (triton.BatchInput.BATCH_ELEMENT_COUNT, ["request_lengths"]),
    ]
    assert all(entry.data_type == triton.TYPE_INT32 for entry in config.batch_input)
    assert all(list(entry.source_input) == ["input_ids"] for entry in config.batch_input)
    assert [(output.name, output.data_type, list(output.dims)) for output in config.output] == [
        ("embedding", triton.TYPE_FP32, [40]),
        ("row_status", triton.TYPE_INT32, [1]),
    ]


def test_warm_up_sends_valid_ids() -> None:
    [warmup] = parse(ServingOptions()).model_warmup
    assert warmup.batch_size == 1
    assert list(warmup.inputs) == ["input_ids"]
    sent = warmup.inputs["input_ids"]
    assert sent.WhichOneof("input_data_type") == "zero_data"
    assert sent.data_type == triton.TYPE_INT64
    [width] = sent.dims
    assert 0 < width <= MANIFEST.max_tokens


@pytest.mark.parametrize(
    "manifest", [MANIFEST, dataclasses.replace(MANIFEST, end_token_id=None)], ids=["full", "no end token"]
)
def test_manifest_parameter_round_trips_and_has_only_client_fields(manifest: EmbeddingManifest) -> None:
    parameter = parse(ServingOptions(), manifest=manifest).parameters["manifest"].string_value
    assert Manifest.from_json(parameter) == manifest
    assert not json.loads(parameter).keys() & {
        "checkpoint",
        "adapters",
        "parity",
        "quantization",
        "retrieval",
        "device",
    }


def test_serving_options_are_applied() -> None:
    options = ServingOptions(queue_delay_us=123, instances=3, threads=2)
    config = parse(options, version=4, limits=BatchLimits(rows=7, tokens=None))
    assert config.max_batch_size == 7
    assert "max_batch_tokens" not in config.parameters
    assert config.dynamic_batching.max_queue_delay_microseconds == 123
    assert config.instance_group[0].count == 3
    assert config.parameters["intra_op_thread_count"].string_value == "2"
    assert list(config.version_policy.specific.versions) == [4]


@pytest.mark.parametrize(
    ("serving", "policy"),
    [
        (ServingOptions(max_queue_size=7), "max_queue_size: 7"),
        (ServingOptions(queue_timeout_ms=50), "timeout_action: REJECT default_timeout_microseconds: 50000"),
        (
            ServingOptions(max_queue_size=7, queue_timeout_ms=50),
            "max_queue_size: 7 timeout_action: REJECT default_timeout_microseconds: 50000",
        ),
    ],
    ids=["size", "timeout", "both"],
)
def test_limits_of_the_queue(serving: ServingOptions, policy: str) -> None:
    batching = parse(serving).dynamic_batching
    assert batching.default_queue_policy == text_format.Parse(policy, triton.ModelQueuePolicy())


@pytest.mark.parametrize(
    ("serving", "message"),
    [
        (ServingOptions(max_queue_size=0), "max_queue_size 0: must be from 1 to 4294967295, or None for no limit"),
        (ServingOptions(max_queue_size=2**32), "max_queue_size 4294967296: must be from 1"),
        (ServingOptions(queue_timeout_ms=0), "queue_timeout_ms 0: must be from 1 to 86400000"),
        (ServingOptions(queue_timeout_ms=-5), "queue_timeout_ms -5: must be from 1"),
        (ServingOptions(queue_timeout_ms=10**9), "queue_timeout_ms 1000000000: must be from 1"),
        (
            ServingOptions(queue_timeout_ms=5, queue_delay_us=5000),
            "queue_timeout_ms 5: requests would be rejected before they have waited queue_delay_us 5000 for others",
        ),
    ],
)
def test_impossible_limits_of_the_queue(serving: ServingOptions, message: str) -> None:
    with pytest.raises(ExportError, match=re.escape(message)):
        check_options(ExportOptions(model=SourceReference("models/tiny"), serving=serving))


def test_text_is_readable_utf8() -> None:
    assert "東京 🦊" in render(ServingOptions(), 1, MANIFEST, LIMITS)
