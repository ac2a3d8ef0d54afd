"""Record of an export: manifest, sources and reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ManifestError
from .fields import as_list, as_object, known_fields, read_object
from .identities import Provenance, SourceIdentity
from .model_manifest import SCHEMA_VERSION, EmbeddingManifest, RerankManifest, read_manifest
from .reports import (
    LayerErrors,
    MergeReport,
    ModelRecipe,
    ParityReport,
    PrefixRecord,
    QuantizationReport,
    RangeReport,
    RetrievalReport,
    ScoreParityReport,
    Verification,
    WitnessReport,
)
from .wire import Device, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """Content of `manifest.json`. Clients need only `manifest`, of which `config.pbtxt` has a copy."""

    manifest: EmbeddingManifest | RerankManifest
    """What clients need to know of the model."""
    device: Device = Device.CPU
    """Device that the graph is built for."""
    triton_release: str | None = None
    """Release of NVIDIA's Triton image that a graph for GPUs needs, such as `25.11`; None for a CPU."""
    checkpoint: SourceIdentity
    """The checkpoint that was exported."""
    adapters: tuple[SourceIdentity, ...] = ()
    """LoRA adapters merged into the checkpoint, in order."""
    merges: tuple[MergeReport, ...] = ()
    """How much each adapter changes, in the same order; empty if the exporting version did not measure it."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Tokenizer, modules, prompts and length limit → the file of checkpoint or adapter that they are from; an adapter →
    the model that it was trained on, if that is another than the checkpoint."""
    recipe: ModelRecipe | None = None
    """Attention, pooling and what follows it; None if the exporting version did not record it."""
    prefixes: tuple[PrefixRecord, ...] = ()
    """Prefixes whose states the model stores, by length."""
    verification: Verification | None = None
    """How much was compared with the reference; None if the exporting version did not record it."""
    parity: ParityReport | ScoreParityReport | None
    """Comparison with the fp32 reference; None without verification."""
    witness: WitnessReport | None = None
    """Comparison of the reference with another library; None if there was none."""
    fp16_range: RangeReport | None = None
    """Present for models that compute in fp16."""
    quantization: QuantizationReport | None = None
    """Present for int8 models for a CPU."""
    retrieval: RetrievalReport | None = None
    """Present for embedding models that were exported with a retrieval set."""
    provenance: Provenance | None = None
    """None if the exporting version did not record it."""

    @property
    def verified_tokens(self) -> int:
        """Tokens of the longest text that was compared with the reference; 0 if none was."""
        return 0 if self.parity is None else self.parity.longest_tokens

    def to_json(self) -> str:
        """Return one JSON object that has the fields of the manifest next to the others; see `from_json`."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name != "manifest"}
        return json.dumps(self.manifest.to_fields() | fields, ensure_ascii=False, indent=2)

    @staticmethod
    def from_json(text: str) -> ExportRecord:
        """Parse the JSON text of a `manifest.json`; unknown fields are ignored.

        Raises:
            ManifestError: The text is not a manifest, or its schema version is newer than this code supports.
        """
        fields = read_object(text, SCHEMA_VERSION)
        manifest = read_manifest(fields)
        report = ScoreParityReport if manifest.task is Task.RERANK else ParityReport
        try:
            return ExportRecord(**known_fields(ExportRecord, fields) | _nested(fields, report) | {"manifest": manifest})
        except (ValueError, TypeError, KeyError) as exc:
            raise ManifestError(
                f"malformed manifest of schema {manifest.schema_version}: {exc}; export the model again"
            ) from exc


def _nested(fields: Mapping[str, Any], report: type[ParityReport] | type[ScoreParityReport]) -> dict[str, object]:
    quantization, retrieval = fields.get("quantization"), fields.get("retrieval")
    provenance, witness, fp16_range = (fields.get(name) for name in ("provenance", "witness", "fp16_range"))
    verification, parity, recipe = fields.get("verification"), fields["parity"], fields.get("recipe")
    return {
        "device": Device(str(fields.get("device", Device.CPU))),
        "checkpoint": _source(fields["checkpoint"]),
        "adapters": tuple(_source(adapter) for adapter in as_list(fields, "adapters")),
        "merges": tuple(
            MergeReport(**known_fields(MergeReport, merge)) for merge in as_list({"merges": [], **fields}, "merges")
        ),
        "origins": {
            name: origin for name, origin in as_object(fields.get("origins", {})).items() if isinstance(origin, str)
        },
        "recipe": None if recipe is None else _recipe(recipe),
        "prefixes": tuple(
            PrefixRecord(**known_fields(PrefixRecord, prefix))
            for prefix in as_list({"prefixes": [], **fields}, "prefixes")
        ),
        "verification": None if verification is None else Verification(str(verification)),
        "parity": None if parity is None else report(**known_fields(report, parity)),
        "witness": None if witness is None else WitnessReport(**known_fields(WitnessReport, witness)),
        "fp16_range": None if fp16_range is None else RangeReport(**known_fields(RangeReport, fp16_range)),
        "quantization": None if quantization is None else _quantization(quantization, report),
        "retrieval": None if retrieval is None else _retrieval(retrieval),
        "provenance": None if provenance is None else _provenance(provenance),
    }


def _source(value: object) -> SourceIdentity:
    return SourceIdentity(**known_fields(SourceIdentity, value))


def _recipe(value: object) -> ModelRecipe:
    fields = known_fields(ModelRecipe, value)
    return ModelRecipe(**fields | {"modules": tuple(map(str, as_list({"modules": [], **fields}, "modules")))})


def _quantization(value: object, report: type[ParityReport] | type[ScoreParityReport]) -> QuantizationReport:
    fields = known_fields(QuantizationReport, value)
    held_out = fields["held_out"]
    nested = {
        "calibration": _source(fields["calibration"]),
        "held_out": None if held_out is None else report(**known_fields(report, held_out)),
        "layer_errors": tuple(
            LayerErrors(**known_fields(LayerErrors, layer)) for layer in as_list(fields, "layer_errors")
        ),
        "fp32_layers": tuple(str(name) for name in as_list(fields, "fp32_layers")),
    }
    return QuantizationReport(**fields | nested)


def _provenance(value: object) -> Provenance:
    fields = known_fields(Provenance, value)
    for name in ("packages", "options", "files"):
        as_object(fields[name])
    return Provenance(**fields)


def _retrieval(value: object) -> RetrievalReport:
    fields = known_fields(RetrievalReport, value)
    return RetrievalReport(**fields | {"evaluation": _source(fields["evaluation"])})
