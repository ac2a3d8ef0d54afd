"""Atomic creation of a folder.

The content is built next to the target's parent folder on the same file system, flushed to disk and renamed to the
target; an existing target is exchanged in one system call. A staging folder whose lock is free belongs to a process
that was killed, and is removed by the next run.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from safetensors import SafetensorError

from ..errors import ModelExistsError, StagingError

_MARK = ".qwen3-triton-staging-"
_CONTENT = "content"
_LOCK = "lock"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_TARGET_EXISTS = (errno.ENOTEMPTY, errno.EEXIST)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_RUST_ERROR_NUMBER = re.compile(r"\(os error (\d+)\)")
_NUMPY_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


@contextmanager
def staged_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` when the block ends without an exception.

    Raises:
        ModelExistsError: `target` exists and `overwrite` is not set.
        StagingError: The folder cannot be written, or cannot be renamed to `target`.
    """
    refuse_existing(target, overwrite=overwrite)
    with ExitStack() as held:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            root = _staging_root(target.parent)
            remove_stale(root)
            content = held.enter_context(_locked_folder(root)) / _CONTENT
            content.mkdir()
        except OSError as exc:
            raise StagingError(
                f"cannot write next to {target.parent}: {exc.strerror or exc}; choose another repository"
            ) from exc
        try:
            yield content
            _flush(content)
            _move_in(content, target, overwrite=overwrite)
        except (OSError, SafetensorError) as exc:
            number = _error_number(exc)
            if number in _TARGET_EXISTS:
                raise ModelExistsError(
                    f"{target} was created in the meantime; overwrite it, or use another name"
                ) from exc
            if number in _DISK_ERRORS:
                raise StagingError(
                    f"{target} could not be written: {os.strerror(number)}; free space there, or write to another disk"
                ) from exc
            raise


def _error_number(error: Exception) -> int | None:
    """Return the errno, which safetensors has in its text only, and NumPy's error of an incomplete write not at all."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if _NUMPY_SHORT_WRITE.search(str(error)):
        return errno.ENOSPC
    found = _RUST_ERROR_NUMBER.search(str(error))
    return None if found is None else int(found[1])


@contextmanager
def _locked_folder(root: Path) -> Iterator[Path]:
    """Yield a new, locked staging folder and remove it at the end."""
    lock = None
    while lock is None:
        staging = Path(tempfile.mkdtemp(prefix=_MARK, dir=root))
        lock = _lock(staging)
    with lock:
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _lock(staging: Path) -> TextIO | None:
    """Lock a new folder; return None if another process removed it before it was locked."""
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
    """Raise ModelExistsError if `target` exists and `overwrite` is not set."""
    if target.exists() and not overwrite:
        raise ModelExistsError(f"{target} exists; overwrite it, or use another name")


def _staging_root(repository: Path) -> Path:
    """Return the parent of the repository; inside it, Triton would load a staging folder as a model."""
    parent = repository.resolve().parent
    if parent.stat().st_dev != repository.stat().st_dev or not os.access(parent, os.W_OK):
        raise StagingError(
            f"{parent} is read-only or on another file system than {repository}, so a model cannot be renamed from "
            "there; choose a subfolder of the mount point as the repository"
        )
    return parent


def remove_stale(root: Path) -> None:
    """Remove the staging folders of killed processes from `root`.

    A folder is renamed first, so that a process that is about to lock it finds it missing instead of half empty.
    """
    for folder in root.glob(f"{_MARK}*"):
        try:
            with (folder / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                renamed = folder.rename(folder.with_name(f"{_MARK}stale-{uuid.uuid4().hex}"))
                shutil.rmtree(renamed, ignore_errors=True)
        except OSError:
            continue


def _flush(folder: Path) -> None:
    """Flush all files of `folder` to disk, so that the rename is not persisted before the data."""
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
    """Exchange two folders atomically by Linux's renameat2, or by two renames if it is not available."""
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
