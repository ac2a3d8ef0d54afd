"""Render Triton's `config.pbtxt` from Triton's own protobuf message."""

from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as triton

from ...client.manifest import (
    INPUT_IDS,
    MANIFEST_PARAMETER,
    REQUEST_LENGTHS,
    ROW_LENGTHS,
    ROW_STATUS,
    TOKEN_BUDGET_PARAMETER,
    Device,
    EmbeddingManifest,
    Manifest,
    OutputType,
    Precision,
)
from ...client.manifest.packed_tokenizer import TOKENIZER_PARAMETER
from ..batching.limits import BatchLimits
from ..options import ExportOptions, ServingOptions
from ..release import TritonRelease
from .cuda_options import cuda_provider_options

_TYPES = {
    OutputType.FLOAT32: triton.TYPE_FP32,
    OutputType.FLOAT16: triton.TYPE_FP16,
    OutputType.UBINARY: triton.TYPE_UINT8,
}
_WARMUP_TOKENS = 16
_GPU_WARMUP_TOKENS = (512, 128, 16)
_SAME_AS_REQUESTED = "1"


def render_config(
    name: str,
    manifest: Manifest,
    packed_tokenizer: str | None,
    options: ExportOptions,
    limits: BatchLimits,
    version: int,
) -> str:
    """Return the text of `config.pbtxt` for model `name`, of which `version` is in use."""
    serving = options.serving
    config = triton.ModelConfig(
        name=name,
        backend="onnxruntime",
        max_batch_size=limits.rows,
        default_model_filename="model.onnx",
    )
    config.input.add(name=INPUT_IDS, data_type=triton.TYPE_INT64, dims=[-1], allow_ragged_batch=True)
    # BATCH_ELEMENT_COUNT has one entry per request, so the graph can detect requests without ids
    for kind, target in (
        (triton.BatchInput.BATCH_ITEM_SHAPE_FLATTEN, ROW_LENGTHS),
        (triton.BatchInput.BATCH_ELEMENT_COUNT, REQUEST_LENGTHS),
    ):
        config.batch_input.add(kind=kind, target_name=[target], data_type=triton.TYPE_INT32, source_input=[INPUT_IDS])
    config.output.add(name=manifest.task.output, data_type=triton.TYPE_FP32, dims=[manifest.dimension])
    config.output.add(name=ROW_STATUS, data_type=triton.TYPE_INT32, dims=[1])
    if isinstance(manifest, EmbeddingManifest):
        for output in manifest.compact_outputs:
            config.output.add(name=output.name, data_type=_TYPES[output.dtype], dims=[output.width])
    _add_batching(config, serving)
    on_gpu = options.device is Device.CUDA
    kind = triton.ModelInstanceGroup.KIND_GPU if on_gpu else triton.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(kind=kind, count=serving.instances)
    config.version_policy.specific.versions.append(version)
    # its key ignores shapes: [2, 5] and [1, 10] of equal bytes would return each other's answers
    config.response_cache.enable = False
    if on_gpu:
        _add_cuda(config, manifest.precision, options.triton_release)
    _add_warmup(config, manifest, options.device, limits)
    for key, value in _parameters(manifest, options, limits).items():
        config.parameters[key].string_value = value
    if packed_tokenizer is not None:
        config.parameters[TOKENIZER_PARAMETER].string_value = packed_tokenizer
    text: str = text_format.MessageToString(config, as_utf8=True)
    return text


def _add_batching(config: triton.ModelConfig, serving: ServingOptions) -> None:
    batching = config.dynamic_batching
    batching.max_queue_delay_microseconds = serving.queue_delay_us
    if serving.max_queue_size is not None:
        batching.default_queue_policy.max_queue_size = serving.max_queue_size
    if serving.queue_timeout_ms is not None:
        batching.default_queue_policy.timeout_action = triton.ModelQueuePolicy.REJECT
        batching.default_queue_policy.default_timeout_microseconds = 1000 * serving.queue_timeout_ms


def _parameters(manifest: Manifest, options: ExportOptions, limits: BatchLimits) -> dict[str, str]:
    parameters = {
        MANIFEST_PARAMETER: manifest.to_json(),
        "intra_op_thread_count": str(options.serving.threads),
        "inter_op_thread_count": "1",
    }
    for key, limit in ((TOKEN_BUDGET_PARAMETER, limits.tokens), ("max_batch_cells", limits.cells)):
        if limit is not None:
            parameters[key] = str(limit)
    if options.device is Device.CPU:
        # ONNX Runtime would keep a plan of the allocations for every combination of shapes, so that memory grows
        # with each new batch; ragged batches hardly ever repeat one
        parameters["enable_mem_pattern"] = "0"
    if options.device is Device.CUDA:
        # the backend overwrites these two in the accelerator's parameters, and reads only the model's
        parameters["arena_extend_strategy"] = _SAME_AS_REQUESTED
        if options.serving.gpu_memory_bytes is not None:
            parameters["gpu_mem_limit"] = str(options.serving.gpu_memory_bytes)
    return parameters


def _add_cuda(config: triton.ModelConfig, precision: Precision, release: TritonRelease) -> None:
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
    for key, value in cuda_provider_options(precision, release.runtime).items():
        accelerator.parameters[key] = value


def _add_warmup(config: triton.ModelConfig, manifest: Manifest, device: Device, limits: BatchLimits) -> None:
    """Add warm-up requests of id 0, which is valid in every vocabulary: a failed warm-up would stop the server.

    On a GPU with several shapes, the largest batch first: memory is allocated and kernels are loaded on first use,
    which takes longer than the batch itself.
    """
    if device is Device.CPU:
        _add_zeros(config, 1, _WARMUP_TOKENS)
        return
    budget = limits.tokens or limits.rows * manifest.max_tokens
    largest = max(1, min(manifest.max_tokens, budget // limits.rows))
    shapes = [(limits.rows, largest)]
    for tokens in _GPU_WARMUP_TOKENS:
        width = min(tokens, manifest.max_tokens)
        shapes += [(limits.rows, min(width, largest)), (1, width)]
    for rows, width in dict.fromkeys(shapes):
        _add_zeros(config, rows, width)


def _add_zeros(config: triton.ModelConfig, rows: int, width: int) -> None:
    warmup = config.model_warmup.add(name=f"zeros {rows} x {width}", batch_size=rows)
    warmup.inputs[INPUT_IDS].data_type = triton.TYPE_INT64
    warmup.inputs[INPUT_IDS].dims.append(width)
    warmup.inputs[INPUT_IDS].zero_data = True
