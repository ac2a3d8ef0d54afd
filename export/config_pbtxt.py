"""Writes Triton's `config.pbtxt` through Triton's own message type."""

from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from ..client.contract import CONTRACT_PARAMETER, INPUT_IDS, ROW_LENGTHS, Contract
from .options import ServingOptions

_WARMUP_TOKENS = 16


def render_config(name: str, contract: Contract, serving: ServingOptions, version: int) -> str:
    """The text of `config.pbtxt` for model `name`, whose only version is `version`."""
    config = triton.ModelConfig(
        name=name,
        backend="onnxruntime",
        max_batch_size=serving.max_batch_rows,
        default_model_filename="model.onnx",
    )
    config.input.add(name=INPUT_IDS, data_type=triton.TYPE_INT64, dims=[-1], allow_ragged_batch=True)
    config.batch_input.add(
        kind=triton.BatchInput.BATCH_ITEM_SHAPE_FLATTEN,
        target_name=[ROW_LENGTHS],
        data_type=triton.TYPE_INT32,
        source_input=[INPUT_IDS],
    )
    config.output.add(name=contract.task.output, data_type=triton.TYPE_FP32, dims=[contract.dimension])
    config.dynamic_batching.max_queue_delay_microseconds = serving.queue_delay_us
    config.instance_group.add(kind=triton.ModelInstanceGroup.KIND_CPU, count=serving.instances)
    config.version_policy.specific.versions.append(version)
    config.response_cache.enable = serving.response_cache
    _add_warmup(config)
    for key, value in _parameters(contract, serving).items():
        config.parameters[key].string_value = value
    text: str = text_format.MessageToString(config, as_utf8=True)
    return text


def _parameters(contract: Contract, serving: ServingOptions) -> dict[str, str]:
    return {
        CONTRACT_PARAMETER: contract.to_json(),
        "intra_op_thread_count": str(serving.threads),
        "inter_op_thread_count": "1",
    }


def _add_warmup(config: triton.ModelConfig) -> None:
    """One row of id 0, which every vocabulary has; a failing warm-up would stop the server."""
    warmup = config.model_warmup.add(name="zeros", batch_size=1)
    warmup.inputs[INPUT_IDS].data_type = triton.TYPE_INT64
    warmup.inputs[INPUT_IDS].dims.append(_WARMUP_TOKENS)
    warmup.inputs[INPUT_IDS].zero_data = True
