"""The contract itself, and its JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ContractMismatch
from .identities import SourceIdentity, TokenizerIdentity
from .reports import LayerErrors, ParityReport, QuantizationReport, RetrievalReport, ScoreParityReport
from .templates import PairPrompts, Prompts
from .wire import Device, Precision, Task

SCHEMA_VERSION = 1
"""Version of the JSON below; a client refuses a newer one."""


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
