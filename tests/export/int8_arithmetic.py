"""A decoder in numpy with the 8-bit arithmetic of the int8 graph; other sums are in float64."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

Array = NDArray[np.float64]
Vectors = NDArray[np.float32]


def to_codes(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return codes int8 of the same shape and scales [rows, 1]; the largest absolute value of a row becomes 127."""
    scales = np.abs(matrix).max(axis=1, keepdims=True) / np.float32(127)
    scales[scales == 0] = 1
    return np.rint(matrix / scales).astype(np.int8), scales


def simulated_vectors(folder: Path, rows: Sequence[Sequence[int]]) -> Vectors:
    """Return embeddings float32 [n, hidden], computed row by row."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = {name: tensor.numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    return np.stack([_Decoder(config, weights).vector(row) for row in rows]).astype(np.float32)


class _Decoder:
    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]]) -> None:
        self._config = config
        self._weights = weights

    def vector(self, row: Sequence[int]) -> Array:
        codes, scales = to_codes(self._weights["embed_tokens.weight"])
        stream = (codes[list(row)] * scales[list(row)]).astype(np.float64)
        for index in range(self._config["num_hidden_layers"]):
            layer = f"layers.{index}"
            stream = stream + self._attention(self._norm(stream, f"{layer}.input_layernorm"), f"{layer}.self_attn")
            stream = stream + self._mlp(self._norm(stream, f"{layer}.post_attention_layernorm"), f"{layer}.mlp")
        last = self._norm(stream, "norm")[-1]
        return np.asarray(last / np.linalg.norm(last))

    def _norm(self, values: Array, name: str) -> Array:
        eps = self._config["rms_norm_eps"]
        return np.asarray(
            values / np.sqrt((values**2).mean(axis=-1, keepdims=True) + eps) * self._weights[f"{name}.weight"]
        )

    def _product(self, values: Array, name: str) -> Array:
        codes, scales = to_codes(values.astype(np.float32))
        weight_codes, weight_scales = to_codes(self._weights[f"{name}.weight"])
        sums = codes.astype(np.int64) @ weight_codes.astype(np.int64).T
        return np.asarray(sums * weight_scales.astype(np.float64).T * scales.astype(np.float64))

    def _mlp(self, values: Array, name: str) -> Array:
        gate, up = self._product(values, f"{name}.gate_proj"), self._product(values, f"{name}.up_proj")
        return self._product(gate / (1 + np.exp(-gate)) * up, f"{name}.down_proj")

    def _attention(self, values: Array, name: str) -> Array:
        length, head_dim = len(values), self._config["head_dim"]
        q, k = (self._product(values, f"{name}.{part}_proj").reshape(length, -1, head_dim) for part in "qk")
        v = self._values(values, name).reshape(length, -1, head_dim)
        q, k = self._rotate(self._norm(q, f"{name}.q_norm")), self._rotate(self._norm(k, f"{name}.k_norm"))
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat(group, axis=1), v.repeat(group, axis=1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(head_dim)
        scores[:, np.triu(np.ones((length, length), bool), k=1)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self._product(np.einsum("hij,jhd->ihd", weights, v).reshape(length, -1), f"{name}.o_proj")

    def _values(self, values: Array, name: str) -> Array:
        """Return values; in floats in the last layer, where the graph projects them after weighting."""
        if name.startswith(f"layers.{self._config['num_hidden_layers'] - 1}."):
            return np.asarray(values @ self._weights[f"{name}.v_proj.weight"].T)
        return self._product(values, f"{name}.v_proj")

    def _rotate(self, heads: Array) -> Array:
        """Apply rope to [length, heads, head_dim]; the two halves of head_dim are the pairs."""
        half = heads.shape[-1] // 2
        steps = self._config["rope_theta"] ** -(np.arange(half) / half)
        angles = np.arange(len(heads))[:, None, None] * steps
        left, right = heads[..., :half], heads[..., half:]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
