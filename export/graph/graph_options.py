"""What graph to build."""

from __future__ import annotations

from dataclasses import dataclass

from ...client.manifest import CompactOutput, Task
from ..formats import WeightFormat
from ..passes.rescale import NO_RESCALE, Rescale
from ..sources.embedding_head import LAST_TOKEN_HEAD, EmbeddingHead
from .cuda_profile import CudaProfile
from .prefixes import NO_PREFIXES, StoredPrefixes


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """Options of `write_graph`."""

    task: Task = Task.EMBED
    """Embeddings or scores."""
    format: WeightFormat
    """How weights are stored and products computed; see `weight_format`."""
    max_tokens: int
    """Longest row; a longer one returns NaN."""
    head: EmbeddingHead = LAST_TOKEN_HEAD
    """Head of an embedding model."""
    rescale: Rescale = NO_RESCALE
    """Power-of-two rescale that was applied to the weights."""
    cuda: CudaProfile | None = None
    """Profile of a GPU graph; None for a CPU graph."""
    prefixes: StoredPrefixes = NO_PREFIXES
    """Token ids that rows begin with and whose states the graph stores; none in a GPU graph, in one with bidirectional
    attention and in one with mean pooling."""
    compact_outputs: tuple[CompactOutput, ...] = ()
    """Additional outputs of an embedding model."""
    shares_beginnings: bool = False
    """Whether rows of a batch that begin alike compute these tokens once; never in a GPU graph, in one with
    bidirectional attention and in one with mean pooling."""
