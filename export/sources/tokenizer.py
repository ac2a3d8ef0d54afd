"""The checkpoint's tokenizer: its file, its end-token policy, and its ids for texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...client.manifest import PairPrompts
from ..errors import SourceError, UnsupportedCheckpointError
from .probe_texts import PROBE_TEXTS

_PROBES = ("a", "b c", "")


@dataclass(frozen=True, slots=True)
class CheckpointTokenizer:
    """`tokenizer.json` of a checkpoint beside transformers' own reading of it."""

    file: Path
    sha256: str
    end_token_id: int | None
    """Id that the tokenizer appends to every text, None where it appends none."""
    plain: Tokenizer
    """The file itself, as the client reads it."""
    official: Any
    """The transformers tokenizer, which the reference uses."""

    def rows(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Token ids of each text as the official recipe has them, cut to `max_tokens`."""
        encoded = self.official(list(texts), truncation=True, max_length=max_tokens, padding=False)
        return [list(map(int, row)) for row in encoded["input_ids"]]

    def pair_rows(self, prompts: PairPrompts, bodies: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Token ids of a reranker's rows as the official recipe has them, their bodies cut to fit `max_tokens`.

        Raises UnsupportedCheckpointError where the file itself gives others, or where the prompt leaves no room.
        """
        prefix, suffix = (self._bare(text) for text in (prompts.prefix, prompts.suffix))
        room = max_tokens - len(prefix) - len(suffix)
        if room < 1:
            raise UnsupportedCheckpointError(
                f"max_tokens {max_tokens}: the reranker's prompt alone has {len(prefix) + len(suffix)} tokens"
            )
        encoded = self.official(
            list(bodies), truncation="longest_first", max_length=room, padding=False, add_special_tokens=False
        )
        rows = [[*prefix, *map(int, body), *suffix] for body in encoded["input_ids"]]
        plain = [
            self._plain(prompts.prefix) + self._plain(body)[:room] + self._plain(prompts.suffix) for body in bodies
        ]
        if rows != plain:
            raise UnsupportedCheckpointError(_disagreement(self.file))
        return rows

    @property
    def chat_template(self) -> str | None:
        """The chat template, as transformers reads it; None if there is none."""
        template = getattr(self.official, "chat_template", None)
        return template if isinstance(template, str) else None

    def token_id(self, token: str) -> int | None:
        """Id of a whole token, None where the vocabulary has no such token."""
        return self.plain.token_to_id(token)

    def _bare(self, text: str) -> list[int]:
        return list(map(int, self.official.encode(text, add_special_tokens=False)))

    def _plain(self, text: str) -> list[int]:
        return self.plain.encode(text, add_special_tokens=False).ids


def read_tokenizer(directory: Path, vocabulary: int) -> CheckpointTokenizer:
    """The tokenizer in `directory`, whose ids must lie below `vocabulary`.

    Raises SourceError without a tokenizer.json, UnsupportedCheckpointError where transformers reads other
    ids out of it than the file itself gives.
    """
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise SourceError(
            f"{directory}: no tokenizer.json; write one with AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    from transformers import AutoTokenizer

    try:
        plain = Tokenizer.from_file(str(file))
        official = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as exc:
        raise SourceError(f"{file}: not readable as a tokenizer ({exc})") from exc
    plain.no_padding()
    plain.no_truncation()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    tokenizer = CheckpointTokenizer(file, digest, _appended_id(plain), plain, official)
    ours = [encoding.ids for encoding in plain.encode_batch(list(PROBE_TEXTS))]
    if tokenizer.rows(PROBE_TEXTS, 1 << 30) != ours:
        raise UnsupportedCheckpointError(_disagreement(file))
    highest = max(plain.get_vocab(with_added_tokens=True).values(), default=-1)
    if highest >= vocabulary:
        raise UnsupportedCheckpointError(
            f"{file}: holds id {highest}, but the model's vocabulary ends at {vocabulary - 1}; "
            "is it another model's tokenizer?"
        )
    return tokenizer


def _disagreement(file: Path) -> str:
    return (
        f"{file}: transformers reads other ids from tokenizer_config.json than the file itself gives; "
        "save the tokenizer anew so that both agree"
    )


def _appended_id(plain: Tokenizer) -> int | None:
    """The one id that the post-processor adds behind a text, None where it adds none."""
    added = set()
    for probe in _PROBES:
        bare = plain.encode(probe, add_special_tokens=False).ids
        whole = plain.encode(probe).ids
        if whole[: len(bare)] != bare or len(whole) > len(bare) + 1:
            raise UnsupportedCheckpointError("the tokenizer adds more than one end token to a text")
        added.add(whole[-1] if len(whole) > len(bare) else None)
    return added.pop() if len(added) == 1 else None
