"""Graphs that are large for the available memory are verified with their weights in the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from forked_exports import tiny_options
from recorded_notes import Notes
from tiny_checkpoint import TinyCheckpoint, write_checkpoint

from qwen3_triton.client.manifest import Device, Precision, Verification
from qwen3_triton.export import ServingOptions, export_model
from qwen3_triton.export.verification import written_check
from qwen3_triton.export.verification.available_memory import available_memory

BUDGET = ServingOptions(max_batch_tokens=512)
"""Given, because measuring it would run the graph once more."""


def write(root: Path, file: str, text: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)


def test_available_memory_is_that_of_the_machine_and_the_container(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    write(tmp_path, "proc/meminfo", "MemTotal:       24000 kB\nMemAvailable:   20000 kB\n")
    assert available_memory(tmp_path) == 20000 * 1024
    write(tmp_path, "sys/fs/cgroup/memory.max", "max\n")
    write(tmp_path, "sys/fs/cgroup/memory.current", "3000\n")
    assert available_memory(tmp_path) == 20000 * 1024
    write(tmp_path, "sys/fs/cgroup/memory.max", "8000\n")
    assert available_memory(tmp_path) == 5000
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "6000\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", "7000\n")
    assert available_memory(tmp_path) == 0
    assert (available_memory() or 0) > 1 << 20


@pytest.mark.parametrize(
    ("precision", "device"),
    [(Precision.FP32, Device.CPU), (Precision.INT8, Device.CPU), (Precision.BF16, Device.CUDA)],
)
def test_graph_larger_than_half_of_the_memory_passes_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, device: Device
) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint())
    found = []
    for available in (1 << 40, 1000):
        monkeypatch.setattr(written_check, "available_memory", lambda available=available: available)
        progress = Notes()
        options = tiny_options(source, tmp_path / str(available), precision=precision, device=device, serving=BUDGET)
        found.append(export_model(options, progress).record.parity)
        assert any("from the file" in note for note in progress.notes) == (available == 1000)
    assert found[0] is not None
    assert found[1] is not None
    assert found[1].passed


GROWTH = """
import sys
from pathlib import Path
from qwen3_triton.export.verification.runtime import WrittenModel

def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))

opened = []
for maps_weights in (True, False):
    before = anonymous_bytes()
    opened.append(WrittenModel(Path(sys.argv[1]), threads=1, maps_weights=maps_weights))
    opened[-1].run([[1, 2, 3]])
    print(anonymous_bytes() - before)
"""


def test_weights_in_the_file_take_no_memory_of_their_own(tmp_path: Path) -> None:
    shape = TinyCheckpoint(hidden=512, intermediate=8192, layers=2)
    source = write_checkpoint(tmp_path / "wide", shape)
    options = tiny_options(source, tmp_path / "repository", verify=Verification.NONE, serving=BUDGET)
    result = export_model(options)
    command = [sys.executable, "-c", GROWTH, str(result.folder.graph(result.version))]
    mapped, copied = map(int, subprocess.check_output(command, text=True).split())
    matrices = 4 * shape.layers * 3 * shape.hidden * shape.intermediate
    assert mapped < matrices / 2 < copied
