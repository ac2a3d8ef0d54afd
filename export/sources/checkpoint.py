"""A checkpoint folder, read lazily and validated against its config.json."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...client.manifest import MergeReport, SourceIdentity
from ..architectures import EMBEDDINGS, HEADS, LM_HEAD, SCORE_HEAD, DecoderConfig
from ..errors import SourceError, UnsupportedCheckpointError, list_keys
from .config import parse_config, read_json
from .embedding_head import LAST_TOKEN_HEAD, EmbeddingHead
from .folder_kind import explain_model
from .modules import find_transformer
from .quantized.forms import QUANTIZATION_KEYS, QuantizedForm, find_quantization
from .references import SourceReference, resolve_directory
from .setting_rules import CONFIG_RULES, check_keys
from .shard_index import check_index
from .weights import CODES, FLOATS, LazyTensor, Weights, hash_files, read_safetensors, remove_wrappers

WEIGHT_FILES = "model*.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint. In every file layout, tensors have the decoder's names."""

    source: SourceReference
    root: Path
    """Folder of the model, with `modules.json` if there is one."""
    directory: Path
    """Folder of config, weights and tokenizer: the root, or the subfolder that modules.json names."""
    raw_config: dict[str, Any]
    """Content of config.json, without the settings of a quantization."""
    config: DecoderConfig
    weights: Weights
    unknown_settings: tuple[str, ...]
    """Keys of config.json that no rule knows."""
    prefix: str
    """Prefix of the decoder's names in the files: `model.` or empty."""
    quantized_as: QuantizedForm | None = None
    """Form in which weights are quantized in the files; None if they are not."""
    transformers_agrees: bool = True
    """Whether transformers computes with the same weights on a machine without a GPU."""
    dequantized: frozenset[str] = frozenset()
    """Names of the tensors that are dequantized when they are read."""
    merges: tuple[MergeReport, ...] = ()
    """Of the adapters that were merged into the weights, in order."""
    head: EmbeddingHead = LAST_TOKEN_HEAD
    """Of an embedding model."""

    def identity(self) -> SourceIdentity:
        """Return the reference with the SHA-256 of the weights, with those of the head. Reads all weight files."""
        files = [*sorted(self.directory.glob(WEIGHT_FILES)), *(module.file for module in self.head.dense)]
        return SourceIdentity(reference=str(self.source), sha256=hash_files(files))

    @property
    def prunes_last_layer(self) -> bool:
        """Whether the last layer needs to compute only each row's last token, after its keys and values."""
        return not self.head.pooling.reads_every_token

    @property
    def has_fixed_prefixes(self) -> bool:
        """Whether a graph can store the states of a row's first tokens.

        Under bidirectional attention they depend on what follows, and mean pooling needs their final states as well.
        """
        return self.config.causal and not self.head.pooling.reads_every_token

    def transformers_config(self) -> Any:
        """Return the config object of the installed transformers."""
        return self.config.architecture.load_classes().make_config(self.raw_config, self.config.rope)

    def describe_dequantization(self) -> str | None:
        """Return a note about what is dequantized; None if nothing is."""
        if self.quantized_as is None:
            return None
        return f"{len(self.dequantized)} tensors are dequantized from {self.quantized_as.name} to fp32"

    def written_dtype(self, name: str) -> torch.dtype:
        """Return the dtype of tensor `name` in a checkpoint that is written from this one.

        It is that of the file; for a weight that is dequantized or not there, that of the embeddings.
        """
        stored = name in self.weights and name not in self.dequantized
        return self.weights[name if stored else EMBEDDINGS].dtype

    def with_weights(self, weights: Weights) -> Checkpoint:
        """Return the checkpoint with other weights."""
        return dataclasses.replace(self, weights=weights)

    def with_merged(self, weights: Weights, merges: tuple[MergeReport, ...]) -> Checkpoint:
        """Return the checkpoint with merged weights and the reports of the merge."""
        return dataclasses.replace(self, weights=weights, merges=merges)

    def with_vocabulary(self, weights: Weights, vocabulary: int) -> Checkpoint:
        """Return the checkpoint with embeddings of another length."""
        return dataclasses.replace(
            self,
            weights=weights,
            config=dataclasses.replace(self.config, vocabulary=vocabulary),
            raw_config=self.raw_config | {"vocab_size": vocabulary},
        )


def open_checkpoint(source: SourceReference) -> Checkpoint:
    """Open a checkpoint. Weights are read lazily.

    Args:
        source: Local folder or hub id; a hub id is downloaded.

    Returns:
        The checkpoint, whose config and tensor shapes are validated.

    Raises:
        SourceError: The checkpoint does not exist or cannot be read.
        UnsupportedCheckpointError: The config has a setting that is not supported, or tensors are missing, unknown or
            of another shape than in config.json.
    """
    root = resolve_directory(source)
    directory = find_transformer(root)
    explained = explain_model(directory)
    if explained is not None:
        raise SourceError(explained)
    raw = read_json(directory / "config.json")
    config = parse_config(raw, str(directory / "config.json"))
    unknown = check_keys(raw, CONFIG_RULES, str(directory / "config.json"))
    quantization = find_quantization(raw, str(directory / "config.json"))
    types = FLOATS if quantization is None else FLOATS | CODES
    read = read_safetensors(directory, WEIGHT_FILES, types)
    check_index(directory, read)
    stored = {remove_wrappers(name): tensor for name, tensor in read.items()}
    plain = stored if quantization is None else quantization.dequantize(stored)
    prefix = "model." if any(name.startswith("model.") for name in plain) else ""

    def decoder_name(name: str) -> str:
        return name if name in HEADS else name.removeprefix(prefix)

    weights = {decoder_name(name): tensor for name, tensor in plain.items()}
    _check_shapes(weights, config, directory)
    return Checkpoint(
        source=source,
        root=root,
        directory=directory,
        raw_config={key: value for key, value in raw.items() if key not in QUANTIZATION_KEYS},
        config=config,
        weights=weights,
        unknown_settings=tuple(unknown),
        prefix=prefix,
        quantized_as=None if quantization is None else quantization.form,
        transformers_agrees=quantization is None or quantization.transformers_agrees(stored),
        dequantized=frozenset(decoder_name(name) for name, tensor in plain.items() if tensor is not stored.get(name)),
    )


def _check_shapes(weights: dict[str, LazyTensor], config: DecoderConfig, directory: Path) -> None:
    if config.layers > len(weights):
        raise UnsupportedCheckpointError(
            f"{directory}: config.json has num_hidden_layers {config.layers}, but there are only {len(weights)} tensors"
        )
    expected = config.tensor_shapes()
    missing = [name for name in expected if name not in weights]
    if missing:
        raise UnsupportedCheckpointError(f"{directory}: tensors are missing: {list_keys(missing)}")
    unknown = [name for name in weights if name not in expected and name not in HEADS]
    if unknown:
        raise UnsupportedCheckpointError(
            f"{directory}: tensors that do not exist in {config.architecture.name} models: {list_keys(unknown)}"
        )
    if LM_HEAD in weights:
        expected[LM_HEAD] = (config.vocabulary, config.hidden)
    if SCORE_HEAD in weights:
        expected[SCORE_HEAD] = (weights[SCORE_HEAD].shape[0], config.hidden)
    wrong = [
        f"{name} {list(weights[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if weights[name].shape != shape
    ]
    if wrong:
        raise UnsupportedCheckpointError(f"{directory}: tensor shapes differ from config.json: {list_keys(wrong)}")
