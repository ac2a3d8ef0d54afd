"""A witness for the graph: optimum exports the merged decoder by tracing, and its ONNX graph gets the same token ids.

It knows nothing of this project's graph builder, but gets the weights that this exporter merged. Its graph has no
pooling, norm or score, which are applied to its final hidden states here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from ..sources.checkpoint import Checkpoint
from .witness import WitnessUnavailableError, hide_messages

PACKAGE = "optimum-onnx"
LONGEST_ROW = 2048
"""Tokens. The traced graph stores attention weights of every token to every token."""
_STATES = "last_hidden_state"
_INPUTS = ("input_ids", "attention_mask", "position_ids")


def pooled_states(
    checkpoint: Checkpoint, rows: Sequence[Sequence[int]], scratch: Path
) -> tuple[str, NDArray[np.float32]]:
    """Return the library's name and version, and its final hidden states, pooled like the checkpoint's: [n, hidden].

    Args:
        checkpoint: The merged checkpoint.
        rows: Rows of token ids, each computed alone.
        scratch: Folder for the checkpoint and the graph in fp32.

    Raises:
        WitnessUnavailableError: optimum is not installed or cannot export the checkpoint.
    """
    if importlib.util.find_spec("optimum") is None:
        raise WitnessUnavailableError(f"{PACKAGE} is not installed (pip install 'qwen3-triton[optimum]')")
    folder, graph = scratch / "decoder", scratch / "optimum"
    _write_decoder(checkpoint, folder)
    try:
        with hide_messages(), warnings.catch_warnings(action="ignore"):
            from optimum.exporters.onnx import main_export

            main_export(str(folder), output=graph, task="feature-extraction", library_name="transformers")
    except Exception as exc:
        reason = str(exc).strip().splitlines()
        raise WitnessUnavailableError(
            f"{PACKAGE} cannot export the checkpoint: {reason[0] if reason else type(exc).__name__}"
        ) from exc
    session = onnxruntime.InferenceSession(graph / "model.onnx", providers=["CPUExecutionProvider"])
    wanted = {each.name for each in session.get_inputs()}
    states = []
    for row in rows:
        ids = np.asarray([row], np.int64)
        values = (ids, np.ones_like(ids), np.arange(len(row), dtype=np.int64)[None])
        feed = {name: value for name, value in zip(_INPUTS, values, strict=True) if name in wanted}
        found = torch.from_numpy(session.run([_STATES], feed)[0].astype(np.float32))
        states.append(checkpoint.head.pooling.pool(found, torch.ones(found.shape[:2], dtype=torch.bool)))
    return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}", torch.cat(states).numpy()


def _write_decoder(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the decoder in fp32 as a checkpoint of its own, without heads."""
    folder.mkdir(parents=True)
    tensors = {name: checkpoint.weights[name].fp32().contiguous() for name in checkpoint.config.tensor_shapes()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model = checkpoint.config.architecture.load_classes().model.__name__
    config = dict(checkpoint.raw_config) | {"architectures": [model], "torch_dtype": "float32", "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
