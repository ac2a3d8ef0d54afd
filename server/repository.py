"""The model repository as Triton sees it."""

from __future__ import annotations

from pathlib import Path

from .errors import EmptyRepositoryError


def find_models(repository: Path) -> tuple[str, ...]:
    """Return the names of the models in `repository`, sorted. Triton treats every sub-directory as a model.

    Raises:
        EmptyRepositoryError: The repository does not exist, or has no models.
    """
    remedy = "export a model into it, or use another directory"
    if not repository.is_dir():
        raise EmptyRepositoryError(f"the model repository {repository} does not exist: {remedy}")
    names = tuple(sorted(entry.name for entry in repository.iterdir() if entry.is_dir()))
    if not names:
        raise EmptyRepositoryError(f"the model repository {repository} has no models: {remedy}")
    return names
