"""A folder that appears whole or not at all.

It is built beside its parent folder on the same disk, flushed, and renamed in; a replaced one is exchanged
in one step. What a killed run left behind is swept by the next one: a staging folder is stale as soon as
nobody holds its lock.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from ..errors import ModelExistsError, StagingError

_MARK = ".qwen3-triton-staging-"
_CONTENT = "content"
_LOCK = "lock"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_TAKEN_MEANWHILE = (errno.ENOTEMPTY, errno.EEXIST)
_DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@contextmanager
def staged_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends without an error.

    Raises ModelExistsError where `target` exists and may not be overwritten, StagingError where the disk
    refuses.
    """
    refuse_existing(target, overwrite=overwrite)
    with ExitStack() as held:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            workshop = _workshop(target.parent)
            sweep_stale(workshop)
            content = held.enter_context(_locked_folder(workshop)) / _CONTENT
            content.mkdir()
        except OSError as exc:
            raise StagingError(f"cannot build beside {target.parent}: {exc}; choose another repository") from exc
        try:
            yield content
            _flush(content)
            _move_in(content, target, overwrite=overwrite)
        except OSError as exc:
            if exc.errno in _TAKEN_MEANWHILE:
                raise ModelExistsError(
                    f"{target} was created in the meantime; overwrite it, or use another name"
                ) from exc
            if exc.errno in _DISK_REFUSES:
                raise StagingError(f"{target} could not be written: {exc}") from exc
            raise


@contextmanager
def _locked_folder(workshop: Path) -> Iterator[Path]:
    """A new staging folder, locked, and removed at the end."""
    lock = None
    while lock is None:
        staging = Path(tempfile.mkdtemp(prefix=_MARK, dir=workshop))
        lock = _lock(staging)
    with lock:
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _lock(staging: Path) -> TextIO | None:
    """The held lock of a folder just made, None where a sweep took the folder before it was locked."""
    try:
        lock = (staging / _LOCK).open("w")
    except FileNotFoundError:
        return None
    fcntl.flock(lock, fcntl.LOCK_EX)
    if (staging / _LOCK).exists():
        return lock
    lock.close()
    return None


def refuse_existing(target: Path, *, overwrite: bool) -> None:
    """Raises ModelExistsError where `target` exists and may not be overwritten."""
    if target.exists() and not overwrite:
        raise ModelExistsError(f"{target} exists; overwrite it, or use another name")


def _workshop(repository: Path) -> Path:
    """The folder around the repository: Triton takes every folder inside it for a model."""
    around = repository.resolve().parent
    if around.stat().st_dev != repository.stat().st_dev or not os.access(around, os.W_OK):
        raise StagingError(
            f"{around} is read-only or on another disk than {repository}, so nothing can be renamed in from there; "
            "choose a folder below a mount point as the repository"
        )
    return around


def sweep_stale(workshop: Path) -> None:
    """Removes what killed runs left in `workshop`; folders in use are left alone.

    A folder is renamed first, so that a run about to lock it finds it gone instead of half empty.
    """
    for folder in workshop.glob(f"{_MARK}*"):
        try:
            with (folder / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                swept = folder.rename(folder.with_name(f"{_MARK}swept-{uuid.uuid4().hex}"))
                shutil.rmtree(swept, ignore_errors=True)
        except OSError:
            continue


def _flush(folder: Path) -> None:
    """Everything below `folder` on the disk, so that the rename cannot overtake the data."""
    for entry in [*folder.rglob("*"), folder]:
        handle = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _move_in(content: Path, target: Path, *, overwrite: bool) -> None:
    content.chmod(0o755)
    if target.exists():
        refuse_existing(target, overwrite=overwrite)
        _exchange(content, target)
    else:
        content.rename(target)
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(new: Path, old: Path) -> None:
    """Swaps two folders in one step (renameat2 of Linux); without it the old one goes first."""
    libc = ctypes.CDLL(None, use_errno=True)
    swap = getattr(libc, "renameat2", None)
    if swap is not None:
        if swap(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(code, os.strerror(code), str(old))
    old.rename(new.with_name("replaced"))
    new.rename(old)
