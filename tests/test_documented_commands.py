"""The commands in README and docs use sub-commands and options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from qwen3_triton.cli.main import app

_PAGES = ("README.md", "docs/**/*.md", "deploy/README.md", "examples/demo/README.md")
_COMMAND = re.compile(r"(?:^|\| )(qwen3-triton [a-z][^|<>&\n]*)", re.MULTILINE)


def documented_commands(root: Path) -> list[str]:
    """Every `qwen3-triton SUB-COMMAND …` of a fenced block, up to a pipe, a redirection or `&`."""
    pages = [file for pattern in _PAGES for file in sorted(root.glob(pattern))]
    blocks = [
        block
        for page in pages
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    return [command.strip() for block in blocks for command in _COMMAND.findall(block)]


def test_documented_commands_exist(project_root: Path) -> None:
    commands = documented_commands(project_root)
    assert len(commands) >= 12
    known: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    for command in commands:
        _, name, *words = shlex.split(command)
        options = {option for entry in known[name].params for option in (*entry.opts, *entry.secondary_opts)}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= options, f"{command}: {used - options}"


@pytest.mark.parametrize("wrong", ["qwen3-triton serve --repository build/models", "qwen3-triton deploy x"])
def test_a_wrong_command_would_be_found(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("```\n" + "qwen3-triton serve models\n" * 9 + f"{wrong} > log &\n```\n")
    with pytest.raises((AssertionError, KeyError)):
        test_documented_commands_exist(tmp_path)
