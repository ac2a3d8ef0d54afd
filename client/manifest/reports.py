"""What an export measured of the model that it wrote."""

from __future__ import annotations

from dataclasses import dataclass

from .identities import SourceIdentity


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
    min_batched_cosine: float
    """Smallest cosine between a text alone and the same text in a batch, over positions and paddings."""
    batched_bit_identical: bool
    cosine_tolerance: float
    """Largest allowed 1 - `min_cosine`."""
    batched_cosine_tolerance: float
    """Largest allowed 1 - `min_batched_cosine`."""

    @property
    def passed(self) -> bool:
        """Whether both cosines are within their tolerance; never with NaN."""
        return (
            1 - self.min_cosine <= self.cosine_tolerance
            and 1 - self.min_batched_cosine <= self.batched_cosine_tolerance
        )


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
    max_batched_score_error: float
    """Largest difference between a pair's score alone and in a batch, over positions and paddings."""
    batched_bit_identical: bool
    score_tolerance: float
    """Largest allowed `max_score_error`."""
    batched_score_tolerance: float
    """Largest allowed `max_batched_score_error`."""

    @property
    def passed(self) -> bool:
        """Whether both errors are within their tolerance; never with NaN."""
        return (
            self.max_score_error <= self.score_tolerance
            and self.max_batched_score_error <= self.batched_score_tolerance
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
    fp32_layers: tuple[str, ...]
    """Products that stayed in fp32, by their names in the graph."""
    fp32_share: float
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
    ndcg_loss_tolerance: float | None = None
    """What `ndcg_loss` may be; None where nobody asked."""

    @property
    def ndcg_loss(self) -> float:
        """By how much the written model is below the reference; negative where it is above."""
        return self.reference_ndcg_at_10 - self.ndcg_at_10

    @property
    def passed(self) -> bool:
        """Whether the loss is within its tolerance; never with NaN."""
        return self.ndcg_loss_tolerance is None or self.ndcg_loss <= self.ndcg_loss_tolerance
