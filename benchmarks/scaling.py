"""How the cost of a pass grows with the rows of a batch, the tokens of a text and the size of the model."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from .checkpoint import cached_checkpoint
from .contenders.contender import Contender, ContenderUnavailableError, Recipe, RunContext, prepare_all
from .measurement import interleave
from .model_shape import SHAPES, ModelShape
from .record import Sample, ScalingCurve, ScalingPoint, ScalingVariable
from .roofline import needed_flops
from .rows import Rows
from .workload import END_TOKEN_ID

_ROW_TOKENS = 64
_LONG_TOKENS = 4096
_SEED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingOptions:
    """Sizes to measure."""

    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    tokens: tuple[int, ...] = (16, 64, 256, 512, 1024, 2048, 4096, 8192)
    shapes: tuple[ModelShape, ...] = tuple(
        dataclasses.replace(SHAPES[name], layers=layers, vocabulary=8192)
        for name, layers in (("0.6b", 1), ("0.6b", 2), ("0.6b", 4), ("0.6b", 8), ("4b", 2), ("8b", 2))
    )
    model_tokens: tuple[int, ...] = (128,) * 4
    """Token counts of the texts on which model sizes are compared."""
    repetitions: int = 5

    @classmethod
    def quick(cls, shape: ModelShape) -> ScalingOptions:
        """Return the smallest options that exercise every variable."""
        deeper = dataclasses.replace(shape, layers=2 * shape.layers)
        return cls(rows=(1, 4), tokens=(16, 64), shapes=(shape, deeper), repetitions=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingResults:
    """Scaling curves, and the reasons for what could not be measured."""

    curves: tuple[ScalingCurve, ...] = ()
    not_measured: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One program at one size."""

    program: str
    variable: ScalingVariable
    size: float
    run: Callable[[], Sequence[Sample]]


def measure_scaling(
    recipes: Sequence[Recipe], shape: ModelShape, options: ScalingOptions, context: RunContext
) -> ScalingResults:
    """Measure every program at every size, interleaved, so that a slow phase of the machine distorts no curve."""
    not_measured: dict[str, str] = {}
    cases: list[_Case] = []
    with ExitStack() as cleanup:
        own = dataclasses.replace(context, max_tokens=max(*options.tokens, context.max_tokens), cleanup=cleanup)
        context.log("scaling: rows and tokens")
        for contender in _contenders(recipes, own, not_measured):
            batches = [(ScalingVariable.ROWS, rows, [_ROW_TOKENS] * rows) for rows in options.rows]
            batches += [(ScalingVariable.TOKENS, tokens, [tokens]) for tokens in options.tokens]
            for variable, size, lengths in batches:
                cases.append(_case(contender, variable, float(size), random_rows(lengths, shape.vocabulary)))
        for sized_shape in options.shapes:
            context.log(f"scaling: {sized_shape.layers} layers with hidden size {sized_shape.hidden}")
            rows = random_rows(options.model_tokens, sized_shape.vocabulary)
            checkpoint = cached_checkpoint(sized_shape, context.cache)
            gflop_per_token = needed_flops(sized_shape, rows) / sum(options.model_tokens) / 1e9
            sized = dataclasses.replace(own, checkpoint=checkpoint, max_tokens=max(options.model_tokens))
            for contender in _contenders(recipes, sized, not_measured):
                cases.append(_case(contender, ScalingVariable.MATMULS, gflop_per_token, rows))
        curves = _measure(cases, options.repetitions, context, not_measured)
        return ScalingResults(curves=curves, not_measured=not_measured)


def random_rows(lengths: Sequence[int], vocabulary: int) -> list[list[int]]:
    """Return rows of random ids with the given lengths, each ending with the end token."""
    rng = random.Random(_SEED)
    return [[*rng.choices(range(1, vocabulary), k=length - 1), END_TOKEN_ID] for length in lengths]


def _contenders(recipes: Sequence[Recipe], context: RunContext, not_measured: dict[str, str]) -> list[Contender]:
    """Prepare the first contender of each program."""
    prepared = prepare_all(recipes, context)
    not_measured.update({f"scaling of {program}": reason for program, reason in prepared.not_measured.items()})
    return list({contender.program: contender for contender in reversed(prepared.contenders)}.values())[::-1]


def _case(contender: Contender, variable: ScalingVariable, size: float, rows: Rows) -> _Case:
    setting = contender.settings(len(rows))[0]
    # attention over a long text takes gigabytes, which must be free while other cases are timed
    time = setting.time_and_release if max(map(len, rows)) >= _LONG_TOKENS else setting.time
    return _Case(program=contender.program, variable=variable, size=size, run=lambda: time(rows))


def _measure(
    cases: list[_Case], repetitions: int, context: RunContext, not_measured: dict[str, str]
) -> tuple[ScalingCurve, ...]:
    context.log(f"scaling: warm-up of {len(cases)} sizes")
    for case in list(cases):
        try:
            case.run()
        except ContenderUnavailableError as exc:
            cases.remove(case)
            not_measured[f"scaling of {case.program} to {case.size:g} {case.variable.label}"] = str(exc)
    timings = interleave(
        [case.run for case in cases],
        repetitions,
        0,
        lambda done: context.log(f"scaling: repetition {done + 1} of {repetitions}"),
    )
    found: dict[tuple[str, ScalingVariable], list[ScalingPoint]] = {}
    for case, samples in zip(cases, timings.samples, strict=True):
        point = ScalingPoint(size=case.size, samples=tuple(samples))
        found.setdefault((case.program, case.variable), []).append(point)
    return tuple(
        ScalingCurve(program=program, variable=variable, points=tuple(sorted(points, key=lambda point: point.size)))
        for (program, variable), points in found.items()
    )
