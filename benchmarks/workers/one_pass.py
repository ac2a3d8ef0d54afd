"""One pass of a packed graph on a GPU, for tools such as compute-sanitizer.

Arguments: file, provider options (JSON).
"""

from __future__ import annotations

import json
import sys

import numpy as np


def main(file: str, provider: str) -> None:
    """Run a batch of rows of different lengths."""
    # torch loads the CUDA libraries that ONNX Runtime needs, so it is imported first
    import torch  # noqa: F401, I001
    import onnxruntime

    providers = [("CUDAExecutionProvider", json.loads(provider)), "CPUExecutionProvider"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=providers)
    lengths = [1, 300, 17, 256, 64]
    ids = np.arange(sum(lengths), dtype=np.int64) % 500
    feed = {"input_ids": ids, "row_lengths": np.asarray(lengths, np.int32)}
    (vectors,) = session.run(["embedding"], {**feed, "request_lengths": np.asarray([len(ids)], np.int32)})
    norms = np.linalg.norm(vectors, axis=1)
    sys.stdout.write(f"norms {norms.min():.6f} to {norms.max():.6f}\n")
    if not np.allclose(norms, 1.0, atol=1e-5):
        raise SystemExit("the embeddings are not of norm 1")


if __name__ == "__main__":
    main(*sys.argv[1:])
