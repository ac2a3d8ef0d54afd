"""Verification of a repository's files before they are served."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..client.manifest import ModelFolder
from ..client.manifest.integrity import find_unverified_files
from .errors import ModelFilesError


def verify_files(repository: Path, names: Collection[str]) -> None:
    """Compare the files of the models with the hashes in their manifests.

    Raises:
        ModelFilesError: A file is missing or differs, or a model has no hashes.
    """
    differences = {name: find_unverified_files(ModelFolder(repository / name)) for name in names}
    differences = {name: found for name, found in differences.items() if found}
    if differences:
        models = "; ".join(f"{repository / name}: {', '.join(found)}" for name, found in differences.items())
        raise ModelFilesError(
            f"{len(differences)} of {len(names)} models differ from their manifests: {models} -- restore the files, "
            "export again, or start without verify_files",
            differences=differences,
        )
