"""The manifest that clients read, and its JSON form."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ManifestError
from .compact_output import CompactOutput
from .fields import known_fields, read_object, require_integers
from .identities import TokenizerIdentity
from .load import RecommendedLoad
from .templates import PairPrompts, Prompts
from .wire import Precision, Task

SCHEMA_VERSION = 1
"""Version of the JSON schema. Adding fields does not change it; clients reject only newer versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What clients need to know of a model; see the subclasses for each task."""

    task: ClassVar[Task]
    """What the model computes."""

    schema_version: int = SCHEMA_VERSION
    """Version of the JSON schema."""
    dimension: int
    """Width D of the output."""
    max_tokens: int
    """Largest number of tokens in a row, including prompt and end token."""
    vocabulary_size: int
    """Token ids are 0 to `vocabulary_size - 1`."""
    tokenizer: TokenizerIdentity
    """Identity of the model's `tokenizer.json`."""
    precision: Precision
    """Number format of the weights."""
    load: RecommendedLoad | None = None
    """Load that one client should put on the server; None in manifests of earlier exports."""
    model_version: int | None = None
    """Version of the model that the manifest describes; None in manifests of earlier exports."""

    def to_fields(self) -> dict[str, Any]:
        """Return the manifest as a JSON object."""
        return {"task": self.task} | dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the manifest as JSON text, see `from_json`."""
        return json.dumps(self.to_fields(), ensure_ascii=False, indent=2)

    @staticmethod
    def from_json(text: str) -> EmbeddingManifest | RerankManifest:
        """Parse the JSON text of a manifest; unknown fields are ignored.

        Returns:
            The type of manifest that belongs to the task in `text`.

        Raises:
            ManifestError: The text is not a manifest, or its schema version is newer than this code supports.
        """
        return read_manifest(read_object(text, SCHEMA_VERSION))


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingManifest(Manifest):
    """Manifest of an embedding model, whose output is unit vectors."""

    task = Task.EMBED

    min_dimension: int
    """Smallest number of leading components that a client may keep."""
    end_token_id: int | None
    """Token id that ends every row exactly once; None if the tokenizer appends none."""
    prompts: Prompts
    """Prompt templates of queries and documents."""
    compact_outputs: tuple[CompactOutput, ...] = ()
    """Additional outputs, which are sent to clients that request them by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankManifest(Manifest):
    """Manifest of a reranker, whose output is the score of a query and a document."""

    task = Task.RERANK

    prompts: PairPrompts
    """Prompt template of a pair."""


def read_manifest(fields: Mapping[str, Any]) -> EmbeddingManifest | RerankManifest:
    """Create the manifest from the JSON object `fields`; raise ManifestError if it is malformed."""
    try:
        require_integers(fields, "dimension", "min_dimension", "max_tokens", "vocabulary_size")
        if fields.get("model_version") is not None:
            require_integers(fields, "model_version")
        nested = {
            "tokenizer": TokenizerIdentity(**known_fields(TokenizerIdentity, fields["tokenizer"])),
            "precision": Precision(str(fields["precision"])),
            "load": RecommendedLoad.from_field(fields.get("load")),
        }
        if Task(str(fields["task"])) is Task.RERANK:
            prompts = PairPrompts(**known_fields(PairPrompts, fields["prompts"]))
            return RerankManifest(**known_fields(RerankManifest, fields) | nested | {"prompts": prompts})
        texts = Prompts(**known_fields(Prompts, fields["prompts"]))
        compact = CompactOutput.from_field(fields.get("compact_outputs", ()))
        parsed = {"prompts": texts, "compact_outputs": compact}
        return EmbeddingManifest(**known_fields(EmbeddingManifest, fields) | nested | parsed)
    except (ValueError, TypeError, KeyError) as exc:
        raise ManifestError(
            f"malformed manifest of schema {fields.get('schema_version')}: {exc}; export the model again"
        ) from exc
