"""The tokenizer of a checkpoint: its file, end token and token rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer

from ...client.manifest import PairPrompts
from ...client.manifest.input_files import describe_error, read_json_file, read_whole
from ...client.manifest.panics import PanicError, panics_as_errors
from ..errors import SourceError, UnsupportedCheckpointError
from .config import read_json
from .probe_texts import PROBE_TEXTS
from .setting_files import SETTING_FILES

TOKENIZER_FILE = "tokenizer.json"
_VOCABULARY, _MERGES = "vocab.json", "merges.txt"
_NEWER_CLASS = "TokenizersBackend"
_PROBES = ("a", "b c", "")


@dataclass(frozen=True, slots=True)
class CheckpointTokenizer:
    """A tokenizer as loaded by tokenizers and by transformers."""

    file: Path
    """`tokenizer.json`, or the `vocab.json` that it was converted from."""
    content: bytes
    """Content of `tokenizer.json`."""
    sha256: str
    end_token_id: int | None
    """Id that the tokenizer appends to every text; None if it appends none."""
    plain: Tokenizer
    """The file as loaded by tokenizers, which the client uses."""
    official: Any
    """The tokenizer of transformers, which the reference uses."""

    def rows(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Return the token ids of each text by the official recipe, truncated to `max_tokens`."""
        with _panics_named(self.file):
            encoded = self.official(list(texts), truncation=True, max_length=max_tokens, padding=False)
        return [list(map(int, row)) for row in encoded["input_ids"]]

    def pair_rows(self, prompts: PairPrompts, bodies: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Return the token ids of a reranker's rows by the official recipe, with bodies truncated to fit `max_tokens`.

        Raises:
            UnsupportedCheckpointError: tokenizers and transformers disagree, or the prompt alone has `max_tokens`.
        """
        prefix, suffix = (self.part_ids(text) for text in (prompts.prefix, prompts.suffix))
        body_tokens = max_tokens - len(prefix) - len(suffix)
        if body_tokens < 1:
            raise UnsupportedCheckpointError(
                f"max_tokens {max_tokens}: the reranker's prompt alone has {len(prefix) + len(suffix)} tokens; "
                "use a larger max_tokens"
            )
        with _panics_named(self.file):
            encoded = self.official(
                list(bodies),
                truncation="longest_first",
                max_length=body_tokens,
                padding=False,
                add_special_tokens=False,
            )
        rows = [[*prefix, *map(int, body), *suffix] for body in encoded["input_ids"]]
        plain = [
            self._encode(prompts.prefix) + self._encode(body)[:body_tokens] + self._encode(prompts.suffix)
            for body in bodies
        ]
        if rows != plain:
            raise UnsupportedCheckpointError(_disagreement(self.file))
        return rows

    @property
    def chat_template(self) -> str | None:
        """The chat template, as transformers reads it; None if there is none."""
        template = getattr(self.official, "chat_template", None)
        return template if isinstance(template, str) else None

    @property
    def unheeded_additions(self) -> list[str]:
        """Settings that ask for an end token although the tokenizer appends none, as transformers reads it, too."""
        return _stated_additions(self.file) if self.end_token_id is None else []

    def token_id(self, token: str) -> int | None:
        """Return the id of `token`; None if it is not in the vocabulary."""
        return self.plain.token_to_id(token)

    def part_ids(self, text: str) -> list[int]:
        """Return the ids of a part of a prompt by the official recipe, without special tokens around it."""
        with _panics_named(self.file):
            return list(map(int, self.official.encode(text, add_special_tokens=False)))

    def _encode(self, text: str) -> list[int]:
        return self.plain.encode(text, add_special_tokens=False).ids


def read_tokenizer(directory: Path, vocabulary: int) -> CheckpointTokenizer:
    """Read the tokenizer in `directory` for a model with `vocabulary` embeddings.

    Without tokenizer.json, transformers converts vocab.json and merges.txt.

    Raises:
        SourceError: There is neither tokenizer.json nor vocab.json with merges.txt, or they cannot be read.
        UnsupportedCheckpointError: tokenizers and transformers disagree, the tokenizer adds other tokens than one end
            token, an id is outside the vocabulary, or the probe texts cannot be tokenized.
    """
    file = find_tokenizer_file(directory)
    if file is None:
        raise SourceError(
            f"{directory}: no tokenizer.json, and no vocab.json with merges.txt; write one with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    _check_files(directory)
    from transformers import AutoTokenizer

    try:
        with panics_as_errors():
            official = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
            content = file.read_bytes() if file.name == TOKENIZER_FILE else _convert(official)
            plain = Tokenizer.from_buffer(content)
    except Exception as exc:
        raise SourceError(f"{file}: not readable as a tokenizer ({_reason(exc)})") from exc
    plain.no_padding()
    plain.no_truncation()
    digest = hashlib.sha256(content).hexdigest()
    with _panics_named(file):
        tokenizer = CheckpointTokenizer(file, content, digest, _appended_id(plain), plain, official)
        ours = [encoding.ids for encoding in plain.encode_batch(list(PROBE_TEXTS))]
    if tokenizer.rows(PROBE_TEXTS, 1 << 30) != ours:
        raise UnsupportedCheckpointError(_disagreement(file))
    highest = max(plain.get_vocab(with_added_tokens=True).values(), default=-1)
    if highest >= vocabulary:
        raise UnsupportedCheckpointError(
            f"{file}: has id {highest}, but the model's vocabulary ends at {vocabulary - 1}; "
            "is it another model's tokenizer?"
        )
    return tokenizer


def find_tokenizer_file(directory: Path) -> Path | None:
    """Return tokenizer.json, or the vocab.json that it can be converted from; None if there is neither."""
    file, vocabulary = directory / TOKENIZER_FILE, directory / _VOCABULARY
    if file.exists():
        return file
    return vocabulary if vocabulary.exists() and (directory / _MERGES).exists() else None


def _convert(official: Any) -> bytes:
    """Return the tokenizer.json of a tokenizer that transformers has read from other files."""
    return str(official.backend_tokenizer.to_str()).encode()


@contextmanager
def _panics_named(file: Path) -> Iterator[None]:
    """Raise UnsupportedCheckpointError in place of a panic: a regular expression takes too many steps."""
    try:
        with panics_as_errors():
            yield
    except PanicError as exc:
        raise UnsupportedCheckpointError(
            f"{file}: cannot tokenize a text ({exc}); use the tokenizer.json of the base model"
        ) from exc


def _check_files(directory: Path) -> None:
    """Raise SourceError if a file that transformers would open cannot be read, or has JSON nested too deeply."""
    for name in SETTING_FILES:
        file = directory / name
        if not file.exists():
            continue
        try:
            # tokenizers itself limits the depth of its file
            read_json_file(file) if file.suffix == ".json" and name != "tokenizer.json" else read_whole(file)
        except (OSError, ValueError) as exc:
            raise SourceError(f"{file}: not readable ({describe_error(exc)})") from exc


def _disagreement(file: Path) -> str:
    added = _stated_additions(file)
    cause = f" ({' and '.join(added)} in tokenizer_config.json)" if added else ""
    return (
        f"{file}: transformers, with tokenizer_config.json, returns other ids than tokenizer.json alone{cause}; "
        "save the tokenizer again with save_pretrained so that both agree"
    )


def _stated_additions(file: Path) -> list[str]:
    """Return the settings beside `file` that ask for tokens around a text; the steps in `file` decide."""
    config = file.with_name("tokenizer_config.json")
    stated = read_json(config) if config.exists() else {}
    return [f"{name} true" for name in ("add_bos_token", "add_eos_token") if stated.get(name) is True]


def _reason(exc: Exception) -> str:
    """What is wrong with a tokenizer folder, and what to do if its transformers was newer than the installed one."""
    if _NEWER_CLASS not in str(exc):
        return str(exc)
    return (
        f"tokenizer_config.json names the class {_NEWER_CLASS} of transformers 5, and {transformers.__version__} is "
        "installed: install transformers 5, or change tokenizer_class to PreTrainedTokenizerFast"
    )


def _appended_id(plain: Tokenizer) -> int | None:
    """Return the id that the post-processor appends to every text; None if it appends none."""
    added = set()
    for probe in _PROBES:
        text_ids = plain.encode(probe, add_special_tokens=False).ids
        ids = plain.encode(probe).ids
        if ids[: len(text_ids)] != text_ids or len(ids) > len(text_ids) + 1:
            raise UnsupportedCheckpointError(
                "the tokenizer adds more than one end token to a text; "
                "its post-processor must append one end token or none"
            )
        added.add(ids[-1] if len(ids) > len(text_ids) else None)
    return added.pop() if len(added) == 1 else None
