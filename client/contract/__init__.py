"""The wire contract: what an exported model says of itself, as data that both sides share.

The same JSON stands in `manifest.json` and in the `parameters` of `config.pbtxt`; the exporter writes
it and the client reads it from the server, so nothing about a model is typed twice.
"""

from .document import SCHEMA_VERSION, Contract, EmbeddingContract, RerankContract
from .folder import ModelFolder
from .identities import SourceIdentity, TokenizerIdentity
from .reports import (
    MAX_COMPANY_SCORE_ERROR,
    MIN_COMPANY_COSINE,
    LayerErrors,
    ParityReport,
    QuantizationReport,
    RetrievalReport,
    ScoreParityReport,
)
from .templates import PairPrompts, Prompts
from .wire import (
    CONTRACT_PARAMETER,
    INPUT_IDS,
    LOST_ROW_BITS,
    PADDING_ID,
    REQUEST_LENGTHS,
    ROW_LENGTHS,
    TOKEN_BUDGET_PARAMETER,
    Device,
    Precision,
    Task,
)

__all__ = [
    "CONTRACT_PARAMETER",
    "INPUT_IDS",
    "LOST_ROW_BITS",
    "MAX_COMPANY_SCORE_ERROR",
    "MIN_COMPANY_COSINE",
    "PADDING_ID",
    "REQUEST_LENGTHS",
    "ROW_LENGTHS",
    "SCHEMA_VERSION",
    "TOKEN_BUDGET_PARAMETER",
    "Contract",
    "Device",
    "EmbeddingContract",
    "LayerErrors",
    "ModelFolder",
    "PairPrompts",
    "ParityReport",
    "Precision",
    "Prompts",
    "QuantizationReport",
    "RerankContract",
    "RetrievalReport",
    "ScoreParityReport",
    "SourceIdentity",
    "Task",
    "TokenizerIdentity",
]
