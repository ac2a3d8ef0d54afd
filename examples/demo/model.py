"""Configuration of the demo model, its forward pass to vectors, and an embedder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import Qwen3Config, Qwen3Model

from examples.demo.batches import TokenBatch, pad
from examples.demo.evaluation import FloatArray
from examples.demo.tasks import DemoTask
from examples.demo.tokenizer import end_token_id

VOCABULARY_ROWS = 8192
_ROWS_AT_ONCE = 64


def new_model(seed: int) -> Qwen3Model:
    """Return an untrained model; 6 query heads × 64 ≠ hidden 256, two query heads per key head, tied embeddings."""
    torch.manual_seed(seed)
    config = Qwen3Config(  # type: ignore[call-arg]
        vocab_size=VOCABULARY_ROWS,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        use_cache=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        attn_implementation="eager",
    )
    return Qwen3Model(config)


def last_token_vectors(model: nn.Module, batch: TokenBatch) -> Tensor:
    """Return the final hidden state of each row's last token, float32 [B, D], not normalized."""
    hidden = model(input_ids=batch.ids, use_cache=False).last_hidden_state
    picked: Tensor = hidden[torch.arange(len(batch.last)), batch.last]
    return picked.float()


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedder:
    """Embeds texts with transformers, in the precision of the model."""

    model: nn.Module
    tokenizer: Tokenizer

    def embed_documents(self, texts: Sequence[str]) -> FloatArray:
        """Return unit vectors of texts without prompt, float32 [n, D]."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        vectors = np.empty((len(rows), 0), np.float32)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            chosen = order[start : start + _ROWS_AT_ONCE]
            found = self._embed([rows[index] for index in chosen])
            if not vectors.shape[1]:
                vectors = np.empty((len(rows), found.shape[1]), np.float32)
            vectors[chosen] = found
        return vectors

    def embed_queries(self, texts: Sequence[str], task: DemoTask) -> FloatArray:
        """Return unit vectors of texts with the prompt of `task`, float32 [n, D]."""
        return self.embed_documents([task.prompt + text for text in texts])

    @torch.inference_mode()
    def _embed(self, rows: list[list[int]]) -> FloatArray:
        self.model.eval()
        batch = pad(rows, end_token_id(self.tokenizer))
        return np.asarray(normalize(last_token_vectors(self.model, batch), dim=-1).numpy(), np.float32)
