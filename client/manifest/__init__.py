"""Manifest of an exported model: the schema that the exporter and the clients share.

`config.pbtxt` contains the manifest as JSON in its `parameters`, where clients read it from the server. `manifest.json`
has the same fields, and also the sources and the reports of the export, which clients do not parse.
"""

from .compact_output import CompactOutput, OutputType
from .export_record import ExportRecord
from .folder import ModelFolder, VersionDescription
from .identities import Provenance, SourceIdentity, TokenizerIdentity
from .load import RecommendedLoad
from .model_manifest import SCHEMA_VERSION, EmbeddingManifest, Manifest, RerankManifest
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
from .templates import PairPrompts, Prompts, fill_template
from .wire import (
    INPUT_IDS,
    LOST_ROW_BITS,
    MANIFEST_PARAMETER,
    PADDING_ID,
    REQUEST_LENGTHS,
    ROW_LENGTHS,
    ROW_STATUS,
    TOKEN_BUDGET_PARAMETER,
    Device,
    Precision,
    RowStatus,
    Task,
)

__all__ = [
    "INPUT_IDS",
    "LOST_ROW_BITS",
    "MANIFEST_PARAMETER",
    "PADDING_ID",
    "REQUEST_LENGTHS",
    "ROW_LENGTHS",
    "ROW_STATUS",
    "SCHEMA_VERSION",
    "TOKEN_BUDGET_PARAMETER",
    "CompactOutput",
    "Device",
    "EmbeddingManifest",
    "ExportRecord",
    "LayerErrors",
    "Manifest",
    "MergeReport",
    "ModelFolder",
    "ModelRecipe",
    "OutputType",
    "PairPrompts",
    "ParityReport",
    "Precision",
    "PrefixRecord",
    "Prompts",
    "Provenance",
    "QuantizationReport",
    "RangeReport",
    "RecommendedLoad",
    "RerankManifest",
    "RetrievalReport",
    "RowStatus",
    "ScoreParityReport",
    "SourceIdentity",
    "Task",
    "TokenizerIdentity",
    "Verification",
    "VersionDescription",
    "WitnessReport",
    "fill_template",
]
