"""Versions of a model in its folder: keeping earlier ones, and switching to one of them.

    <name>/config.pbtxt, manifest.json, tokenizer.json      of the version in use
    <name>/<version>/model.onnx, …                          graph and weights
    <name>/<version>/config.pbtxt, manifest.json, …         description of this version, for a rollback

A folder is never changed in place. A new one is built from hard links and exchanged with it, so that Triton and its
clients see either the old description or the new one.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from ...client.manifest import ExportRecord, ModelFolder, VersionDescription
from ..errors import ModelExistsError, UnknownVersionError
from .staging import staged_folder

_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EXDEV)


def version_in_use(folder: ModelFolder) -> int:
    """Return the version that the description in `folder` belongs to.

    Raises:
        ManifestError: `manifest.json` is not the manifest of an export.
        UnknownVersionError: The folder has no version or no manifest.
    """
    versions = folder.versions()
    if not versions or not folder.manifest.is_file():
        raise UnknownVersionError(f"{folder.path} has no exported model; export one, or check the name and repository")
    stated = ExportRecord.from_json(folder.read_manifest()).manifest.model_version
    # earlier releases had one version in a folder, and did not record its number
    return versions[-1] if stated is None else stated


def next_version(folder: ModelFolder) -> int:
    """Return the number of the next version in `folder`, which may not exist."""
    return max(folder.versions(), default=0) + 1


def copy_description(source: VersionDescription, target: VersionDescription) -> None:
    """Copy a description into an existing folder.

    The copies have new modification times, by which Triton's polling notices them.
    """
    for original, copy in zip(source.files, target.files, strict=True):
        # it may be a hard link to a file of the folder in use
        copy.unlink(missing_ok=True)
        shutil.copyfile(original, copy)


def add_earlier_versions(folder: ModelFolder, staged: ModelFolder, version: int, keep: int) -> None:
    """Add earlier versions of `folder`, if it exists, to `staged`, the folder that will replace it.

    Args:
        folder: The model's folder.
        staged: Folder with the new `version`.
        version: The new version.
        keep: Number of versions in `staged` afterwards: `version`, the one that was in use, and the newest others.

    Raises:
        ModelExistsError: Another process has exported `version` in the meantime.
    """
    if version in folder.versions():
        raise ModelExistsError(f"{folder.path} got version {version} in the meantime; export again")
    if not folder.manifest.is_file() or keep == 1:
        return
    used = version_in_use(folder)
    others = [number for number in reversed(folder.versions()) if number != used and _is_complete(folder, number)]
    for number in [used, *others][: keep - 1]:
        _link_tree(folder.version(number).path, staged.version(number).path)
    copy_description(folder, staged.version(used))


def switch_version(folder: ModelFolder, version: int) -> int:
    """Put `version` into use and return the version that was in use before.

    The description of the version that was in use is kept in its folder, with any changes that were made to it.

    Raises:
        ManifestError: A manifest is not that of an export.
        UnknownVersionError: The folder does not have `version` with its description.
        StagingError: The folder cannot be replaced.
    """
    used = version_in_use(folder)
    if version == used:
        return used
    if version not in folder.versions() or not _is_complete(folder, version):
        complete = [number for number in folder.versions() if number == used or _is_complete(folder, number)]
        raise UnknownVersionError(
            f"{folder.path} has no version {version}; it has {', '.join(map(str, complete))}, of which {used} is in use"
        )
    with staged_folder(folder.path, overwrite=True) as content:
        staged = ModelFolder(content)
        _link_tree(folder.path, content)
        copy_description(staged, staged.version(used))
        copy_description(staged.version(version), staged)
    return used


def _is_complete(folder: ModelFolder, version: int) -> bool:
    return all(file.is_file() for file in folder.version(version).files) and folder.graph(version).is_file()


def _link_tree(source: Path, target: Path) -> None:
    """Create a folder whose files are hard links to those of `source`, or copies where there are no links."""
    shutil.copytree(source, target, symlinks=True, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        shutil.copy2(source, target)
