"""The messages in docs/troubleshooting.md are those of the source."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

_PAGE = Path("docs") / "troubleshooting.md"
_PACKAGES = ("client", "export", "server", "cli")
_VALUE = "…"


def documented_messages(page: str) -> list[str]:
    """Return the lines of every `text` block; `…` stands for a value."""
    blocks = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def source_messages(root: Path) -> list[str]:
    """Return every string literal of the packages, the values of f-strings as `…`."""
    files = [file for package in _PACKAGES for file in sorted((root / package).rglob("*.py"))]
    return [
        "".join(str(part.value) if isinstance(part, ast.Constant) else _VALUE for part in _parts(node))
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


def _parts(node: ast.AST) -> list[ast.expr]:
    return node.values if isinstance(node, ast.JoinedStr) else [node] if isinstance(node, ast.Constant) else []


def is_in(message: str, sources: list[str]) -> bool:
    """Whether one of `sources` has the words of `message` between its values, in order."""
    words = [re.escape(part.strip()) for part in message.split(_VALUE) if part.strip(" .:;()-")]
    pattern = re.compile(".*".join(words), re.DOTALL)
    return any(pattern.search(source) for source in sources)


def test_documented_messages_exist(project_root: Path) -> None:
    messages = documented_messages((project_root / _PAGE).read_text(encoding="utf-8"))
    assert len(messages) > 30
    sources = source_messages(project_root)
    assert [message for message in messages if not is_in(message, sources)] == []


@pytest.mark.parametrize(
    ("message", "found"),
    [("port … on … is taken", True), ("port … is taken on …", False), ("port … on … is free", False)],
)
def test_a_wrong_message_would_be_found(message: str, found: bool) -> None:
    assert is_in(message, ["port … on … is taken by another process"]) is found
