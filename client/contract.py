"""The wire contract: what an exported model says of itself, as data that both sides share.

The same JSON stands in `manifest.json` and in the `parameters` of `config.pbtxt`; the exporter writes
it and the client reads it from the server, so nothing about a model is typed twice.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from .errors import ContractMismatch

SCHEMA_VERSION = 1
"""Version of the JSON below; a client refuses a newer one."""

CONTRACT_PARAMETER = "contract"
"""Key of the JSON in the `parameters` of `config.pbtxt`."""

INPUT_IDS = "input_ids"
"""INT64 `[rows, width]` on the wire: token ids, a negative id is padding wherever it stands."""

ROW_LENGTHS = "row_lengths"
"""INT32 `[rows]`, added by Triton: the width of each row of the batch."""

PADDING_ID = -1
"""What this project's client pads with; every negative id means the same."""


class Task(StrEnum):
    """What a model answers with."""

    EMBED = "embed"
    RERANK = "rerank"

    @property
    def output(self) -> str:
        """Name of the FP32 output: `embedding` `[rows, D]` or `score` `[rows, 1]`."""
        return "embedding" if self is Task.EMBED else "score"


class Device(StrEnum):
    """Where the model runs."""

    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Number format of the weights inside the graph; the output is FP32 in every one."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    """On GPUs only."""
    INT8 = "int8"
    """On a CPU 8-bit weights and activations, a scale for each weight row and for each token; on a GPU 8-bit
    weights in blocks under fp16 activations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerIdentity:
    """Which `tokenizer.json` turns text into the ids that the model was trained on."""

    sha256: str
    origin: str
    """Hub id or directory that the file came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Text around a query and around a document.

    `{text}` stands for the caller's text and `{instruction}` for the task description; everything else
    is literal. A template without `{instruction}` takes none.
    """

    query: str
    document: str
    default_instruction: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPrompts:
    """Text around a query and a document that a reranker judges together.

    `body` holds `{query}` and `{document}` and may hold `{instruction}`; everything else is literal. A row is the
    token ids of `prefix`, of the filled body and of `suffix`, each tokenised by itself without special
    tokens of the tokenizer's own. The body is cut where a row gets too long, the suffix never.
    """

    prefix: str
    body: str
    suffix: str
    default_instruction: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceIdentity:
    """A checkpoint or adapter that went into the model."""

    reference: str
    """As given on the command line: directory or hub id, with `@revision` where given."""
    sha256: str
    """Of its weight files' digests, in the order of their names."""
    weight: float = 1.0
    """What an adapter was multiplied with."""


MIN_COMPANY_COSINE = 0.99999
"""A text's vector alone and in any company agree to at least this, except in bf16."""
MAX_COMPANY_SCORE_ERROR = 1e-3
"""A pair's score alone and in any company differ by at most this, except in bf16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """The written model, run by ONNX Runtime, against the official recipe in transformers fp32."""

    reference: str
    """Library and version that computed the truth."""
    runtime: str
    """ONNX Runtime version that ran the written file."""
    texts: int
    longest_tokens: int
    min_cosine: float
    mean_cosine: float
    max_abs_error: float
    """Largest difference of one vector component."""
    min_company_cosine: float
    """Smallest cosine between a text alone and the same text in a batch, over positions and paddings."""
    company_bit_identical: bool
    gate_min_cosine: float
    """What `min_cosine` had to reach."""
    gate_min_company_cosine: float = MIN_COMPANY_COSINE
    """What `min_company_cosine` had to reach."""

    @property
    def passed(self) -> bool:
        """Whether both gates hold; NaN never does."""
        return self.min_cosine >= self.gate_min_cosine and self.min_company_cosine >= self.gate_min_company_cosine


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreParityReport:
    """The written reranker, run by ONNX Runtime, against the official recipe in transformers fp32."""

    reference: str
    """Library and version that computed the truth."""
    runtime: str
    """ONNX Runtime version that ran the written file."""
    pairs: int
    longest_tokens: int
    min_score: float
    """Smallest and largest true score: where they lie close together the other figures prove little."""
    max_score: float
    max_score_error: float
    mean_score_error: float
    max_company_error: float
    """Largest difference between a pair's score alone and in a batch, over positions and paddings."""
    company_bit_identical: bool
    gate_max_score_error: float
    """What `max_score_error` may be."""
    gate_max_company_error: float = MAX_COMPANY_SCORE_ERROR
    """What `max_company_error` may be."""

    @property
    def passed(self) -> bool:
        """Whether both gates hold; NaN never does."""
        return (
            self.max_score_error <= self.gate_max_score_error and self.max_company_error <= self.gate_max_company_error
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerErrors:
    """What 8 bits in single products of one layer do, over texts that were not calibrated with.

    Root mean square over tokens of the change in the residual stream behind them, relative to the stream.
    Half the sum of the squares of a model is about its mean 1 − cosine.
    """

    qkv: float
    output: float
    gate_up: float
    down: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationReport:
    """How an int8 model came about, and how far from fp32 it is over texts that it was not calibrated with."""

    calibration: SourceIdentity
    """`built-in`, or the file given, with the SHA-256 of its bytes."""
    calibration_texts: int
    held_out: ParityReport | ScoreParityReport
    """The written model against the reference; its gate is what the export had to hold."""
    table_error: float
    """Of 8-bit token embeddings, relative to them."""
    layer_errors: tuple[LayerErrors, ...]
    """First to last layer."""
    kept: tuple[str, ...]
    """Products that stayed in fp32, by their names in the graph."""
    kept_share: float
    """Multiply-adds a token that these are, of all products'."""
    bytes: int
    """Of the graph and its weights on disk."""
    fp32_bytes: int
    """Of the same weights in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalReport:
    """What the written model finds of a retrieval set, beside the official recipe in transformers fp32."""

    evaluation: SourceIdentity
    """The folder given, with the SHA-256 of the digests of its corpus, queries and judgements."""
    reference: str
    """Library and version that computed the truth."""
    runtime: str
    """ONNX Runtime version that ran the written file."""
    queries: int
    """Those that have a relevant document, each in the query prompt with the default instruction."""
    documents: int
    reference_ndcg_at_10: float
    """In 0…1, gains linear in the judgements, as trec_eval has them."""
    ndcg_at_10: float
    """Of the written model."""
    gate_max_ndcg_loss: float | None = None
    """What `ndcg_loss` may be; None where nobody asked."""

    @property
    def ndcg_loss(self) -> float:
        """By how much the written model is below the reference; negative where it is above."""
        return self.reference_ndcg_at_10 - self.ndcg_at_10

    @property
    def passed(self) -> bool:
        """Whether the gate holds; NaN never does."""
        return self.gate_max_ndcg_loss is None or self.ndcg_loss <= self.gate_max_ndcg_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Everything that a caller must know of a model, whatever its task."""

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
    device: Device = Device.CPU
    triton_release: str | None = None
    """Image that the operators of a graph for GPUs were chosen for; None for a CPU."""
    checkpoint: SourceIdentity
    adapters: tuple[SourceIdentity, ...] = ()
    parity: ParityReport | ScoreParityReport
    quantization: QuantizationReport | None = None
    """Of an int8 model for a CPU."""
    retrieval: RetrievalReport | None = None
    """Of an embedding model that was exported with a retrieval set."""

    def to_json(self) -> str:
        """The contract as JSON text that `from_json` reads back to an equal value."""
        return json.dumps({"task": self.task} | dataclasses.asdict(self), ensure_ascii=False, indent=2)

    @staticmethod
    def from_json(text: str) -> EmbeddingContract | RerankContract:
        """The contract in `text`, of the kind that its task says.

        Raises ContractMismatch where it is no contract or of a newer schema than this code reads.
        """
        try:
            fields = json.loads(text)
            version = fields["schema_version"]
        except (ValueError, TypeError, KeyError) as exc:
            raise ContractMismatch(f"not a qwen3-triton contract: {exc}") from exc
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise ContractMismatch(
                f"the model speaks contract schema {version}, this client reads up to {SCHEMA_VERSION}: "
                "upgrade qwen3-triton"
            )
        try:
            return _typed(fields)
        except (ValueError, TypeError, KeyError) as exc:
            raise ContractMismatch(f"malformed contract of schema {version}: {exc}") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingContract(Contract):
    """The contract of a model that answers with unit vectors."""

    task = Task.EMBED

    min_dimension: int
    """Smallest number of leading components that may be asked for."""
    end_token_id: int | None
    """Id that stands exactly once at the end of every row; None where the tokenizer appends none."""
    prompts: Prompts
    parity: ParityReport


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankContract(Contract):
    """The contract of a model that answers with the score of a query and a document."""

    task = Task.RERANK

    prompts: PairPrompts
    parity: ScoreParityReport


def _typed(fields: Mapping[str, Any]) -> EmbeddingContract | RerankContract:
    """The contract that the fields of the JSON make, the nested ones as their dataclasses and enums."""
    nested = {key: value for key, value in fields.items() if key != "task"}
    for key in ("dimension", "min_dimension", "max_tokens", "vocabulary_size"):
        if key in fields and type(fields[key]) is not int:
            raise TypeError(f"{key} is {fields[key]!r}, not a whole number")
    if not isinstance(fields["adapters"], list):
        raise TypeError("adapters is no list")
    nested["precision"] = Precision(str(fields["precision"]))
    nested["device"] = Device(str(fields.get("device", Device.CPU)))
    nested["tokenizer"] = TokenizerIdentity(**_mapping(fields["tokenizer"]))
    nested["checkpoint"] = SourceIdentity(**_mapping(fields["checkpoint"]))
    nested["adapters"] = tuple(SourceIdentity(**_mapping(adapter)) for adapter in fields["adapters"])
    prompts, parity = _mapping(fields["prompts"]), _mapping(fields["parity"])
    is_reranker = Task(str(fields["task"])) is Task.RERANK
    report = ScoreParityReport if is_reranker else ParityReport
    if fields.get("quantization") is not None:
        nested["quantization"] = _quantization(_mapping(fields["quantization"]), report)
    if fields.get("retrieval") is not None:
        nested["retrieval"] = _retrieval(_mapping(fields["retrieval"]))
    if is_reranker:
        return RerankContract(**nested | {"prompts": PairPrompts(**prompts), "parity": ScoreParityReport(**parity)})
    return EmbeddingContract(**nested | {"prompts": Prompts(**prompts), "parity": ParityReport(**parity)})


def _quantization(
    fields: Mapping[str, Any], report: type[ParityReport] | type[ScoreParityReport]
) -> QuantizationReport:
    if not isinstance(fields["layer_errors"], list) or not isinstance(fields["kept"], list):
        raise TypeError("layer_errors or kept is no list")
    nested = dict(fields)
    nested["calibration"] = SourceIdentity(**_mapping(fields["calibration"]))
    nested["held_out"] = report(**_mapping(fields["held_out"]))
    nested["layer_errors"] = tuple(LayerErrors(**_mapping(layer)) for layer in fields["layer_errors"])
    nested["kept"] = tuple(str(name) for name in fields["kept"])
    return QuantizationReport(**nested)


def _retrieval(fields: Mapping[str, Any]) -> RetrievalReport:
    evaluation = SourceIdentity(**_mapping(fields["evaluation"]))
    return RetrievalReport(**dict(fields) | {"evaluation": evaluation})


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """Paths of one deployed model: `<repository>/<name>/`."""

    path: Path

    @property
    def config(self) -> Path:
        """Triton's configuration."""
        return self.path / "config.pbtxt"

    @property
    def manifest(self) -> Path:
        """The contract, as JSON."""
        return self.path / "manifest.json"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that the contract names by hash."""
        return self.path / "tokenizer.json"

    def graph(self, version: int) -> Path:
        """The ONNX file of a version; its weights lie beside it in `model.onnx.data`."""
        return self.path / str(version) / "model.onnx"

    def versions(self) -> list[int]:
        """Version numbers present, ascending; empty where the folder does not exist."""
        if not self.path.is_dir():
            return []
        names = (entry.name for entry in self.path.iterdir() if entry.is_dir())
        return sorted(int(name) for name in names if name.isdigit() and not name.startswith("0"))
