"""The model repository as Triton sees it."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import EmptyRepositoryError, InvalidModelNameError

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def find_models(repository: Path) -> tuple[str, ...]:
    """Return the names of the models in `repository`, sorted. Triton treats every sub-directory as a model.

    Raises:
        EmptyRepositoryError: The repository does not exist, or has no models.
        InvalidModelNameError: The server cannot load a model with such a name.
    """
    remedy = "export a model into it, or use another directory"
    if not repository.is_dir():
        raise EmptyRepositoryError(f"the model repository {repository} does not exist: {remedy}")
    names = tuple(sorted(entry.name for entry in repository.iterdir() if entry.is_dir()))
    if not names:
        raise EmptyRepositoryError(f"the model repository {repository} has no models: {remedy}")
    for name in names:
        # Triton starts the process of a model through a shell, with the unquoted path of the model
        if not _NAME.fullmatch(name):
            raise InvalidModelNameError(
                f"the local server cannot load the model {name!r} in {repository}: rename or move the directory; "
                "names have letters, digits, '.', '_' and '-'"
            )
    return names
