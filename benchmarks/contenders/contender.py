"""What a contender is, and what it is prepared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[Sequence[int]]
Vectors = NDArray[np.float32]


class CannotRun(Exception):
    """Why a contender cannot be measured here, in one line for the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where the contenders are prepared."""

    checkpoint: Path
    cache: Path
    threads: int
    say: Callable[[str], None]
    """Takes one line of progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One program at one setting, ready to embed."""

    program: str
    setting: str
    versions: Mapping[str, str]
    embed: Callable[[Rows], Vectors]
    """Token rows in any order → unit rows float32 [n, hidden] in that order."""
    gate_min_cosine: float = 0.99999
    """Smallest cosine to the reference with which its time counts."""
    profile: Callable[[Rows], Mapping[str, int]] | None = None
    """Microseconds by operator for one pass, where the program can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A program and how its contenders are made; `prepare` raises CannotRun."""

    program: str
    prepare: Callable[[Bench], Sequence[Contender]]


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
