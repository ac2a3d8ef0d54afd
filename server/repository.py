"""The model repository as Triton sees it."""

from __future__ import annotations

from pathlib import Path

from .errors import EmptyRepositoryError


def find_models(repository: Path) -> tuple[str, ...]:
    """Names of the models in `repository`, sorted: Triton takes every sub-directory for one.

    Raises EmptyRepositoryError where there is none.
    """
    advice = f"write one with `qwen3-triton export MODEL --repository {repository}`"
    if not repository.is_dir():
        raise EmptyRepositoryError(f"no model repository at {repository}: {advice}, or give another directory")
    names = tuple(sorted(entry.name for entry in repository.iterdir() if entry.is_dir()))
    if not names:
        raise EmptyRepositoryError(f"no model in the repository {repository}: {advice}")
    return names
