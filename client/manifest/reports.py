"""What an export measured on the model that it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .identities import SourceIdentity


class Verification(StrEnum):
    """How much of the written model an export compares with the reference."""

    FULL = "full"
    """Texts of up to `max_tokens`."""
    QUICK = "quick"
    """Texts of up to a length that follows from the size of the model alone."""
    NONE = "none"
    """Nothing."""

    @property
    def compares(self) -> bool:
        """Whether anything is compared."""
        return self is not Verification.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixRecord:
    """Tokens that rows begin with and whose states the model stores, so that it computes only those that follow."""

    text: str
    """The tokens as text."""
    tokens: int
    """Number of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeReport:
    """How much a merged adapter changes the weights, as ‖ΔW‖ / ‖W‖ in Frobenius norms, before any rounding."""

    adapter: str
    """Directory or hub id with its weight, as given by the user."""
    changed: int
    """Tensors that differ from the base."""
    unchanged: int
    """Tensors that the adapter has and that are equal to the base."""
    relative_change: float
    """Of all changed tensors together."""
    smallest: float
    """Of one tensor; 0 if there is an unchanged one. 1 is also the change of a tensor that the base does not have."""
    smallest_tensor: str
    largest: float
    largest_tensor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """Parity of a written embedding model, run by ONNX Runtime, with the official recipe in transformers fp32."""

    reference: str
    """Library and version that computed the reference."""
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
    """Parity of a written reranker, run by ONNX Runtime, with the official recipe in transformers fp32."""

    reference: str
    """Library and version that computed the reference."""
    runtime: str
    """ONNX Runtime version that ran the written file."""
    pairs: int
    longest_tokens: int
    min_score: float
    """Smallest and largest reference score. If they are close together, the other figures prove little."""
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
class WitnessReport:
    """Agreement of the reference with a library that read the same sources by its own code, both in fp32."""

    library: str
    """Library and version."""
    texts: int
    """Texts or pairs."""
    error: float
    """Largest 1 - cosine of a text's embeddings, or difference of a pair's scores."""
    tolerance: float
    """Largest allowed `error`."""

    @property
    def passed(self) -> bool:
        """Whether the error is within its tolerance; never with NaN."""
        return self.error <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecipe:
    """What a model computes besides its layers, as its sources state it."""

    causal: bool
    """Whether a token attends to no later one."""
    pooling: str
    """Such as `last-token pooling`; that of a reranker's score, too."""
    modules: tuple[str, ...] = ()
    """Descriptions of the Dense modules between pooling and L2 norm, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeReport:
    """How far the activations of a model in fp16 are from its largest number, 65,504."""

    residual_exponent: int
    """n: the residual stream is scaled by 2^-n."""
    mlp_exponent: int
    """n: activations inside the MLP are scaled by 2^-n."""
    headroom: float
    """Factor by which activations may exceed those of the texts and tokens that were tried."""
    texts: int
    """Probe texts."""
    tokens: int
    """Single tokens, those that stand out and some of the whole vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerErrors:
    """Error of one layer when a single group of its products is computed in 8 bits, over held-out texts.

    Root mean square over tokens of the change in the residual stream after the products, relative to the stream.
    Half the sum of all squares of a model is about its mean 1 − cosine.
    """

    qkv: float
    output: float
    gate_up: float
    down: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationReport:
    """How an int8 model was calibrated, and how far it is from fp32 over held-out texts."""

    calibration: SourceIdentity
    """`built-in`, or the file given, with the SHA-256 of its bytes."""
    calibration_texts: int
    held_out: ParityReport | ScoreParityReport | None
    """The written model against the reference; its tolerance is what the export had to meet. None without
    verification."""
    table_error: float
    """Error of 8-bit token embeddings, relative to the embeddings."""
    layer_errors: tuple[LayerErrors, ...]
    """First to last layer."""
    fp32_layers: tuple[str, ...]
    """Products that are computed in fp32, by their paths in the graph."""
    fp32_share: float
    """Share of the multiply-adds per token that these products have."""
    bytes: int
    """Size of the graph and its weights on disk."""
    fp32_bytes: int
    """Size of the same weights in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalReport:
    """Retrieval quality of the written model, and of the official recipe in transformers fp32."""

    evaluation: SourceIdentity
    """The folder given, with the SHA-256 of the digests of its corpus, queries and judgements."""
    reference: str
    """Library and version that computed the reference."""
    runtime: str
    """ONNX Runtime version that ran the written file."""
    queries: int
    """Queries with a relevant document, each in the query prompt with the default instruction."""
    documents: int
    reference_ndcg_at_10: float
    """In 0…1; gains are linear in the judgments, as in trec_eval."""
    ndcg_at_10: float
    """Of the written model."""
    ndcg_loss_tolerance: float | None = None
    """Largest allowed `ndcg_loss`; None if there is no limit."""

    @property
    def ndcg_loss(self) -> float:
        """How far the written model is below the reference; negative if it is above."""
        return self.reference_ndcg_at_10 - self.ndcg_at_10

    @property
    def passed(self) -> bool:
        """Whether the loss is within its tolerance; never with NaN."""
        return self.ndcg_loss_tolerance is None or self.ndcg_loss <= self.ndcg_loss_tolerance
