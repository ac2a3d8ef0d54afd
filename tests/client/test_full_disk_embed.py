"""A disk that is full while `embed` writes: one line, and the vectors that were written stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton

from qwen3_triton.client import EmbeddingClient

pytest.importorskip("typer")

EMBED = """
import io, json, os, shutil, sys
from contextlib import redirect_stderr
from pathlib import Path
from qwen3_triton.cli.entry import run

disk, *arguments, name, kept = sys.argv[1:]
disk = Path(disk)
filler = disk / "filler"


def command(free_kib, *options):
    room = os.statvfs(disk)
    filler.write_bytes(bytes(room.f_bavail * room.f_bsize - free_kib * 1024))
    sys.argv = ["qwen3-triton", "embed", *arguments, "--output", str(disk / name), *options]
    errors, status = io.StringIO(), 0
    with redirect_stderr(errors):
        try:
            run()
        except SystemExit as done:
            status = done.code
    filler.unlink()
    return {"status": status, "errors": errors.getvalue().splitlines(), "files": sorted(map(str, os.listdir(disk)))}


results = [command(0), command(12), command(8, "--resume"), command(2000, "--resume")]
shutil.copy(disk / name, kept)
print(json.dumps(results))
"""

TEXTS = [f"text {number}" for number in range(700)]


@pytest.fixture
def arguments(triton: FakeTriton, tokenizer_file: Path, tmp_path: Path) -> list[object]:
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(TEXTS))
    return ["--url", triton.url, "--model", MODEL, "--input", source, "--tokenizer", tokenizer_file]


def test_vectors_before_a_full_disk_stay(
    small_disk: Any, arguments: list[object], client: EmbeddingClient, tmp_path: Path
) -> None:
    before, first, second, last = small_disk.run(EMBED, *arguments, "vectors.npy", tmp_path / "vectors.npy")
    output = small_disk.folder / "vectors.npy"
    reason = f"error: --output: cannot write {output}: No space left on device: free space there"
    assert (before["status"], before["files"], before["errors"]) == (1, [], [reason])
    for result in (first, second):
        assert result["status"] == 1
        assert result["files"] == ["vectors.npy.partial", "vectors.npy.partial.json"]
        assert result["errors"][-1] == reason
        assert result["errors"][-2].endswith(f"vectors are in {output}.partial: run again with --resume to continue")
    assert (last["status"], last["files"]) == (0, ["vectors.npy"]), last["errors"]
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), client.embed_documents(TEXTS))


STANDARD_OUTPUT = """
import json, subprocess, sys

disk, *arguments = sys.argv[1:]
code = "from qwen3_triton.cli.entry import run; run()"
with open(f"{disk}/filler", "wb") as filler:
    try:
        filler.write(bytes(4096 * 1024))
    except OSError:
        pass
with open(f"{disk}/vectors", "wb") as output:
    done = subprocess.run(
        [sys.executable, "-c", code, "embed", *arguments], stdout=output, stderr=subprocess.PIPE, text=True
    )
print(json.dumps([done.returncode, done.stderr.splitlines()]))
"""


def test_standard_output_to_a_full_disk_is_one_line(small_disk: Any, arguments: list[object]) -> None:
    status, errors = small_disk.run(STANDARD_OUTPUT, *arguments)
    assert (status, errors) == (1, ["error: cannot write the output: No space left on device: free space there"])
