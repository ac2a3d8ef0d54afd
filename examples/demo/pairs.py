"""Training pairs and held-out functions, taken from the Python source on this machine.

All of it is deterministic: modules in the order of their names, choices by hashes or by a seed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from examples.demo.source import (
    Function,
    SourceModule,
    functions_of,
    installed_modules,
    standard_modules,
)
from examples.demo.tasks import DemoTask

MAX_SAME_NAME = 80
MAX_PAIRS_OF_PACKAGE = {DemoTask.DESCRIPTION_TO_CODE: 6000, DemoTask.COMMENT_TO_CODE: 1500, DemoTask.NAME_TO_CODE: 1500}
_NEAR_COPY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A query text (without its instruction) and the one document that answers it."""

    task: DemoTask
    module: str
    query: str
    document: str


def held_out_functions() -> list[Function]:
    """Distinct functions of the held-out modules of the standard library, with and without description."""
    return list(_distinct(_functions(m for m in standard_modules() if m.held_out)))


def training_functions() -> list[Function]:
    """Distinct functions of all other modules, without those that copy a held-out one."""
    guard = LeakageGuard(held_out_functions())
    modules = [m for m in standard_modules() if not m.held_out] + installed_modules()
    kept: list[Function] = []
    seen_names: Counter[str] = Counter()
    for function in _distinct(_functions(modules)):
        if seen_names[function.name] < MAX_SAME_NAME and not guard.leaks(function):
            seen_names[function.name] += 1
            kept.append(function)
    return kept


def pairs_of(functions: Iterable[Function]) -> list[Pair]:
    """The pairs the functions give: description, comment and name, each with its code.

    No query occurs twice, and no package gives a task more pairs than `MAX_PAIRS_OF_PACKAGE` allows.
    """
    by_package: dict[tuple[str, DemoTask], list[Pair]] = {}
    seen: set[str] = set()
    for function in functions:
        for pair in _pairs_of_function(function):
            key = normal_text(pair.query)
            if key not in seen:
                seen.add(key)
                by_package.setdefault((pair.module.split(".")[0], pair.task), []).append(pair)
    return [pair for pairs in by_package.values() for pair in _thin(pairs)]


def _thin(pairs: list[Pair]) -> list[Pair]:
    """As many of one task's pairs as a package may give, evenly spread."""
    limit = MAX_PAIRS_OF_PACKAGE[pairs[0].task]
    stride = max(1.0, len(pairs) / limit)
    return [pairs[int(step * stride)] for step in range(min(len(pairs), limit))]


def reverse(pairs: Iterable[Pair]) -> list[Pair]:
    """The described functions of `pairs` the other way round: code as the query, description as document."""
    return [
        Pair(task=DemoTask.CODE_TO_DESCRIPTION, module=pair.module, query=pair.document, document=pair.query)
        for pair in pairs
        if pair.task is DemoTask.DESCRIPTION_TO_CODE
    ]


def _pairs_of_function(function: Function) -> Iterator[Pair]:
    module = function.module
    if function.description:
        yield Pair(task=DemoTask.DESCRIPTION_TO_CODE, module=module, query=function.description, document=function.code)
    elif len(words := name_words(function.name)) >= 3:
        unnamed = hide_name(function.code, function.name)
        yield Pair(task=DemoTask.NAME_TO_CODE, module=module, query=" ".join(words), document=unnamed)
    for comment in function.comments:
        yield Pair(task=DemoTask.COMMENT_TO_CODE, module=module, query=comment.text, document=comment.code)


def name_words(name: str) -> list[str]:
    """The words of an identifier, lower case: `readHTTPDate_v2` → read, http, date, v2."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+", name)]


def hide_name(code: str, name: str) -> str:
    """The code with its own name replaced by `f`, so that only what it does can be matched."""
    return re.sub(rf"\bdef {re.escape(name)}\b", "def f", code)


def normal_text(text: str) -> str:
    """Letters and digits in lower case, everything else one space: equal for near-identical texts."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


class LeakageGuard:
    """Says whether a function is a copy, or nearly one, of any of those it was made from."""

    def __init__(self, held_out: Iterable[Function]) -> None:
        self._descriptions: set[str] = set()
        self._owners: dict[str, set[int]] = {}
        for index, function in enumerate(held_out):
            if function.description:
                self._descriptions.add(normal_text(function.description))
            for line in _telling_lines(function.code):
                self._owners.setdefault(line, set()).add(index)

    def leaks(self, function: Function) -> bool:
        """True for an equal description, or half of the code's lines in one held-out function."""
        if function.description and normal_text(function.description) in self._descriptions:
            return True
        lines = _telling_lines(function.code)
        shared: Counter[int] = Counter()
        for line in lines:
            shared.update(self._owners.get(line, ()))
        return bool(shared) and max(shared.values()) >= max(2, _NEAR_COPY * len(lines))


def _telling_lines(code: str) -> set[str]:
    """Normalised lines long enough not to agree by chance."""
    lines = (normal_text(line) for line in code.splitlines())
    return {line for line in lines if len(line) >= 14}


def _functions(modules: Iterable[SourceModule]) -> Iterator[Function]:
    for module in modules:
        yield from functions_of(module)


def _distinct(functions: Iterable[Function]) -> Iterator[Function]:
    """Only the first of functions with the same description, or the same body whatever its names and case."""
    seen: set[str] = set()
    for function in functions:
        body = re.sub(r"\d+", "0", normal_text(hide_name(function.code, function.name)))
        keys = {f"code {body}", f"text {normal_text(function.description)}"} - {"text "}
        if seen.isdisjoint(keys):
            yield function
        seen |= keys
