"""Training pairs and held-out functions from the Python source code on this machine.

The result is deterministic: modules are sorted by name, and choices are made by hashes or a seed.
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
    """A query (without instruction) and its relevant document."""

    task: DemoTask
    module: str
    query: str
    document: str


def held_out_functions() -> list[Function]:
    """Return distinct functions of the held-out standard library modules, with and without description."""
    return list(_distinct(_functions(m for m in standard_modules() if m.held_out)))


def training_functions() -> list[Function]:
    """Return distinct functions of all other modules, except copies of held-out functions."""
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
    """Return the pairs of functions: description, comment or name, each with its code.

    Queries are unique, and the pairs of each package and task are limited by `MAX_PAIRS_OF_PACKAGE`.
    """
    by_package: dict[tuple[str, DemoTask], list[Pair]] = {}
    seen: set[str] = set()
    for function in functions:
        for pair in _pairs_of_function(function):
            key = normalize_text(pair.query)
            if key not in seen:
                seen.add(key)
                by_package.setdefault((pair.module.split(".")[0], pair.task), []).append(pair)
    return [pair for pairs in by_package.values() for pair in _limit(pairs)]


def _limit(pairs: list[Pair]) -> list[Pair]:
    """Select evenly spaced pairs up to the limit of their task."""
    limit = MAX_PAIRS_OF_PACKAGE[pairs[0].task]
    stride = max(1.0, len(pairs) / limit)
    return [pairs[int(step * stride)] for step in range(min(len(pairs), limit))]


def reverse(pairs: Iterable[Pair]) -> list[Pair]:
    """Swap the pairs from description to code: code becomes the query and the description the document."""
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
    """Split an identifier into lower-case words: `readHTTPDate_v2` → read, http, date, v2."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+", name)]


def hide_name(code: str, name: str) -> str:
    """Replace a function's name in its code with `f`, so that the name cannot be matched."""
    return re.sub(rf"\bdef {re.escape(name)}\b", "def f", code)


def normalize_text(text: str) -> str:
    """Keep lower-case letters and digits, separated by single spaces, so that near-identical texts become equal."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


class LeakageGuard:
    """Detects functions that are copies or near-copies of held-out functions."""

    def __init__(self, held_out: Iterable[Function]) -> None:
        self._descriptions: set[str] = set()
        self._owners: dict[str, set[int]] = {}
        for index, function in enumerate(held_out):
            if function.description:
                self._descriptions.add(normalize_text(function.description))
            for line in _distinctive_lines(function.code):
                self._owners.setdefault(line, set()).add(index)

    def leaks(self, function: Function) -> bool:
        """Return whether a held-out function has the same description or contains half of the code's lines."""
        if function.description and normalize_text(function.description) in self._descriptions:
            return True
        lines = _distinctive_lines(function.code)
        shared: Counter[int] = Counter()
        for line in lines:
            shared.update(self._owners.get(line, ()))
        return bool(shared) and max(shared.values()) >= max(2, _NEAR_COPY * len(lines))


def _distinctive_lines(code: str) -> set[str]:
    """Return normalized lines that are long enough not to match by chance."""
    lines = (normalize_text(line) for line in code.splitlines())
    return {line for line in lines if len(line) >= 14}


def _functions(modules: Iterable[SourceModule]) -> Iterator[Function]:
    for module in modules:
        yield from functions_of(module)


def _distinct(functions: Iterable[Function]) -> Iterator[Function]:
    """Yield only the first of the functions with the same description, or with the same body up to names and case."""
    seen: set[str] = set()
    for function in functions:
        body = re.sub(r"\d+", "0", normalize_text(hide_name(function.code, function.name)))
        keys = {f"code {body}", f"text {normalize_text(function.description)}"} - {"text "}
        if seen.isdisjoint(keys):
            yield function
        seen |= keys
