"""Named, seeded workloads: rows of token ids."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from qwen3_triton.client.manifest import Task

END_TOKEN_ID = 0
"""Last id of every row to embed, as the tokenizer of the benchmark checkpoint appends it."""


class Lengths(Protocol):
    """Text lengths in tokens."""

    @property
    def longest(self) -> int:
        """The longest that can come."""

    def draw(self, dice: random.Random) -> list[int]:
        """Every text's length, unordered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogNormal:
    """Log-normal lengths, with one text of either bound."""

    texts: int
    shortest: int
    longest: int
    median: float
    sigma: float = 0.6

    def draw(self, dice: random.Random) -> list[int]:
        """`texts` lengths, unordered."""
        drawn = [round(dice.lognormvariate(math.log(self.median), self.sigma)) for _ in range(self.texts - 2)]
        return [self.shortest, self.longest, *(min(self.longest, max(self.shortest, length)) for length in drawn)]


@dataclass(frozen=True, slots=True)
class OneText:
    """A single text."""

    longest: int

    def draw(self, dice: random.Random) -> list[int]:  # noqa: ARG002
        """Its length."""
        return [self.longest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Equal:
    """Texts of one length."""

    texts: int
    longest: int

    def draw(self, dice: random.Random) -> list[int]:  # noqa: ARG002
        """Every one's."""
        return [self.longest] * self.texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What every contender of a run answers: the same rows, in one go."""

    name: str
    seed: int
    lengths: Lengths
    passes: int = 1
    """Times over in each repetition: short texts take a few milliseconds, which one pass does not tell well."""

    one_at_a_time: bool = False
    """Whether memory is looked after between turns: attention over a long text may take gigabytes."""

    task: Task = Task.EMBED
    """Texts to embed, or passages to score for one query."""
    before: int = 0
    """Tokens that all rows of a reranker begin with: prompt, instruction and the query."""
    after: int = 0
    """Tokens that they end with: the rest of the prompt."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return self.before + self.lengths.longest + self.after

    def rows(self, vocabulary: int) -> list[list[int]]:
        """Token ids of each row, the same for the same seed everywhere; of a text to embed `END_TOKEN_ID` last."""
        dice = random.Random(self.seed)
        lengths = self.lengths.draw(dice)
        dice.shuffle(lengths)
        ids = range(1, vocabulary)
        if self.task is Task.EMBED:
            return [[*dice.choices(ids, k=length - 1), END_TOKEN_ID] for length in lengths]
        before, after = dice.choices(ids, k=self.before), dice.choices(ids, k=self.after)
        return [[*before, *dice.choices(ids, k=length), *after] for length in lengths]


_EQUAL = ((256, 16), (256, 64), (64, 256), (32, 512), (16, 1024), (4, 4096))
WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        workload.name: workload
        for workload in (
            Workload(name="mix", seed=776, lengths=LogNormal(texts=24, shortest=13, longest=173, median=60)),
            Workload(
                name="queries", seed=12, lengths=LogNormal(texts=32, shortest=12, longest=40, median=22, sigma=0.35)
            ),
            Workload(name="passages", seed=30, lengths=LogNormal(texts=24, shortest=30, longest=500, median=110)),
            Workload(
                name="long",
                seed=1024,
                lengths=LogNormal(texts=3, shortest=1024, longest=8192, median=2600),
                one_at_a_time=True,
            ),
            Workload(
                name="rerank",
                seed=50,
                lengths=LogNormal(texts=50, shortest=30, longest=500, median=110),
                task=Task.RERANK,
                # the official prefix with the default instruction and a query of 15 tokens; the official suffix
                before=72,
                after=9,
            ),
            Workload(name="text-20", seed=20, lengths=OneText(20), passes=20),
            Workload(name="text-200", seed=200, lengths=OneText(200), passes=5),
            Workload(name="text-2048", seed=2048, lengths=OneText(2048)),
            Workload(name="mix-256", seed=777, lengths=LogNormal(texts=256, shortest=13, longest=173, median=60)),
            *(
                Workload(name=f"{texts}-of-{tokens}", seed=tokens, lengths=Equal(texts=texts, longest=tokens))
                for texts, tokens in _EQUAL
            ),
            Workload(name="tiny", seed=1, lengths=LogNormal(texts=6, shortest=2, longest=24, median=8)),
            Workload(
                name="tiny-rerank",
                seed=2,
                lengths=LogNormal(texts=6, shortest=2, longest=24, median=8),
                task=Task.RERANK,
                before=4,
                after=2,
            ),
        )
    }
)
STANDARD = ("mix", "queries", "text-20", "text-200", "text-2048", "passages", "rerank", "long")
"""What a run measures unless it is asked for something else, the longest last."""
QUICK = ("tiny", "tiny-rerank")
"""What shows that the machinery works."""
GPU_STANDARD = ("mix", "mix-256", *(f"{texts}-of-{tokens}" for texts, tokens in _EQUAL))
"""What a run on a GPU measures unless it is asked for something else."""
SERVED = "mix"
"""What the server is loaded with, one text a request."""
