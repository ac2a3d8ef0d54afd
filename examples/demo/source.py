"""Functions from the Python source code on this machine, read with `ast`; nothing is imported or run."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_DESCRIPTION_CHARS = 220
MAX_CODE_CHARS = 420
MIN_CODE_CHARS = 48

_EXCLUDED = frozenset(
    {"test", "tests", "testing", "idle_test", "idlelib", "lib2to3", "distutils", "turtledemo", "ensurepip"}
    | {"pydoc_data", "msilib", "site-packages", "dist-packages", "lib-dynload", "__pycache__", "__phello__"}
)
# separate packages in some distributions, so that an evaluation cannot rely on them
_OPTIONAL = ("tkinter", "turtle", "venv", "curses", "dbm", "sqlite3")
_HELD_OUT_PERCENT = 36
_SIGNATURE = re.compile(r"^[\w.]+\([^()]*\)\s*(?:->\s*[\w.\[\], ]+?\s*)?(?:--|[:.-])?\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModule:
    """One Python file and its dotted name."""

    name: str
    path: Path
    standard: bool

    @property
    def held_out(self) -> bool:
        """Whether the module is excluded from training; depends only on the name, for standard library modules."""
        if not self.standard or self.name.split(".")[0] in _OPTIONAL:
            return False
        digest = hashlib.sha256(self.name.encode()).digest()
        return int.from_bytes(digest[:4], "big") % 100 < _HELD_OUT_PERCENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function's code without its docstring, and the first paragraph of the docstring ('' if it has none)."""

    module: str
    name: str
    description: str
    code: str
    comments: tuple[Comment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment on separate lines, and the lines of code after it."""

    text: str
    code: str


def standard_modules() -> list[SourceModule]:
    """Return all modules of the standard library, sorted by name."""
    return _modules_under(Path(sysconfig.get_path("stdlib")), standard=True)


def installed_modules() -> list[SourceModule]:
    """Return all modules of the installed packages, sorted by name."""
    return _modules_under(Path(sysconfig.get_path("purelib")), standard=False)


def _modules_under(root: Path, *, standard: bool) -> list[SourceModule]:
    modules = []
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if not _EXCLUDED.isdisjoint(parts) or not all(part.isidentifier() for part in parts):
            continue
        name = ".".join(parts).removesuffix(".__init__")
        modules.append(SourceModule(name=name, path=path, standard=standard))
    return sorted(modules, key=lambda module: module.name)


def functions_of(module: SourceModule) -> Iterator[Function]:
    """The functions and methods of a module, top to bottom; none where it does not parse."""
    text = module.path.read_text(encoding="utf-8", errors="replace")
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = _read_function(module.name, node, lines)
            if function is not None:
                yield function


def _read_function(module: str, node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> Function | None:
    source = lines[node.lineno - 1 : node.end_lineno]
    docstring = ast.get_docstring(node, clean=False)
    if docstring is not None:
        first = node.body[0]
        if len(node.body) == 1 or first.lineno == node.lineno or first.end_lineno is None:
            return None
        del source[first.lineno - node.lineno : first.end_lineno - node.lineno + 1]
    code_lines = [line.rstrip() for line in textwrap.dedent("\n".join(source)).splitlines() if line.strip()]
    code = take_lines(code_lines, MAX_CODE_CHARS)
    if len(code) < MIN_CODE_CHARS or not code.isascii():
        return None
    return Function(
        module=module,
        name=node.name,
        description=describe(docstring or ""),
        code=code,
        comments=tuple(_read_comments(code_lines)),
    )


def describe(docstring: str) -> str:
    """Return a docstring's first paragraph on one line, without a leading signature; '' if it is too short."""
    paragraph = " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())
    paragraph = _SIGNATURE.sub("", paragraph)
    if len(paragraph) > MAX_DESCRIPTION_CHARS:
        paragraph = paragraph[:MAX_DESCRIPTION_CHARS].rsplit(" ", 1)[0]
    words = re.findall(r"[A-Za-z]{2,}", paragraph)
    readable = paragraph.isascii() and not paragraph.startswith((">>>", ":", "Args", "Param", "@"))
    return paragraph if readable and len(words) >= 4 and len(paragraph) >= 20 else ""


def take_lines(lines: list[str], max_chars: int) -> str:
    """Return as many complete lines from the start as fit into `max_chars`, joined by newlines."""
    kept: list[str] = []
    remaining = max_chars
    for line in lines:
        remaining -= len(line) + 1
        if remaining < 0:
            break
        kept.append(line)
    return "\n".join(kept)


def _read_comments(lines: list[str]) -> Iterator[Comment]:
    """Yield the comments that are prose and are followed by enough code."""
    index = 0
    while index < len(lines):
        start = index
        while index < len(lines) and lines[index].lstrip().startswith("#"):
            index += 1
        if index == start:
            index += 1
            continue
        text = " ".join(line.strip().lstrip("#! ").strip() for line in lines[start:index])
        following = _block_after(lines, index)
        if _is_prose(text) and len(following) >= MIN_CODE_CHARS and following.isascii():
            yield Comment(text=text, code=following)


def _block_after(lines: list[str], index: int) -> str:
    block: list[str] = []
    for line in lines[index : index + 8]:
        if line.lstrip().startswith("#") or (block and _indent(line) < _indent(block[0])):
            break
        block.append(line)
    return take_lines(textwrap.dedent("\n".join(block)).splitlines(), MAX_CODE_CHARS)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_prose(text: str) -> bool:
    words = re.findall(r"[A-Za-z]{2,}", text)
    letters = sum(map(str.isalpha, text))
    return text.isascii() and 4 <= len(words) <= 32 and letters > 0.7 * len(text.replace(" ", ""))
