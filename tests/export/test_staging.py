"""Atomic creation of folders: exceptions, stale folders, races, disk errors."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import threading
from pathlib import Path

import pytest

from qwen3_triton.export import ModelExistsError, StagingError
from qwen3_triton.export.artifacts.staging import remove_stale, staged_folder

MARK = ".qwen3-triton-staging-"


def leftovers(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith(MARK))


def content(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "repository" / "model"


def fill(target: Path, text: str, *, overwrite: bool = False) -> None:
    with staged_folder(target, overwrite=overwrite) as folder:
        (folder / "1").mkdir()
        (folder / "1" / "a").write_text(text)
        (folder / "b").write_text(text)


def test_target_appears_at_the_end(target: Path, tmp_path: Path) -> None:
    with staged_folder(target, overwrite=False) as folder:
        (folder / "a").write_text("x")
        assert not target.exists()
        assert list(target.parent.iterdir()) == []
        assert folder.stat().st_dev == target.parent.stat().st_dev
    assert content(target) == {"a": "x"}
    assert leftovers(tmp_path) == []
    assert target.stat().st_mode & 0o777 == 0o755


def test_exception_in_the_block_leaves_nothing(target: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged_folder(target, overwrite=False) as folder:
        (folder / "a").write_text("x")
        raise ZeroDivisionError
    assert list(target.parent.iterdir()) == []
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone"), KeyboardInterrupt()])
def test_exception_in_the_block_propagates_and_keeps_the_old_folder(
    target: Path, tmp_path: Path, error: BaseException
) -> None:
    fill(target, "old")
    with pytest.raises(type(error)) as caught, staged_folder(target, overwrite=True):
        raise error
    assert caught.value is error
    assert content(target) == {"1/a": "old", "b": "old"}
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_disk_error_is_reported_and_keeps_the_old_folder(target: Path, tmp_path: Path, code: int) -> None:
    fill(target, "old")
    wanted = f"model could not be written: .*{os.strerror(code)}"
    with pytest.raises(StagingError, match=wanted), staged_folder(target, overwrite=True):
        raise OSError(code, os.strerror(code))
    assert content(target) == {"1/a": "old", "b": "old"}
    assert leftovers(tmp_path) == []


def test_existing_target_is_rejected_or_replaced(target: Path) -> None:
    fill(target, "old")
    (target / "stale").write_text("x")
    with pytest.raises(ModelExistsError, match="model exists; overwrite it"):
        fill(target, "new")
    assert content(target)["b"] == "old"
    fill(target, "new", overwrite=True)
    assert content(target) == {"1/a": "new", "b": "new"}


def test_target_that_appears_meanwhile_is_rejected(target: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelExistsError, match="model"), staged_folder(target, overwrite=False) as folder:
        (folder / "a").write_text("mine")
        fill(target, "other")
    assert content(target) == {"1/a": "other", "b": "other"}
    assert leftovers(tmp_path) == []


def test_target_that_appears_at_the_last_moment_is_rejected(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = "model was created in the meantime"
    with pytest.raises(ModelExistsError, match=wanted), staged_folder(target, overwrite=False) as folder:
        (folder / "a").write_text("mine")
        # the check before the rename does not see the target
        monkeypatch.setattr(Path, "exists", lambda path: path != target and os.path.exists(path))  # noqa: PTH110
        target.mkdir()
        (target / "b").write_text("other")
    monkeypatch.undo()
    assert content(target) == {"b": "other"}
    assert leftovers(tmp_path) == []


def test_reader_never_sees_a_partial_replacement(target: Path) -> None:
    fill(target, "0")
    seen, torn, stop = set(), [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            # an open handle refers to the same folder after a rename
            handle = os.open(target, os.O_RDONLY)
            try:
                names = sorted(os.listdir(handle))  # noqa: PTH208 - lists the open folder, not its name
                if names == ["1", "b"]:
                    seen.add("whole")
                elif names:
                    torn.append(names)
            finally:
                os.close(handle)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 40):
            fill(target, str(number), overwrite=True)
    finally:
        stop.set()
        reader.join()
    # a missing name would have ended the thread with FileNotFoundError
    assert seen == {"whole"}
    assert [names for names in torn if names not in (["1"], ["b"])] == []
    assert content(target) == {"1/a": "39", "b": "39"}


def test_only_unlocked_staging_folders_are_removed(tmp_path: Path, target: Path) -> None:
    stale, locked, other = (tmp_path / name for name in (f"{MARK}stale", f"{MARK}locked", "mine"))
    for folder in (stale, locked, other):
        (folder / "content").mkdir(parents=True)
        (folder / "lock").write_text("")
    with (locked / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fill(target, "x")
        assert not stale.exists()
        assert (locked / "content").is_dir()
        assert (other / "content").is_dir()
    remove_stale(tmp_path)
    assert leftovers(tmp_path) == []


def test_staging_folder_removed_before_locking_is_recreated(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may remove the folder between mkdtemp and flock."""
    removed: list[Path] = []

    def remove_at_once(*, prefix: str, dir: Path) -> str:
        folder = dir / f"{prefix}{len(removed)}"
        folder.mkdir()
        if len(removed) < 2:
            remove_stale(dir)
            assert not folder.exists()
        removed.append(folder)
        return str(folder)

    monkeypatch.setattr(tempfile, "mkdtemp", remove_at_once)
    fill(target, "x")
    assert len(removed) == 3
    assert content(target) == {"1/a": "x", "b": "x"}
    assert leftovers(tmp_path) == []


def test_concurrent_runs_do_not_remove_each_others_folders(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(8):
                fill(tmp_path / "repository" / f"model-{number}", f"{number}-{turn}", overwrite=turn > 0)
        except BaseException as error:  # noqa: BLE001 - reported by the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for number in range(6):
        assert content(tmp_path / "repository" / f"model-{number}") == {"1/a": f"{number}-7", "b": f"{number}-7"}
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_read_only_parent_is_reported(target: Path, tmp_path: Path) -> None:
    target.parent.mkdir()
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(StagingError, match="read-only or on another file system"):
            fill(target, "x")
    finally:
        tmp_path.chmod(0o755)


def test_repository_path_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "repository").write_text("x")
    with pytest.raises(StagingError, match=r"cannot write next to .*choose another repository"):
        fill(tmp_path / "repository" / "model", "x")
