"""Files that are no regular files, JSON without an end of brackets, and tokenizers that do not terminate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from peft_adapters import write_adapter
from safetensors.torch import save_file
from tiny_checkpoint import write_checkpoint, write_json

from qwen3_triton.export import (
    AdapterReference,
    ExportError,
    ExportOptions,
    SilentProgress,
    SourceError,
    SourceReference,
    UnsupportedCheckpointError,
)
from qwen3_triton.export.int8.calibration import read_calibration
from qwen3_triton.export.model_sources import open_sources
from qwen3_triton.export.sources.adapter import open_adapter
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.sources.weights import read_safetensors

CHECKPOINT_FILES = [
    "config.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
ADAPTER_FILES = ["adapter_config.json", "adapter_model.safetensors"]
DEPTH = 100_000

Open = Callable[[Path], None]


def short(value: object) -> str:
    """Return the name of a parameter."""
    return str(value)[:40]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_source: Path) -> dict[str, bytes]:
    folder = write_adapter(tmp_path_factory.mktemp("trained") / "adapter", tiny_source)
    return {name: (folder / name).read_bytes() for name in ADAPTER_FILES}


@pytest.fixture
def adapter(tmp_path: Path, trained: dict[str, bytes]) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name, content in trained.items():
        (folder / name).write_bytes(content)
    return folder


def open_model(source: Path) -> None:
    options = ExportOptions(model=SourceReference(str(source)), repository=source.parent / "repository")
    open_sources(options, SilentProgress())


def open_lora(folder: Path) -> None:
    open_adapter(AdapterReference(SourceReference(str(folder))))


@contextmanager
def replaced(file: Path, kind: str) -> Iterator[None]:
    """Make `file` a pipe, a folder or a device; somebody writes to the pipe later, so that no test hangs."""
    file.unlink(missing_ok=True)
    if kind == "folder":
        file.mkdir()
        yield
    elif kind == "device":
        file.symlink_to("/dev/zero")
        yield
    else:
        os.mkfifo(file)
        code = "import sys, time; time.sleep(5); open(sys.argv[1], 'wb').close()"
        with subprocess.Popen([sys.executable, "-S", "-E", "-c", code, str(file)]) as writer:
            try:
                yield
            finally:
                writer.kill()


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_special_file_in_a_checkpoint_is_named(source: Path, name: str, kind: str) -> None:
    with replaced(source / name, kind), pytest.raises(SourceError) as caught:
        open_model(source)
    assert str(caught.value).startswith(f"{source / name}: not ")
    assert str(caught.value).endswith("(not a regular file)")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_special_file_in_an_adapter_is_named(adapter: Path, name: str, kind: str) -> None:
    with replaced(adapter / name, kind), pytest.raises(SourceError) as caught:
        open_lora(adapter)
    assert str(caught.value).startswith(f"{adapter / name}: not ")
    assert str(caught.value).endswith("(not a regular file)")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_special_file_of_calibration_texts_is_named(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "texts.txt"
    with replaced(file, kind), pytest.raises(SourceError, match=r"texts\.txt: not readable \(not a regular file\)"):
        read_calibration(file)


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("open_it", [open_model, open_lora])
def test_special_file_instead_of_a_folder_is_named(tmp_path: Path, kind: str, open_it: Open) -> None:
    file = tmp_path / "model"
    with replaced(file, kind), pytest.raises(SourceError, match=r"model is a file; give the folder that it is in"):
        open_it(file)


def deep_json(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("name", [name for name in [*CHECKPOINT_FILES, "added_tokens.json"] if name.endswith(".json")])
@pytest.mark.parametrize("levels", [100, DEPTH])
def test_deep_json_in_a_checkpoint_is_named(source: Path, name: str, levels: int) -> None:
    (source / name).write_text(f'{{"version": {deep_json(levels)}}}')
    with pytest.raises(SourceError) as caught:
        open_model(source)
    assert str(caught.value).startswith(f"{source / name}: not ")
    assert len(str(caught.value).splitlines()) == 1


def test_deep_json_in_an_adapter_is_named(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text(deep_json(DEPTH))
    with pytest.raises(SourceError, match=r"adapter_config\.json: not readable as JSON \(nested more than 64 levels"):
        open_lora(adapter)
    # the folder is an adapter, also where a model is expected
    with pytest.raises(SourceError, match="is an adapter, not a model"):
        open_model(adapter)


@pytest.mark.parametrize("header", ['{"a": ' + "[" * DEPTH, '{"__metadata__": ' + '{"a":' * DEPTH, "[" * DEPTH])
def test_deep_header_of_weights_is_named(source: Path, header: str) -> None:
    file = source / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(SourceError, match=r"model\.safetensors: not readable as safetensors"):
        open_model(source)


def test_deep_json_in_calibration_texts_is_named(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(deep_json(DEPTH))
    with pytest.raises(SourceError, match="line 1 is not a JSON object"):
        read_calibration(file)


def test_huge_json_is_not_read(source: Path) -> None:
    with (source / "config.json").open("r+b") as config:
        config.truncate(1 << 40)
    with pytest.raises(SourceError, match=r"config\.json: not readable as JSON \(larger than 256 MiB\)"):
        open_model(source)


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads", "head_dim"])
@pytest.mark.parametrize("value", [10**9, 10**12, 10**400, -1, 0, 1.5, 2.0, True, "2", [2], float("nan")], ids=short)
def test_absurd_sizes_are_named(source: Path, key: str, value: object) -> None:
    file = source / "config.json"
    write_json(file, json.loads(file.read_text()) | {key: value})
    with pytest.raises(UnsupportedCheckpointError) as caught:
        open_checkpoint(SourceReference(str(source)))
    assert str(source) in str(caught.value)
    assert key in str(caught.value) or "tensor shapes differ" in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan, not a finite number"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small', not a finite number"),
        ({"rope_theta": float("inf")}, "rope_theta is inf, not a finite number"),
        ({"rope_theta": 10**400}, "rope_theta is 1000"),
        ({"rope_scaling": [1]}, r"the rope settings are \[1\], not a JSON object"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "two"}}, "factor is 'two', not a finite number"),
        ({"architectures": 5}, "architecture '5' is not supported"),
        ({"auto_map": 5}, "auto_map 5 is not supported"),
    ],
    ids=short,
)
def test_absurd_settings_are_named(source: Path, changes: dict[str, object], message: str) -> None:
    file = source / "config.json"
    write_json(file, json.loads(file.read_text()) | changes)
    with pytest.raises(UnsupportedCheckpointError, match=message):
        open_checkpoint(SourceReference(str(source)))


def test_absurd_length_limit_is_named(source: Path) -> None:
    write_json(source / "sentence_bert_config.json", {"max_seq_length": "long"})
    with pytest.raises(UnsupportedCheckpointError, match="max_seq_length is 'long', not an integer from 1 to"):
        open_model(source)


def test_prompts_that_are_no_object_are_named(source: Path) -> None:
    write_json(source / "config_sentence_transformers.json", {"prompts": ["query: "]})
    with pytest.raises(UnsupportedCheckpointError, match=r"prompts is \['query: '\], not a JSON object"):
        open_model(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 0}, "r is 0, not an integer from 1 to 1099511627776$"),
        ({"r": -3}, "r is -3, not an integer"),
        ({"r": "3"}, "r is '3', not an integer"),
        ({"r": True}, "r is True, not an integer"),
        ({"r": None}, "'r' is missing"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, not a finite number"),
        ({"lora_alpha": float("inf")}, "lora_alpha is inf, not a finite number"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"lora_alpha": "16"}, "lora_alpha is '16', not a finite number"),
        ({"rank_pattern": [1]}, r"rank_pattern is \[1\], not a JSON object"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern: q_proj is 0, not an integer"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern: q_proj is 'x', not a finite number"),
        ({"alpha_pattern": {"(": 1}}, r"alpha_pattern: '\(' is not a regular expression"),
        # these fit no tensor, which only the merge shows
        ({"r": 10**9}, "has rank 3, but adapter_config.json has 1000000000"),
        ({"r": 10**12, "use_rslora": True}, "has rank 3, but adapter_config.json has 1000"),
    ],
    ids=short,
)
def test_absurd_adapter_settings_are_named(
    tiny_source: Path, adapter: Path, changes: dict[str, object], message: str
) -> None:
    change_adapter(adapter, changes)
    with pytest.raises(ExportError, match=message) as caught:
        merge(tiny_source, adapter)
    assert str(adapter) in str(caught.value)


def test_scaling_that_overflows_is_named(tiny_source: Path, adapter: Path) -> None:
    change_adapter(adapter, {"lora_alpha": 1e300})
    with pytest.raises(ExportError, match=r"layers\.\d\..*weight is not finite after the merge; is lora_alpha"):
        merge(tiny_source, adapter)


def change_adapter(adapter: Path, changes: dict[str, object]) -> None:
    file = adapter / "adapter_config.json"
    write_json(file, json.loads(file.read_text()) | changes)


def merge(source: Path, adapter: Path) -> None:
    """Open the sources of an export and read all of its weights."""
    options = ExportOptions(
        model=SourceReference(str(source)),
        adapters=(AdapterReference(SourceReference(str(adapter))),),
        repository=adapter.parent / "repository",
    )
    for tensor in open_sources(options, SilentProgress()).checkpoint.weights.values():
        tensor.load()


def test_tokenizer_whose_expression_explodes_is_named(source: Path) -> None:
    file = source / "tokenizer.json"
    state = json.loads(file.read_text())
    # takes 2^90 steps for a probe text, of which the library takes 10 million
    split = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, state["pre_tokenizer"]]}
    write_json(file, state)
    with pytest.raises(UnsupportedCheckpointError, match=r"tokenizer\.json: cannot tokenize a text \(.*retry"):
        open_model(source)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named_when_they_are_read(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    values = {"good": torch.full((3, 4), torch.finfo(dtype).max, dtype=dtype), "bad": torch.ones(3, 4, dtype=dtype)}
    values["bad"][1, 2] = value
    save_file(values, tmp_path / "model.safetensors")
    tensors = read_safetensors(tmp_path, "model*.safetensors")
    assert torch.equal(tensors["good"].load(), values["good"])
    assert torch.equal(tensors["bad"].fp32_rows([2, 0]), torch.ones(2, 4))
    for read in (tensors["bad"].load, lambda: tensors["bad"].fp32_rows(range(1, 2))):
        with pytest.raises(SourceError, match=r"model.safetensors: tensor 'bad' has NaN or infinite values"):
            read()


def test_a_file_that_shrinks_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(100)}, file)
    tensor = read_safetensors(tmp_path, "model*.safetensors")["a"]
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 8)
    with pytest.raises(SourceError, match="ends within tensor 'a'"):
        tensor.load()
