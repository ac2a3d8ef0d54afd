"""Which task a checkpoint was made for."""

from __future__ import annotations

from .checkpoint import Checkpoint
from .errors import UnsupportedCheckpoint
from .options import TaskChoice
from .tokenizer import CheckpointTokenizer


def require_embedding(checkpoint: Checkpoint, tokenizer: CheckpointTokenizer, choice: TaskChoice) -> None:
    """Raises UnsupportedCheckpoint where an `auto` export meets what looks like a reranker.

    Signs of one: a classification head, or a causal LM whose tokenizer appends no end token.
    """
    if choice is TaskChoice.EMBED:
        return
    architecture = checkpoint.config.architecture
    causal = architecture == "Qwen3ForCausalLM" and tokenizer.end_token_id is None
    if architecture == "Qwen3ForSequenceClassification" or "score.weight" in checkpoint.weights or causal:
        raise UnsupportedCheckpoint(
            f"{checkpoint.source}: looks like a reranker ({architecture}), and this version exports embedding "
            "models; give --task embed to use its decoder for embeddings"
        )
