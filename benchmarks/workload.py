"""Named, seeded workloads: a model's shape and rows of token ids."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

END_TOKEN_ID = 0
"""Last id of every row, as the tokenizer of the benchmark checkpoint appends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Shape of the Qwen3 decoder that a workload runs on."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    def products(self) -> dict[str, tuple[int, int]]:
        """(inner, columns) of a layer's products by name, q, k and v as one."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "qkv": (self.hidden, query + 2 * key),
            "output": (query, self.hidden),
            "gate_up": (self.hidden, 2 * self.intermediate),
            "down": (self.intermediate, self.hidden),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Log-normal text lengths in tokens, with one text of either bound."""

    texts: int
    shortest: int
    longest: int
    median: float
    sigma: float = 0.6

    def draw(self, dice: random.Random) -> list[int]:
        """`texts` lengths, unordered."""
        drawn = [round(dice.lognormvariate(math.log(self.median), self.sigma)) for _ in range(self.texts - 2)]
        return [self.shortest, self.longest, *(min(self.longest, max(self.shortest, length)) for length in drawn)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What every contender of a run embeds: the same model, the same rows, in one go."""

    name: str
    seed: int
    shape: ModelShape
    lengths: Lengths

    def rows(self) -> list[list[int]]:
        """Token ids of each text, `END_TOKEN_ID` last; the same for the same seed everywhere."""
        dice = random.Random(self.seed)
        lengths = self.lengths.draw(dice)
        dice.shuffle(lengths)
        ids = range(1, self.shape.vocabulary)
        return [[*dice.choices(ids, k=length - 1), END_TOKEN_ID] for length in lengths]


_WIDTH_0_6B = {"hidden": 1024, "intermediate": 3072, "heads": 16, "kv_heads": 8, "head_dim": 128}

WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        workload.name: workload
        for workload in (
            Workload(
                name="mix",
                seed=776,
                shape=ModelShape(layers=4, vocabulary=8192, **_WIDTH_0_6B),
                lengths=Lengths(texts=24, shortest=13, longest=173, median=60),
            ),
            Workload(
                name="tiny",
                seed=1,
                shape=ModelShape(
                    layers=2, hidden=64, intermediate=128, heads=4, kv_heads=2, head_dim=32, vocabulary=512
                ),
                lengths=Lengths(texts=6, shortest=2, longest=24, median=8),
            ),
        )
    }
)
