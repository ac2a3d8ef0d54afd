"""optimum-intel's OpenVINO export in padded batches.

Options: model (openvino_model.xml, with hidden states or a single logit as output), copies (streams), threads (of each
stream), pinned (yes or no), precision (bf16, f16 or f32), group (group size of dynamic quantization, 0 to disable it),
hint (THROUGHPUT lets OpenVINO choose the streams; empty).
"""

from __future__ import annotations

import numpy as np
import openvino as ov

from ..batches import PaddedBatch, sorted_batches, store_last_tokens
from ..rows import Rows, Vectors
from .serve import Embed, Options, serve


def _properties(options: Options) -> dict[str, str]:
    copies, threads = int(options["copies"]), int(options["threads"])
    properties = {
        "INFERENCE_PRECISION_HINT": options["precision"],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": options["group"],
        "INFERENCE_NUM_THREADS": str(copies * threads),
    }
    if options["hint"]:
        return {**properties, "PERFORMANCE_HINT": options["hint"]}
    # with several streams, OpenVINO decides
    pinning = {"ENABLE_CPU_PINNING": options["pinned"].upper()} if copies == 1 else {}
    return {**properties, "NUM_STREAMS": str(copies), **pinning}


def _load(options: Options) -> Embed:
    core = ov.Core()
    compiled = core.compile_model(options["model"], "CPU", _properties(options))
    computed = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if computed != options["precision"]:
        raise ValueError(f"OpenVINO computes in {computed} instead of {options['precision']} on this processor")
    names = {name for port in compiled.inputs for name in port.names}
    # runs one request per stream at once
    queue = ov.AsyncInferQueue(compiled)

    def feed(batch: PaddedBatch) -> dict[str, np.ndarray]:
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "position_ids": batch.positions}
        return {name: array for name, array in inputs.items() if name in names}

    def embed(rows: Rows, batch_rows: int) -> Vectors:
        outputs: list[Vectors] = [np.empty(0, np.float32)] * len(rows)

        def finish(request: ov.InferRequest, batch: PaddedBatch) -> None:
            found = request.get_output_tensor(0).data
            if found.ndim == 3:
                store_last_tokens(outputs, batch, found)
                return
            for index, logit in zip(batch.indices, found, strict=True):
                outputs[index] = np.asarray(1 / (1 + np.exp(-logit)), np.float32)

        queue.set_callback(finish)
        # longest first, so that all streams finish at about the same time
        for batch in reversed(list(sorted_batches(rows, batch_rows))):
            queue.start_async(feed(batch), batch)
        queue.wait_all()
        return np.stack(outputs)

    return embed


if __name__ == "__main__":
    serve(_load, ("openvino", "nncf", "optimum-intel", "transformers"))
