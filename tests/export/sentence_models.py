"""Checkpoint folders with the modules of sentence-transformers: pooling, Dense, normalization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_checkpoint import TinyCheckpoint, write_checkpoint, write_json

TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseModule:
    """A Dense module with random weights."""

    inputs: int
    outputs: int
    bias: bool = True
    activation: str | None = TANH
    """None leaves the key out."""
    changes: Mapping[str, Any] | None = None
    """Of config.json."""

    def write(self, folder: Path) -> None:
        """Write config and weights as sentence-transformers does."""
        folder.mkdir()
        stated: dict[str, Any] = {"in_features": self.inputs, "out_features": self.outputs, "bias": self.bias}
        if self.activation is not None:
            stated["activation_function"] = self.activation
        write_json(folder / "config.json", stated | dict(self.changes or {}))
        rng = torch.Generator().manual_seed(self.outputs)
        tensors = {"linear.weight": 3 * torch.randn(self.outputs, self.inputs, generator=rng) * self.inputs**-0.5}
        if self.bias:
            tensors["linear.bias"] = torch.randn(self.outputs, generator=rng)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceModel:
    """What follows the transformer in modules.json."""

    pooling: Mapping[str, Any]
    """Content of the Pooling module's config.json."""
    modules: Sequence[DenseModule | str] = ("Normalize",)
    """Dense modules, and kinds of modules without files."""

    def write(self, folder: Path, tiny: TinyCheckpoint | None = None) -> Path:
        """Write a checkpoint with these modules and without prompts, and return its folder."""
        write_checkpoint(folder, tiny)
        self.write_modules(folder)
        return folder

    def write_modules(self, folder: Path) -> None:
        """Write modules.json and the folders of the modules."""
        listed: list[tuple[str, str]] = [("Transformer", ""), ("Pooling", "1_Pooling")]
        for number, module in enumerate(self.modules, 2):
            kind = module if isinstance(module, str) else "Dense"
            listed.append((kind, f"{number}_{kind}"))
            if isinstance(module, DenseModule):
                module.write(folder / f"{number}_Dense")
        (folder / "1_Pooling").mkdir()
        write_json(folder / "1_Pooling" / "config.json", dict(self.pooling))
        modules = [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (kind, path) in enumerate(listed)
        ]
        write_json(folder / "modules.json", modules)
        write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "query: ", "document": ""}})


MEAN = {"word_embedding_dimension": 40, "pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False}
NEW_MEAN = {"embedding_dimension": 40, "pooling_mode": "mean", "include_prompt": True}
LAST = {"word_embedding_dimension": 40, "pooling_mode_lasttoken": True, "include_prompt": True}
WIDE = DenseModule(inputs=40, outputs=72)
NARROW = DenseModule(inputs=40, outputs=24, bias=False, activation=IDENTITY)
BIDIRECTIONAL = {"is_causal": False}

RECIPES = {
    "mean": (SentenceModel(pooling=MEAN), {}),
    "mean, without Normalize": (SentenceModel(pooling=NEW_MEAN, modules=()), {}),
    "Dense": (SentenceModel(pooling=LAST, modules=(WIDE, "Normalize")), {}),
    "Dense after Normalize": (SentenceModel(pooling=LAST, modules=("Normalize", WIDE)), {}),
    "mean and two Dense": (
        SentenceModel(
            pooling=NEW_MEAN,
            modules=(WIDE, DenseModule(inputs=72, outputs=33, activation=None), "Normalize"),
        ),
        {},
    ),
    "bidirectional": (SentenceModel(pooling=LAST), BIDIRECTIONAL),
    "bidirectional mean": (SentenceModel(pooling=MEAN), BIDIRECTIONAL),
    "everything": (SentenceModel(pooling=NEW_MEAN, modules=(NARROW, "Normalize")), BIDIRECTIONAL),
}
"""Name → modules, and changes of the decoder's config.json."""
