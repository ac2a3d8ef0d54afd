"""What a client must know of a model: the manifest, and its JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ManifestError
from .fields import known_fields, read_object, require_integers
from .identities import TokenizerIdentity
from .templates import PairPrompts, Prompts
from .wire import Precision, Task

SCHEMA_VERSION = 1
"""Version of the JSON below. Fields may be added without changing it; a client refuses a newer version only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a caller must know of a model, whatever its task."""

    task: ClassVar[Task]

    schema_version: int = SCHEMA_VERSION
    dimension: int
    """D, the width of the output."""
    max_tokens: int
    """Longest row, prompt and end token included."""
    vocabulary_size: int
    """Ids run from 0 to this, exclusive."""
    tokenizer: TokenizerIdentity
    precision: Precision

    def to_fields(self) -> dict[str, Any]:
        """Return the fields of the JSON object that describes the manifest."""
        return {"task": self.task} | dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return JSON text that `from_json` reads back to an equal value."""
        return json.dumps(self.to_fields(), ensure_ascii=False, indent=2)

    @staticmethod
    def from_json(text: str) -> EmbeddingManifest | RerankManifest:
        """Read the manifest in `text`, of the kind that its task says; unknown fields are ignored.

        Raises:
            ManifestError: It is not a manifest, or one of a newer schema version than this code reads.
        """
        return read_manifest(read_object(text, SCHEMA_VERSION))


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingManifest(Manifest):
    """The manifest of a model that answers with unit vectors."""

    task = Task.EMBED

    min_dimension: int
    """Smallest number of leading components that may be asked for."""
    end_token_id: int | None
    """Id at the end of every row, exactly once; None where the tokenizer appends none."""
    prompts: Prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankManifest(Manifest):
    """The manifest of a model that answers with the score of a query and a document."""

    task = Task.RERANK

    prompts: PairPrompts


def read_manifest(fields: Mapping[str, Any]) -> EmbeddingManifest | RerankManifest:
    """Return the manifest that the JSON object `fields` describes; raise ManifestError where it is malformed."""
    try:
        require_integers(fields, "dimension", "min_dimension", "max_tokens", "vocabulary_size")
        nested = {
            "tokenizer": TokenizerIdentity(**known_fields(TokenizerIdentity, fields["tokenizer"])),
            "precision": Precision(str(fields["precision"])),
        }
        if Task(str(fields["task"])) is Task.RERANK:
            prompts = PairPrompts(**known_fields(PairPrompts, fields["prompts"]))
            return RerankManifest(**known_fields(RerankManifest, fields) | nested | {"prompts": prompts})
        texts = Prompts(**known_fields(Prompts, fields["prompts"]))
        return EmbeddingManifest(**known_fields(EmbeddingManifest, fields) | nested | {"prompts": texts})
    except (ValueError, TypeError, KeyError) as exc:
        raise ManifestError(f"malformed manifest of schema {fields.get('schema_version')}: {exc}") from exc
