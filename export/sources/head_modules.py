"""The head of an embedding model, from `modules.json` and the folders that it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..architectures import DecoderConfig
from ..errors import UnsupportedCheckpointError, list_keys
from .config import read_json
from .embedding_head import Activation, Dense, EmbeddingHead, Pooling
from .modules import MODULES_FILE, TRANSFORMER, Module, read_modules
from .setting_files import SettingFiles
from .setting_rules import DENSE_RULES, POOLING_RULES, require_known_keys
from .stated_numbers import StatedNumbers, shorten
from .weights import read_safetensors, reject_pickled

POOLING, DENSE, NORMALIZE = "Pooling", "Dense", "Normalize"
_MODULES = (TRANSFORMER, POOLING, DENSE, NORMALIZE)
_WEIGHT_FILE, _PICKLED_FILE = "model.safetensors", "pytorch_model.bin"
_WEIGHT, _BIAS = "linear.weight", "linear.bias"
_TORCH = "torch.nn."
_MODES = {"cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean", "weightedmean_tokens": "weightedmean"}
"""Pooling modes in `pooling_mode_*` keys → their names in `pooling_mode`; other names are the same in both."""


def read_head(files: SettingFiles, config: DecoderConfig) -> EmbeddingHead:
    """Return the head that the files state.

    A model without `modules.json` has last-token pooling; if its attention is bidirectional, it has mean pooling, as
    sentence-transformers chooses.

    Raises:
        SourceError: A file cannot be read.
        UnsupportedCheckpointError: A module, or one of its settings, is not supported.
    """
    pooling: Pooling | None = None
    dense: list[Dense] = []
    follows_normalize = False
    for module in read_modules(files):
        if module.kind not in _MODULES:
            raise UnsupportedCheckpointError(
                f"{files.find(MODULES_FILE)}: module '{module.kind}' is not supported; supported are "
                f"{', '.join(_MODULES)}"
            )
        if module.kind == POOLING:
            pooling = _read_pooling(module)
        elif module.kind == DENSE:
            if pooling is None:
                raise UnsupportedCheckpointError(
                    f"{files.find(MODULES_FILE)}: Dense is listed before Pooling; it is supported after it only"
                )
            width = dense[-1].width if dense else config.hidden
            dense.append(_read_dense(module, width, normalizes_input=follows_normalize))
        follows_normalize = module.kind == NORMALIZE
    if pooling is None:
        pooling = Pooling.LAST_TOKEN if config.causal else Pooling.MEAN
    return EmbeddingHead(pooling=pooling, dense=tuple(dense))


def pooling_modes(pooling: Mapping[str, Any]) -> list[str]:
    """Return the modes that a Pooling module's config.json states, in either of its layouts."""
    prefix = "pooling_mode_"
    modes = [key.removeprefix(prefix) for key, on in pooling.items() if key.startswith(prefix) and on]
    single = pooling.get("pooling_mode")
    if single is not None:
        modes += single if isinstance(single, list) else [single]
    return [_MODES.get(mode, mode) for mode in map(str, modes)]


def _read_pooling(module: Module) -> Pooling:
    file = module.directory / "config.json"
    stated = read_json(file)
    modes = dict.fromkeys(pooling_modes(stated))
    if len(modes) != 1 or not modes.keys() <= set(Pooling):
        raise UnsupportedCheckpointError(
            f"{file}: pooling '{' + '.join(modes) or 'none'}' is not supported, only {' or '.join(Pooling)}"
        )
    require_known_keys(stated, POOLING_RULES, str(file))
    return Pooling(*modes)


def _read_dense(module: Module, width: int, *, normalizes_input: bool) -> Dense:
    """Return a Dense module that reads rows of `width`."""
    file = module.directory / "config.json"
    stated = read_json(file)
    require_known_keys(stated, DENSE_RULES, str(file))
    numbers = StatedNumbers(stated, str(file))
    columns, rows = numbers.size("in_features"), numbers.size("out_features")
    if columns != width:
        raise UnsupportedCheckpointError(f"{file}: in_features is {columns}, but the module reads {width} components")
    reject_pickled(module.directory, _PICKLED_FILE, _WEIGHT_FILE)
    tensors = read_safetensors(module.directory, _WEIGHT_FILE)
    shapes = {_WEIGHT: (rows, columns)} | ({_BIAS: (rows,)} if stated.get("bias", True) else {})
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != shapes:
        differing = [name for name in found | shapes if found.get(name) != shapes.get(name)]
        raise UnsupportedCheckpointError(
            f"{module.directory / _WEIGHT_FILE}: {list_keys(differing)} missing, unknown or of another shape than in "
            "config.json"
        )
    return Dense(
        file=module.directory / _WEIGHT_FILE,
        weight=tensors[_WEIGHT],
        bias=tensors.get(_BIAS),
        activation=_read_activation(stated, str(file)),
        normalizes_input=normalizes_input,
    )


def _read_activation(stated: Mapping[str, Any], where: str) -> Activation:
    name = stated.get("activation_function", f"{_TORCH}{Activation.TANH}")
    kind = str(name).rpartition(".")[2]
    if not str(name).startswith(_TORCH) or kind not in set(Activation):
        raise UnsupportedCheckpointError(
            f"{where}: activation_function {shorten(name)} is not supported, only {' and '.join(Activation)} of "
            "torch.nn; train the Dense module with one of them"
        )
    return Activation(kind)
