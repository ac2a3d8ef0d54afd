"""Contenders, their settings, and the recipes that prepare them."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from qwen3_triton.client.manifest import Task

from ..processor import Processor
from ..record import Sample
from ..rows import Rows, Vectors
from .layout import Layout, layouts
from .reasons import public_reason


class ContenderUnavailableError(Exception):
    """A contender cannot be measured on this machine; the message is one line for the record."""


def failure_reason(error: Exception, log: Callable[[str], None]) -> str:
    """Return the reason for the record why a contender failed, and log the traceback of an unexpected error."""
    if isinstance(error, ContenderUnavailableError):
        return str(error)
    log("".join(traceback.format_exception(error)).rstrip())
    return public_reason(f"unexpected {type(error).__name__}: {error}")


class Engine(Protocol):
    """A loaded program that embeds or scores rows."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the relevant packages."""

    def embed(self, rows: Rows, batch_rows: int) -> Vectors:
        """Embed or score `rows` in batches of `batch_rows`.

        Returns:
            Unit vectors [n, hidden] or scores [n, 1], float32, in the order of `rows`.

        Raises:
            ContenderUnavailableError: if the program fails.
        """

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """Return one sample per pass over `rows`; a program that has just been loaded is warmed up first.

        Raises:
            ContenderUnavailableError: if the program fails.
        """

    def release_memory(self) -> None:
        """Release the program's memory until its next use, if memory is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What recipes need to prepare contenders."""

    checkpoint: Path
    cache: Path
    threads: int
    max_tokens: int
    """Longest row of any workload of the run."""
    log: Callable[[str], None]
    """Receives lines of progress."""
    cleanup: ExitStack
    """Stops the processes of contenders at the end of the run."""
    processor: Processor
    device: str = "cpu"
    """Device of contenders, reference and probes: cpu or cuda."""
    tries_layouts: bool = True
    """Whether contenders on the CPU are tried in other layouts than the default."""

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Layouts in which every contender is tried, first the default."""
        if self.device != "cpu" or not self.tries_layouts:
            return (Layout(threads=self.threads),)
        return layouts(self.processor, self.threads)

    def layouts_of(self, *, compiled: bool) -> tuple[Layout, ...]:
        """Return the layouts of a program in PyTorch.

        A compiled model is compiled again for each layout, and copies would do so at the same time.
        """
        return tuple(layout for layout in self.layouts if not compiled or layout.copies == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A program loaded with certain options, and the batch sizes to try."""

    program: str
    options: str
    """Options with which it was loaded, for the record; may be empty."""
    refines: str | None = None
    """Options of the contender of the same program from which this one differs in its layout only: it is tried only if
    that one is nearly as fast as the program's best."""
    needs_common_prefix: bool = False
    """Whether it differs from another contender only for rows with a common prefix."""
    engine: Engine
    batch_rows: Sequence[int | None]
    """Rows per batch; None is all rows at once."""
    arithmetic: str
    """Precision of its matrix multiplications: fp32, fp16, bf16 or int8."""
    gate_min_cosine: float | None = None
    """Smallest acceptable cosine to the reference; for embedding models."""
    gate_max_score_error: float | None = None
    """Largest acceptable difference from the reference's score; for rerankers."""
    copies: int = 1
    """Copies of the program that process batches in parallel; settings with fewer batches are not tried."""
    padded: bool = True
    """Whether the rows of a batch are padded to one width."""
    warms_up_fully: bool = False
    """Whether a setting is tried only after a pass over the whole workload. On a GPU, the first batch of a size
    allocates memory, which takes longer than the batch."""
    profile: Callable[[Rows], Mapping[str, int]] | None = None
    """Returns microseconds per pass by operator; None if the program cannot be profiled."""

    def settings(self, texts: int, sampled: int | None = None) -> list[Setting]:
        """Return the distinct settings for a workload.

        Args:
            texts: its rows.
            sampled: rows of the sample on which the settings are ranked, if not all: only settings whose batches the
                sample can fill for each copy are returned.
        """
        sizes = dict.fromkeys(min(size or texts, texts) for size in self.batch_rows)
        ranked = sampled or texts
        return [
            Setting(contender=self, batch_rows=size, texts=texts)
            for size in sizes
            if size <= ranked and -(-ranked // size) >= self.copies
        ]


def in_layouts(contender: Contender, options: Sequence[Layout], load: Callable[[Layout], Engine]) -> list[Contender]:
    """Return `contender`, which is in the first of the layouts `options`, and its refinements in the others.

    Args:
        contender: the contender in the default layout.
        options: layouts, the default first.
        load: returns the engine in a layout; it should be started when it is first used.
    """
    return [
        contender,
        *(
            dataclasses.replace(
                contender,
                options=", ".join(part for part in (contender.options, layout.name) if part),
                refines=contender.options,
                engine=load(layout),
                copies=layout.copies,
            )
            for layout in options[1:]
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A contender at one batch size."""

    contender: Contender
    batch_rows: int
    texts: int

    @property
    def name(self) -> str:
        """Name in records."""
        kind = "padded" if self.contender.padded else "packed"
        if self.texts == 1:
            rows = "one text"
        elif self.batch_rows >= self.texts:
            rows = f"one {kind} batch"
        else:
            rows = f"sorted {kind} batches of {self.batch_rows}"
        return ", ".join(part for part in (self.contender.options, rows) if part)

    def embed(self, rows: Rows) -> Vectors:
        """Embed or score `rows`; see `Engine.embed`."""
        return self.contender.engine.embed(rows, self.batch_rows)

    def time(self, rows: Rows, passes: int = 1) -> list[Sample]:
        """Return one sample per pass; see `Engine.time`."""
        return self.contender.engine.time(rows, self.batch_rows, passes)

    def time_and_release(self, rows: Rows, passes: int = 1) -> list[Sample]:
        """Return one sample per pass, then release memory if it is short."""
        samples = self.time(rows, passes)
        self.contender.engine.release_memory()
        return samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A program and the function that prepares its contenders."""

    program: str
    prepare: Callable[[RunContext], Sequence[Contender]]
    """Raises ContenderUnavailableError if the program cannot run here."""
    task: Task = Task.EMBED
    """Task of the workloads on which they run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedContenders:
    """Contenders that can run, and the reasons why other programs cannot."""

    contenders: list[Contender] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)


def prepare_all(recipes: Sequence[Recipe], context: RunContext) -> PreparedContenders:
    """Prepare the contenders of all `recipes` that can run here."""
    prepared = PreparedContenders()
    for recipe in recipes:
        context.log(f"preparing {recipe.program}")
        try:
            prepared.contenders.extend(recipe.prepare(context))
        except Exception as exc:  # noqa: BLE001 - no program may end the run
            reason = failure_reason(exc, context.log)
            context.log(f"{recipe.program} cannot run: {reason}")
            prepared.not_measured[recipe.program] = reason
    return prepared
