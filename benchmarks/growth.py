"""What an answer costs while one thing grows: rows of a batch, tokens of a text, the model."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from .checkpoint import cached_checkpoint
from .contenders.contender import Bench, CannotRun, Contender, Recipe, prepare_all
from .measurement import interleave
from .model_shape import SHAPES, ModelShape
from .products import needed_flops
from .record import Growth, GrowthPoint, Sample
from .rows import Rows
from .workload import END_TOKEN_ID

ROWS, TOKENS, MODEL = "rows of 64 tokens", "tokens of one text", "GFLOP of products a token"
_ROW_TOKENS = 64
_LONG_TOKENS = 4096
_SEED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthOptions:
    """How far it goes."""

    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    tokens: tuple[int, ...] = (16, 64, 256, 512, 1024, 2048, 4096, 8192)
    shapes: tuple[ModelShape, ...] = tuple(
        dataclasses.replace(SHAPES[name], layers=layers, vocabulary=8192)
        for name, layers in (("0.6b", 1), ("0.6b", 2), ("0.6b", 4), ("0.6b", 8), ("4b", 2), ("8b", 2))
    )
    model_tokens: tuple[int, ...] = (128,) * 4
    """Texts on which models of different sizes are compared."""
    repetitions: int = 5

    @classmethod
    def quick(cls, shape: ModelShape) -> GrowthOptions:
        """Enough to see that it works."""
        deeper = dataclasses.replace(shape, layers=2 * shape.layers)
        return cls(rows=(1, 4), tokens=(16, 64), shapes=(shape, deeper), repetitions=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """Samples by size, and what could not be measured."""

    growth: tuple[Growth, ...] = ()
    not_done: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One program at one size."""

    program: str
    of: str
    size: float
    run: Callable[[], Sequence[Sample]]


def measure_growth(recipes: Sequence[Recipe], shape: ModelShape, options: GrowthOptions, bench: Bench) -> Grown:
    """Every program at every size; sizes take turns, so that a slow moment of the machine bends no curve."""
    not_done: dict[str, str] = {}
    cases: list[_Case] = []
    with ExitStack() as undo:
        own = dataclasses.replace(bench, max_tokens=max(*options.tokens, bench.max_tokens), undo=undo)
        bench.say("growth: rows and tokens")
        for contender in _contenders(recipes, own, not_done):
            batches = [(ROWS, float(rows), [_ROW_TOKENS] * rows) for rows in options.rows]
            batches += [(TOKENS, float(tokens), [tokens]) for tokens in options.tokens]
            for of, size, lengths in batches:
                cases.append(_case(contender, of, size, draw_rows(lengths, shape.vocabulary)))
        for grown in options.shapes:
            bench.say(f"growth: {grown.layers} layers of hidden width {grown.hidden}")
            rows = draw_rows(options.model_tokens, grown.vocabulary)
            checkpoint = cached_checkpoint(grown, bench.cache)
            size = needed_flops(grown, rows) / sum(options.model_tokens) / 1e9
            sized = dataclasses.replace(own, checkpoint=checkpoint, max_tokens=max(options.model_tokens))
            for contender in _contenders(recipes, sized, not_done):
                cases.append(_case(contender, MODEL, size, rows))
        return Grown(growth=_measure(cases, options.repetitions, bench, not_done), not_done=not_done)


def draw_rows(lengths: Sequence[int], vocabulary: int) -> list[list[int]]:
    """Rows of random ids of these lengths."""
    dice = random.Random(_SEED)
    return [[*dice.choices(range(1, vocabulary), k=length - 1), END_TOKEN_ID] for length in lengths]


def _contenders(recipes: Sequence[Recipe], bench: Bench, not_done: dict[str, str]) -> list[Contender]:
    """Each program in the first of the ways to load it."""
    prepared = prepare_all(recipes, bench)
    not_done.update({f"growth of {program}": why for program, why in prepared.absent.items()})
    return list({contender.program: contender for contender in reversed(prepared.contenders)}.values())[::-1]


def _case(contender: Contender, of: str, size: float, rows: Rows) -> _Case:
    setting = contender.settings(len(rows))[0]
    # attention over a long text takes gigabytes, which nobody keeps while others are timed
    time = setting.time_alone if max(map(len, rows)) >= _LONG_TOKENS else setting.time
    return _Case(program=contender.program, of=of, size=size, run=lambda: time(rows))


def _measure(cases: list[_Case], repetitions: int, bench: Bench, not_done: dict[str, str]) -> tuple[Growth, ...]:
    bench.say(f"growth: {len(cases)} sizes, a first pass of each")
    for case in list(cases):
        try:
            case.run()
        except CannotRun as exc:
            cases.remove(case)
            not_done[f"growth of {case.program} to {case.size:g} {case.of}"] = str(exc)
    timings = interleave(
        [case.run for case in cases],
        repetitions,
        0,
        lambda done: bench.say(f"growth: repetition {done + 1} of {repetitions}"),
    )
    found: dict[tuple[str, str], list[GrowthPoint]] = {}
    for case, samples in zip(cases, timings.samples, strict=True):
        point = GrowthPoint(size=case.size, samples=tuple(samples))
        found.setdefault((case.program, case.of), []).append(point)
    return tuple(
        Growth(program=program, of=of, points=tuple(sorted(points, key=lambda point: point.size)))
        for (program, of), points in found.items()
    )
