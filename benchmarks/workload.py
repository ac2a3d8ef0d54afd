"""Named workloads: rows of random token ids with fixed seeds, in the default prompts of queries and rerankers."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from qwen3_triton.client.manifest import Task

from .prompts import PAIR_PREFIX, PAIR_SEPARATOR, PAIR_SUFFIX, QUERY_PREFIX, fit_vocabulary

END_TOKEN_ID = 0
"""End token of the benchmark checkpoint's byte-level tokenizer, the last id of every row to embed."""


class LengthDistribution(Protocol):
    """Distribution of text lengths in tokens."""

    @property
    def longest(self) -> int:
        """Largest possible length."""

    def draw(self, rng: random.Random) -> list[int]:
        """Draw the lengths of all texts, in no particular order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogNormalLengths:
    """Log-normal lengths clipped to `shortest` and `longest`, with at least one text of each bound."""

    texts: int
    shortest: int
    longest: int
    median: float
    sigma: float = 0.6

    def draw(self, rng: random.Random) -> list[int]:
        """Draw `texts` lengths, in no particular order."""
        drawn = [round(rng.lognormvariate(math.log(self.median), self.sigma)) for _ in range(self.texts - 2)]
        return [self.shortest, self.longest, *(min(self.longest, max(self.shortest, length)) for length in drawn)]


@dataclass(frozen=True, slots=True)
class SingleLength:
    """A single text."""

    longest: int

    def draw(self, rng: random.Random) -> list[int]:  # noqa: ARG002
        """Return its length."""
        return [self.longest]


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualLengths:
    """Texts of equal length."""

    texts: int
    longest: int

    def draw(self, rng: random.Random) -> list[int]:  # noqa: ARG002
        """Return the lengths of all texts."""
        return [self.longest] * self.texts


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadPrompt:
    """Tokens that all rows of a workload have in common, around their own."""

    prefix: tuple[int, ...] = ()
    """First ids of every row."""
    query_tokens: int = 0
    """Tokens of the query of a reranker, which follows the prefix."""
    separator: tuple[int, ...] = ()
    """Ids between query and passage of a reranker."""
    suffix: tuple[int, ...] = ()
    """Last ids of every row of a reranker."""

    @property
    def shared_tokens(self) -> int:
        """Tokens with which every row begins."""
        return len(self.prefix) + self.query_tokens + len(self.separator)


_QUERY_PROMPT = WorkloadPrompt(prefix=QUERY_PREFIX)
_PAIR_PROMPT = WorkloadPrompt(prefix=PAIR_PREFIX, query_tokens=15, separator=PAIR_SEPARATOR, suffix=PAIR_SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Rows that every contender of a run processes."""

    name: str
    seed: int
    lengths: LengthDistribution
    passes: int = 1
    """Passes per repetition; several for short texts, whose passes take only milliseconds."""
    release_between_runs: bool = False
    """Whether engines release memory after each run: attention over a long text may take gigabytes."""
    task: Task = Task.EMBED
    """Texts to embed, or passages to score for one query."""
    prompt: WorkloadPrompt = WorkloadPrompt()
    """What all rows have in common."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return self.prompt.shared_tokens + self.lengths.longest + len(self.prompt.suffix)

    def rows(self, vocabulary: int) -> list[list[int]]:
        """Draw the rows, which depend only on the seed; rows to embed end with `END_TOKEN_ID`."""
        rng = random.Random(self.seed)
        lengths = self.lengths.draw(rng)
        rng.shuffle(lengths)
        ids, prompt = range(1, vocabulary), self.prompt
        before, separator, suffix = (
            fit_vocabulary(part, vocabulary) for part in (prompt.prefix, prompt.separator, prompt.suffix)
        )
        shared = [*before, *rng.choices(ids, k=prompt.query_tokens), *separator]
        if self.task is Task.EMBED:
            return [[*shared, *rng.choices(ids, k=length - 1), END_TOKEN_ID] for length in lengths]
        return [[*shared, *rng.choices(ids, k=length), *suffix] for length in lengths]


_EQUAL = ((256, 16), (256, 64), (64, 256), (32, 512), (16, 1024), (4, 4096))
WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        workload.name: workload
        for workload in (
            Workload(name="mix", seed=776, lengths=LogNormalLengths(texts=24, shortest=13, longest=173, median=60)),
            Workload(
                name="queries",
                seed=12,
                lengths=LogNormalLengths(texts=32, shortest=4, longest=21, median=9, sigma=0.4),
                prompt=_QUERY_PROMPT,
            ),
            Workload(
                name="passages", seed=30, lengths=LogNormalLengths(texts=24, shortest=30, longest=500, median=110)
            ),
            Workload(
                name="long",
                seed=1024,
                lengths=LogNormalLengths(texts=3, shortest=1024, longest=8192, median=2600),
                release_between_runs=True,
            ),
            Workload(
                name="rerank",
                seed=50,
                lengths=LogNormalLengths(texts=50, shortest=30, longest=500, median=110),
                task=Task.RERANK,
                prompt=_PAIR_PROMPT,
            ),
            Workload(name="text-20", seed=20, lengths=SingleLength(20), passes=20),
            Workload(name="text-200", seed=200, lengths=SingleLength(200), passes=5),
            Workload(name="text-2048", seed=2048, lengths=SingleLength(2048)),
            Workload(
                name="mix-256", seed=777, lengths=LogNormalLengths(texts=256, shortest=13, longest=173, median=60)
            ),
            *(
                Workload(name=f"{texts}-of-{tokens}", seed=tokens, lengths=EqualLengths(texts=texts, longest=tokens))
                for texts, tokens in _EQUAL
            ),
            Workload(name="tiny", seed=1, lengths=LogNormalLengths(texts=6, shortest=2, longest=24, median=8)),
            Workload(
                name="tiny-rerank",
                seed=2,
                lengths=LogNormalLengths(texts=6, shortest=2, longest=24, median=8),
                task=Task.RERANK,
                prompt=_PAIR_PROMPT,
            ),
        )
    }
)
STANDARD = ("mix", "queries", "text-20", "text-200", "text-2048", "passages", "rerank", "long")
"""Default workloads, the most expensive last."""
QUICK = ("tiny", "tiny-rerank")
"""Workloads of a quick run, which only tests the benchmark itself."""
_FIRST_EQUAL = "256-of-64"
GPU_STANDARD = (
    "mix",
    _FIRST_EQUAL,
    "text-20",
    *(name for name in (f"{texts}-of-{tokens}" for texts, tokens in _EQUAL) if name != _FIRST_EQUAL),
    "mix-256",
)
"""Default workloads of a run on a GPU, the most important first, so that an interrupted run has them."""
SERVED = "mix"
"""Workload of the part serving, with one text per request."""
