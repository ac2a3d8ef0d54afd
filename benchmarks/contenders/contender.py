"""What a contender is, and what it is prepared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from qwen3_triton.client.manifest import Task

from ..record import Sample
from ..rows import Rows, Vectors


class CannotRun(Exception):
    """Why a contender cannot be measured here, in one line for the record."""


class Engine(Protocol):
    """A loaded program that embeds or scores rows."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the packages that do the work."""

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """Unit rows float32 [n, hidden], or scores [n, 1], in the callers' order; raises CannotRun."""

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """One sample a pass over `rows`, never of a program that has just been loaded; raises CannotRun."""

    def rest(self) -> None:
        """Gives its memory back until it is needed again, where others may want it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where the contenders are prepared."""

    checkpoint: Path
    cache: Path
    threads: int
    max_tokens: int
    """Longest row of any workload of the run."""
    say: Callable[[str], None]
    """Takes one line of progress."""
    undo: ExitStack
    """Ends what a contender started, when the run is over."""
    device: str = "cpu"
    """cpu or cuda: where contenders, their reference and the matrix products run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One program, loaded with some options, and the batch sizes worth trying."""

    program: str
    options: str
    """What was chosen when it was loaded, for the record; empty where there was nothing to choose."""
    engine: Engine
    batch_rows: Sequence[int | None]
    """None is all rows at once."""
    arithmetic: str
    """What it multiplies in: fp32, bf16 or int8."""
    gate_min_cosine: float | None = None
    """Smallest cosine to the reference with which its time counts; of one that embeds."""
    gate_max_score_error: float | None = None
    """Largest difference from the reference's score likewise; of one that reranks."""
    copies: int = 1
    """How many of the program share the batches; fewer batches than copies are not tried."""
    padded: bool = True
    """Whether rows of a batch are padded to one width."""
    profile: Callable[[Rows], Mapping[str, int]] | None = None
    """Microseconds by operator for one pass, where the program can tell."""

    def settings(self, texts: int) -> list[Setting]:
        """Every different way to run `texts` rows."""
        sizes = dict.fromkeys(min(size or texts, texts) for size in self.batch_rows)
        shared = [size for size in sizes if -(-texts // size) >= self.copies]
        return [Setting(contender=self, batch_rows=size, texts=texts) for size in shared]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A contender at one batch size."""

    contender: Contender
    batch_rows: int
    texts: int

    @property
    def name(self) -> str:
        """As records call it."""
        kind = "padded" if self.contender.padded else "packed"
        if self.texts == 1:
            rows = "one text"
        elif self.batch_rows >= self.texts:
            rows = f"one {kind} batch"
        else:
            rows = f"sorted {kind} batches of {self.batch_rows}"
        return ", ".join(part for part in (self.contender.options, rows) if part)

    def embed(self, rows: Rows) -> Vectors:
        """Unit rows float32 [n, hidden] in the callers' order; raises CannotRun."""
        return self.contender.engine.embed(rows, self.batch_rows)

    def time(self, rows: Rows, passes: int = 1) -> list[Sample]:
        """One sample a pass; raises CannotRun."""
        return self.contender.engine.time(rows, self.batch_rows, passes)

    def time_alone(self, rows: Rows, passes: int = 1) -> list[Sample]:
        """As `time`, and the memory is given back afterwards where it is short; raises CannotRun."""
        samples = self.time(rows, passes)
        self.contender.engine.rest()
        return samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A program and how its contenders are made; `prepare` raises CannotRun."""

    program: str
    prepare: Callable[[Bench], Sequence[Contender]]
    task: Task = Task.EMBED
    """On whose workloads they run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Contenders that can run, and the reasons of those that cannot, by program."""

    contenders: list[Contender] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def prepare_all(recipes: Sequence[Recipe], bench: Bench) -> Prepared:
    """Everything that can run out of `recipes`."""
    prepared = Prepared()
    for recipe in recipes:
        bench.say(f"preparing {recipe.program}")
        try:
            prepared.contenders.extend(recipe.prepare(bench))
        except CannotRun as exc:
            bench.say(f"{recipe.program} cannot run: {exc}")
            prepared.absent[recipe.program] = str(exc)
    return prepared
