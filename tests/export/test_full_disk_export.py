"""A disk that is full during an export, a merge or a fusion: one line, and the repository is as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft_adapters import write_adapter
from tiny_checkpoint import TinyCheckpoint, write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # from transformers, about a name that PEFT uses

EXPORT_AND_MERGE = """
import hashlib, io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from qwen3_triton.cli.entry import run

disk, source, adapter, other = map(Path, sys.argv[1:5])
repository, filler = disk / "repository", disk / "filler"
merged, fused = disk / "out" / "merged", disk / "out" / "fused"


def files():
    found = sorted(file for file in disk.rglob("*") if file.is_file() and file != filler)
    return {str(file.relative_to(disk)): hashlib.sha256(file.read_bytes()).hexdigest() for file in found}


def command(free_kib, *arguments):
    room = os.statvfs(disk)
    filler.write_bytes(bytes(0 if free_kib is None else room.f_bavail * room.f_bsize - free_kib * 1024))
    sys.argv = ["qwen3-triton", *map(str, arguments)]
    errors = io.StringIO()
    with redirect_stderr(errors), redirect_stdout(io.StringIO()):
        try:
            run()
        except SystemExit as done:
            status = done.code
    filler.unlink()
    return {"status": status, "error": errors.getvalue().splitlines()[-1], "files": files()}


export = ("export", source, "--adapter", adapter, "--repository", repository, "--max-tokens", 16, "--witness", "none")
export += ("--max-batch-tokens", 512)
merge = ("merge", source, "--adapter", adapter, "--output", merged)
results = [command(None, *export)]
results += [command(free_kib, *export, "--overwrite") for free_kib in (0, 200)]
fuse = ("merge", source, "--with", other, "--output", fused)
results += [command(free_kib, *merge) for free_kib in (8, 60)]
results += [command(free_kib, *fuse) for free_kib in (8, 60)]
results += [command(None, *merge), command(None, *fuse)]
print(json.dumps(results))
"""


def test_full_disk_leaves_the_repository_as_it_was(small_disk: Any, tmp_path: Path, tiny_source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    other = write_checkpoint(tmp_path / "other", TinyCheckpoint(seed=4))
    first, *failed, merged, last = small_disk.run(EXPORT_AND_MERGE, tiny_source, adapter, other)
    for whole in (first, merged, last):
        assert whole["status"] == 0, whole["error"]
    assert first["files"].keys() >= {"repository/tiny/1/model.onnx", "repository/tiny/manifest.json"}
    assert last["files"].keys() > merged["files"].keys() > first["files"].keys()
    targets = [small_disk.folder / "repository", small_disk.folder / "repository" / "tiny"]
    targets += [small_disk.folder / "out" / name for name in ("merged", "merged", "fused", "fused")]
    for target, result in zip(targets, failed, strict=True):
        assert result["status"] == 1
        assert result["files"] == first["files"]
        assert result["error"].startswith("error: ")
        assert str(target) in result["error"]
        assert "No space left on device; " in result["error"]
